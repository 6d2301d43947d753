"""Pictures of a run. The only module that imports matplotlib."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab3.engine import SweepPoint
from lab3.files import replacing
from lab3.foreign import printable
from lab3.training import Epoch, best_epoch

_BLUE, _ORANGE, _GREY = "#1f5fa8", "#d9730d", "#8a8a8a"


def plot_accuracy(points: Sequence[SweepPoint], title: str, n_channels: int, axes: Any = None) -> Any:
    """The accuracy curve over K; where more than K channels are gone, a second curve over the channels actually gone.

    The title says where predictions were inferred.
    Returns the matplotlib figure. `axes`: draw there instead of on a new figure.
    """
    axes = axes if axes is not None else _new_axes(8, 5)
    ks = [point.k for point in points]
    accuracies = [point.accuracy for point in points]
    marker = "." if len(points) <= 64 else ""
    axes.plot(ks, accuracies, color=_BLUE, linewidth=1.6, marker=marker, label="by K, the number asked for")
    axes.set_xlabel(f"K, pruned channels of {n_channels}")
    if any(point.n_pruned != point.k for point in points):
        gone = [point.n_pruned for point in points]
        axes.plot(gone, accuracies, color=_ORANGE, linewidth=1.6, marker=".", label="by channels actually gone")
        axes.set_xlabel(f"pruned channels of {n_channels}")
        axes.legend(frameon=False)
    if points[0].n_pruned == 0:
        axes.axhline(accuracies[0], color=_GREY, linewidth=0.8, linestyle="--", zorder=0)
        axes.annotate(
            f"baseline {accuracies[0]:.4f}",
            (n_channels, accuracies[0]),
            xytext=(-5, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color="#555555",
            fontsize=9,
        )
    axes.set_xlim(0, n_channels)
    axes.set_ylim(0, min(1.04, max(accuracies) * 1.08))
    axes.set_ylabel("test accuracy")
    if points[0].is_inferred:
        most = max(point.n_inferred or 0 for point in points)
        title += f"\ninferred, not exact: up to {most:,} predictions a K were not computed"
    axes.set_title(_plain(title))
    axes.grid(alpha=0.25)
    return axes.figure


def plot_comparison(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Any:
    """Accuracy against the share of channels gone, a curve a label; returns the matplotlib figure."""
    from matplotlib import colormaps

    axes = _new_axes(9, 5.5)
    names = [name for name, n_colors in (("tab10", 10), ("tab20", 20), ("viridis", 10**6)) if len(curves) <= n_colors]
    positions = range(len(curves)) if names[0] != "viridis" else np.linspace(0, 1, len(curves))
    colors = colormaps[names[0]](positions)
    for (label, curve), color in zip(curves.items(), colors, strict=False):
        axes.plot(*zip(*curve, strict=True), color=color, linewidth=1.5, label=_plain(label))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, min(1.04, 1.08 * max(accuracy for curve in curves.values() for _, accuracy in curve)))
    axes.set_xlabel("share of the layer's channels pruned")
    axes.set_ylabel("test accuracy")
    axes.set_title(_plain(title))
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes.figure


def plot_confusion(confusion_ll: np.ndarray, class_names: Sequence[str], title: str) -> Any:
    """Images of each class (rows) by predicted class (columns), shaded by the share of their class."""
    n_labels = len(confusion_ll)
    side = min(14.0, 3.2 + 0.55 * n_labels)
    axes = _new_axes(side, side)
    share_ll = confusion_ll / np.maximum(1, confusion_ll.sum(axis=1, keepdims=True))
    axes.imshow(share_ll, cmap="Blues", vmin=0, vmax=1)
    if n_labels <= 20:
        for row, column in np.ndindex(confusion_ll.shape):
            if confusion_ll[row, column]:
                color = "white" if share_ll[row, column] > 0.5 else "#333333"
                text = f"{confusion_ll[row, column]:,}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    step = math.ceil(n_labels / 40)
    names = [_plain(name) for name in class_names[::step]]
    axes.set_xticks(range(0, n_labels, step), names)
    if max(map(len, class_names)) > 3:
        axes.tick_params("x", rotation=90)
    axes.set_yticks(range(0, n_labels, step), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("class")
    axes.set_title(_plain(title))
    return axes.figure


def plot_learning_curves(history: Sequence[Epoch], title: str) -> Any:
    """Loss and accuracy over the epochs, training and validation; returns the matplotlib figure."""
    from matplotlib.ticker import MaxNLocator

    figure = _new_figure(9, 4)
    epochs = [epoch.epoch for epoch in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [getattr(epoch, name) for epoch in history], color=_BLUE, marker=".", label="training")
        if history[0].val_loss is not None:
            values = [getattr(epoch, f"val_{name}") for epoch in history]
            axes.plot(epochs, values, color=_ORANGE, marker=".", label="validation")
        axes.axvline(best_epoch(list(history)).epoch, color=_GREY, linewidth=0.8, linestyle="--", label="weights kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.suptitle(_plain(title))
    return figure


def plot_feature_map(map_hw: np.ndarray, title: str) -> Any:
    """One channel's mean feature map `(H, W)` in grey with its scale; returns the matplotlib figure."""
    figure = _new_figure(4.5, 4)
    axes = figure.subplots()
    picture = axes.imshow(map_hw, cmap="gray")
    axes.set_xticks(range(map_hw.shape[1]) if map_hw.shape[1] <= 16 else [])
    axes.set_yticks(range(map_hw.shape[0]) if map_hw.shape[0] <= 16 else [])
    axes.set_title(_plain(title), fontsize=10)
    figure.colorbar(picture, ax=axes, label="mean activation")
    return figure


