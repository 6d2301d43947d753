"""What pruning does to single classes and images."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab3.pruning.engine import SweepPoint
from lab3.views.figures.canvas import BLUE, GREY, ORANGE, curve_style, new_axes, new_figure, plain, set_title, short

_MOST_CLASSES, _PER_ROW, _SIDE = 20, 12, 64


def plot_class_accuracy(
    points: Sequence[SweepPoint], marked: SweepPoint, class_names: Sequence[str], title: str, facts: str = ""
) -> Any:
    """Accuracy of each class over K; returns the matplotlib figure.

    The legend says by how much a class changed at the point `marked`, the worst first. Of more than 20 classes those 20
    are drawn that fell most there.
    """
    axes = new_axes(9, 5.6)
    total_l = np.array(points[0].class_total)
    correct_kl = np.array([point.class_correct for point in points])
    change_l = (np.array(marked.class_gained) - np.array(marked.class_lost)) / np.maximum(1, total_l)
    shown = [index for index in np.argsort(change_l, kind="stable") if total_l[index]][:_MOST_CLASSES]
    ks = [point.k for point in points]
    for number, index in enumerate(shown):
        name = plain(short(class_names[index], 24))
        label = f"{name}: {100 * change_l[index]:+.1f}"
        axes.plot(ks, correct_kl[:, index] / total_l[index], **curve_style(number, len(shown), len(ks)), label=label)
    axes.axvline(marked.k, color=GREY, linewidth=0.9, linestyle="--", zorder=0)
    axes.set_xlim(0, max(ks[-1], 1))
    axes.set_ylim(0, 1.04)
    axes.set_xlabel("K")
    axes.set_ylabel("test accuracy of the class")
    axes.grid(alpha=0.25)
    more = f"; the {len(shown)} of {len(class_names)} classes that fell most" if len(shown) < len(class_names) else ""
    set_title(axes, title, facts, f"behind each name, the change at K = {marked.k} in points{more}")
    axes.legend(frameon=False, fontsize=8, handlelength=4, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return axes.figure


def plot_flips(
    points: Sequence[SweepPoint], pictures: np.ndarray, captions: Sequence[str], title: str, facts: str = ""
) -> Any:
    """Images lost and gained against K = 0 over K, and below them the images that are lost first.

    `pictures`: as `image_pictures` makes them, with a caption each. Returns the matplotlib figure.
    """
    n_rows = -(-len(pictures) // _PER_ROW)
    figure = new_figure(9, 4.4 + 1.15 * n_rows)
    grid = figure.add_gridspec(1 + n_rows, _PER_ROW, height_ratios=[4, *[1] * n_rows])
    axes = figure.add_subplot(grid[0, :])
    ks = [point.k for point in points]
    lost, gained = ([getattr(point, name) for point in points] for name in ("n_lost", "n_gained"))
    axes.plot(ks, lost, color=ORANGE, linewidth=1.6, label="lost: right at K = 0, now wrong")
    axes.plot(ks, gained, color=BLUE, linewidth=1.6, linestyle="--", label="gained: wrong at K = 0, now right")
    axes.set_xlim(0, max(ks[-1], 1))
    axes.set_ylim(0, None)
    axes.set_xlabel("K")
    axes.set_ylabel(f"of {points[0].total:,} images")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    set_title(axes, title, facts, "below: the images lost first, and the K at which they are" if captions else "")
    for number, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        tile = figure.add_subplot(grid[1 + number // _PER_ROW, number % _PER_ROW])
        tile.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        tile.set_axis_off()
        tile.set_title("\n".join(map(plain, caption.split("\n"))), fontsize=7, pad=2)
    return figure


def image_pictures(images_nhwc: np.ndarray) -> np.ndarray:
    """Images as uint8 pixels `(N, H, W)` or `(N, H, W, 3)` on one scale, at about 64 pixels a side without smoothing.

    Of other color channels than one or three the mean is shown.
    """
    if images_nhwc.shape[-1] != 3:
        images_nhwc = images_nhwc.mean(axis=-1)
    low, high = (float(images_nhwc.min()), float(images_nhwc.max())) if len(images_nhwc) else (0.0, 1.0)
    scaled = (images_nhwc.astype(np.float64) - low) / ((high - low) or 1.0)
    side = max(scaled.shape[1:3])
    step, factor = max(1, side // _SIDE), max(1, _SIDE // side)
    pictures: np.ndarray = np.round(255 * scaled[:, ::step, ::step]).astype(np.uint8)
    return pictures.repeat(factor, axis=1).repeat(factor, axis=2)
