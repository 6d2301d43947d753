"""Mean feature maps, one channel or all in a grid."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lab3.views.figures.canvas import ORANGE, new_figure, set_figure_title, set_title


def plot_feature_map(map_hw: np.ndarray, title: str, facts: str = "") -> Any:
    """One channel's mean feature map `(H, W)` in grey with its scale; returns the matplotlib figure."""
    figure = new_figure(4.5, 4)
    axes = figure.subplots()
    picture = axes.imshow(map_hw, cmap="gray")
    axes.set_xticks(range(map_hw.shape[1]) if map_hw.shape[1] <= 16 else [])
    axes.set_yticks(range(map_hw.shape[0]) if map_hw.shape[0] <= 16 else [])
    set_title(axes, title, facts, size=8)
    figure.colorbar(picture, ax=axes, label="mean activation")
    return figure


def plot_feature_maps(
    maps_hwc: np.ndarray, title: str, facts: str = "", limits: tuple[float, float] | None = None
) -> Any:
    """All channels' mean feature maps `(H, W, C)` in a near-square grid on one grey scale.

    `limits`: the values drawn black and white, for grids that are to be compared; `grey_limits(maps_hwc)` by default.
    The colour bar says what lies beyond them. Returns the matplotlib figure.
    """
    limits = limits or grey_limits(maps_hwc)
    figure = new_figure(10, 8.45 * _grid_shape(maps_hwc) + 0.6)
    axes = figure.subplots()
    picture = _draw_grid(axes, maps_hwc, (), limits)
    set_title(axes, title, facts)
    figure.colorbar(picture, ax=axes, **_scale_of([maps_hwc], limits), fraction=0.035, pad=0.015, aspect=40)
    return figure


def plot_before_after(
    before_hwc: np.ndarray,
    after_hwc: np.ndarray,
    title: str,
    k: int,
    pruned_channels: Sequence[int],
    limits: tuple[float, float],
    facts: str = "",
) -> Any:
    """Two grids as of `plot_feature_maps`, K = 0 and `k`, on one grey scale; pruned channels crossed out at `k`."""
    figure = new_figure(18, 8.2 * _grid_shape(before_hwc) + 0.9)
    left, right = figure.subplots(1, 2)
    _draw_grid(left, before_hwc, (), limits)
    picture = _draw_grid(right, after_hwc, pruned_channels, limits)
    set_title(left, "K = 0: no channel pruned")
    set_title(right, f"K = {k}: {len(pruned_channels)} channels pruned")
    set_figure_title(figure, title, facts, size=11)
    scale = _scale_of([before_hwc, after_hwc], limits)
    figure.colorbar(picture, ax=(left, right), **scale, fraction=0.02, pad=0.01, aspect=40)
    return figure


def _scale_of(maps: Sequence[np.ndarray], limits: tuple[float, float]) -> dict[str, str]:
    """The colour bar's label, with what is clipped of the maps, and its pointed ends."""
    values = np.concatenate([each.ravel() for each in maps])
    shares = {"darkest": float((values < limits[0]).mean()), "brightest": float((values > limits[1]).mean())}
    clipped = " and ".join(f"{name} {share:.1%}" for name, share in shares.items() if share)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}
    extend = ends[shares["darkest"] > 0, shares["brightest"] > 0]
    return {"label": "mean activation" + (f" ({clipped} clipped)" if clipped else ""), "extend": extend}


def _grid_shape(maps_hwc: np.ndarray) -> float:
    """Height of the grid over its width."""
    n_columns = grid_columns(maps_hwc.shape[2])
    n_rows = math.ceil(maps_hwc.shape[2] / n_columns)
    return float(maps_hwc.shape[0] * n_rows / (maps_hwc.shape[1] * n_columns))


def _draw_grid(axes: Any, maps_hwc: np.ndarray, pruned_channels: Iterable[int], limits: tuple[float, float]) -> Any:
    """The grid; returns what a colour bar needs."""
    factor = max(1, 48 // max(maps_hwc.shape[:2]))
    gap = 3 if factor > 1 else 1
    height, width, n_columns = factor * maps_hwc.shape[0], factor * maps_hwc.shape[1], grid_columns(maps_hwc.shape[2])
    tiles = _stitch(maps_hwc.repeat(factor, axis=0).repeat(factor, axis=1), n_columns, gap)
    axes.set_facecolor("#274b6d")
    picture = axes.imshow(tiles, cmap="gray", vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axes.autoscale(False)
    for channel in pruned_channels:
        x, y = channel % n_columns * (width + gap), channel // n_columns * (height + gap)
        for ends in ((y, y + height - 1), (y + height - 1, y)):
            axes.plot([x, x + width - 1], ends, color=ORANGE, linewidth=0.8)
    rows = range(math.ceil(maps_hwc.shape[2] / n_columns))
    axes.set_xticks([])
    axes.set_yticks(
        [row * (height + gap) + height / 2 for row in rows], [str(row * n_columns) for row in rows], fontsize=7
    )
    axes.tick_params(length=0)
    axes.set_ylabel("first channel of the row")
    return picture


def _stitch(maps_hwc: np.ndarray, n_columns: int, gap: int) -> np.ndarray:
    """The maps side by side, NaN between them."""
    height, width, n_channels = maps_hwc.shape
    tiles = np.full((math.ceil(n_channels / n_columns) * (height + gap), n_columns * (width + gap)), np.nan)
    for channel in range(n_channels):
        x, y = channel % n_columns * (width + gap), channel // n_columns * (height + gap)
        tiles[y : y + height, x : x + width] = maps_hwc[..., channel]
    return tiles[:-gap, :-gap]


def grid_columns(n_channels: int) -> int:
    """Columns of the near-square grid: 23 for 512 channels.

    >>> grid_columns(512), grid_columns(32)
    (23, 6)
    """
    return math.ceil(math.sqrt(n_channels))


def grey_limits(maps_hwc: np.ndarray) -> tuple[float, float]:
    """The values drawn black and white: 0 (or the lowest, if negative) and the 99.5th percentile, so one hot channel
    does not darken the rest."""
    low = min(0.0, float(maps_hwc.min()))
    high = float(np.percentile(maps_hwc, 99.5))
    return low, high if high > low else low + 1.0


def channel_pictures(maps_hwc: np.ndarray, side: int = 64) -> list[np.ndarray]:
    """Each channel's mean feature map as uint8 pixels on one grey scale, enlarged without smoothing to about `side`."""
    low, high = grey_limits(maps_hwc)
    grey_hwc = np.round(255 * np.clip((maps_hwc - low) / (high - low), 0, 1)).astype(np.uint8)
    factor = max(1, side // max(maps_hwc.shape[:2]))
    enlarged_hwc = grey_hwc.repeat(factor, axis=0).repeat(factor, axis=1)
    return [enlarged_hwc[..., channel] for channel in range(maps_hwc.shape[2])]