def plot_feature_maps(maps_hwc: np.ndarray, title: str, limits: tuple[float, float] | None = None) -> Any:
    """All channels' mean feature maps `(H, W, C)` in a near-square grid on one grey scale.

    `limits`: the values drawn black and white, for grids that are to be compared; `grey_limits(maps_hwc)` by default.
    Returns the matplotlib figure.
    """
    figure = _new_figure(10, 8.45 * _grid_shape(maps_hwc) + 0.4)
    axes = figure.subplots()
    picture = _draw_grid(axes, maps_hwc, title, (), limits or grey_limits(maps_hwc))
    figure.colorbar(picture, ax=axes, label="mean activation", fraction=0.035, pad=0.015, aspect=40)
    return figure


def plot_before_after(
    before_hwc: np.ndarray,
    after_hwc: np.ndarray,
    titles: tuple[str, str],
    pruned_channels: Sequence[int],
    limits: tuple[float, float],
) -> Any:
    """Two grids as of `plot_feature_maps` side by side on one grey scale, pruned channels crossed out in the second."""
    figure = _new_figure(18, 8.2 * _grid_shape(before_hwc) + 0.4)
    left, right = figure.subplots(1, 2)
    _draw_grid(left, before_hwc, titles[0], (), limits)
    picture = _draw_grid(right, after_hwc, titles[1], pruned_channels, limits)
    figure.colorbar(picture, ax=(left, right), label="mean activation", fraction=0.02, pad=0.01, aspect=40)
    return figure


def _grid_shape(maps_hwc: np.ndarray) -> float:
    """Height of the grid over its width."""
    n_columns = grid_columns(maps_hwc.shape[2])
    n_rows = math.ceil(maps_hwc.shape[2] / n_columns)
    return float(maps_hwc.shape[0] * n_rows / (maps_hwc.shape[1] * n_columns))


def _draw_grid(
    axes: Any, maps_hwc: np.ndarray, title: str, pruned_channels: Iterable[int], limits: tuple[float, float]
) -> Any:
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
            axes.plot([x, x + width - 1], ends, color=_ORANGE, linewidth=0.8)
    rows = range(math.ceil(maps_hwc.shape[2] / n_columns))
    axes.set_xticks([])
    axes.set_yticks(
        [row * (height + gap) + height / 2 for row in rows], [str(row * n_columns) for row in rows], fontsize=7
    )
    axes.tick_params(length=0)
    axes.set_ylabel("first channel of the row")
    axes.set_title(_plain(title), fontsize=10)
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


def save_figure(figure: Any, path: Path) -> None:
    """Write `figure` as PNG in one durable step."""
    with replacing(path) as temporary:
        # Without a fixed Software entry the bytes differ from version to version.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": "lab3"})


def _plain(text: str) -> str:
    """A name as it is: matplotlib would read what stands between two dollar signs as a formula."""
    return printable(text).replace("$", r"\$")


def _new_figure(width: float, height: float) -> Any:
    # Figure alone, without pyplot: no window, no global list of open figures.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _new_axes(width: float, height: float) -> Any:
    return _new_figure(width, height).subplots()
