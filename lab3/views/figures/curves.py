"""Curves and the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lab3.analysis.band import accuracy_band
from lab3.analysis.certificate import Certificate, in_points, observe
from lab3.inputs.training import Epoch, best_epoch
from lab3.pruning.budget import FrontierPoint, marked
from lab3.pruning.engine import SweepPoint
from lab3.views.figures.canvas import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    curve_style,
    new_axes,
    new_figure,
    plain,
    set_figure_title,
    set_title,
    short,
)


def plot_accuracy(
    points: Sequence[SweepPoint],
    layer_name: str,
    n_channels: int,
    axes: Any = None,
    facts: str = "",
    certificate: Certificate | None = None,
) -> Any:
    """The accuracy curve over K with the band of all K at once and chance; what is certified and observed is marked.

    Where more than K channels are pruned, a second curve stands over the channels so pruned. The title has `facts` of
    `about` and the certificate's sentence, and says where predictions were inferred; then there is no band.
    Returns the matplotlib figure. `axes`: draw there instead of on a new figure.
    """
    axes = axes if axes is not None else new_axes(8, 5.6)
    ks = [point.k for point in points]
    accuracies = [point.accuracy for point in points]
    style = {"linewidth": 1.6, "marker": "." if len(points) <= 64 else ""}
    has_surplus = any(point.n_pruned != point.k for point in points)
    axes.plot(ks, accuracies, color=BLUE, **style, label="by K, the number asked for" if has_surplus else "accuracy")
    axes.set_xlabel(f"K, pruned channels of {n_channels}")
    if has_surplus:
        pruned = [point.n_pruned for point in points]
        axes.plot(pruned, accuracies, color=ORANGE, linestyle="--", **style, label="by channels actually pruned")
        axes.set_xlabel(f"pruned channels of {n_channels}")
    confidence = certificate.confidence if certificate else 0.95
    if not points[0].is_inferred:
        low_k, high_k = accuracy_band(points, confidence)
        label = f"{100 * confidence:g} % band of all K at once"
        axes.fill_between(ks, low_k, high_k, color=BLUE, alpha=0.18, linewidth=0, label=label)
    chance = 1 / len(points[0].class_correct)
    axes.axhline(chance, color=GREY, linewidth=0.9, linestyle="-.", zorder=0, label=f"chance, {chance:.3g}")
    if points[0].n_pruned == 0:
        axes.axhline(accuracies[0], color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        axes.annotate(
            f"K = 0: {accuracies[0]:.4f}",
            (n_channels, accuracies[0]),
            xytext=(-5, -4),
            textcoords="offset points",
            ha="right",
            va="top",
            color="#555555",
            fontsize=9,
        )
    if certificate is not None:
        _mark(axes, points, certificate)
    axes.legend(framealpha=0.9, edgecolor="none", fontsize=8, loc="lower left")
    axes.set_xlim(0, n_channels)
    axes.set_ylim(0, min(1.04, max(accuracies) * 1.08))
    axes.set_ylabel("test accuracy")
    text = [f"Accuracy as channels of {short(layer_name)} are pruned", facts]
    if points[0].is_inferred:
        highest = max(point.n_inferred or 0 for point in points)
        text.append(f"inferred, not exact: up to {highest:,} predictions a K were not computed")
    if certificate is not None:
        text.append(certificate.sentence)
    set_title(axes, *text)
    axes.grid(alpha=0.25)
    return axes.figure


def _mark(axes: Any, points: Sequence[SweepPoint], certificate: Certificate) -> None:
    """Lines at the K that is certified and at the one that is observed."""
    fall = in_points(certificate.tolerance)
    if certificate.n_pruned:
        label = f"certified: K = {certificate.k}, at most {fall} ({100 * certificate.confidence:g} % confidence)"
        axes.axvline(certificate.k, color=GREEN, linewidth=1.4, label=label)
    if observed := observe(points, certificate.tolerance):
        label = f"observed: K = {observed.k}, at most {fall} on these images"
        axes.axvline(observed.k, color=ORANGE, linewidth=1.4, linestyle=":", label=label)


def plot_comparison(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, facts: str = "") -> Any:
    """Accuracy against the share of channels pruned, a curve a label; returns the matplotlib figure.

    Curves differ in color and in the pair of line and marker, so they differ in grey too.
    """
    n_rows = min(len(curves), 26)
    axes = new_axes(9, max(5.5, 0.19 * n_rows + 1))
    for number, (label, curve) in enumerate(curves.items()):
        style = curve_style(number, len(curves), len(curve))
        axes.plot(*zip(*curve, strict=True), **style, label=plain(short(label)))
    axes.set_xlim(0, 1)
    axes.set_ylim(0, min(1.04, 1.08 * max(accuracy for curve in curves.values() for _, accuracy in curve)))
    axes.set_xlabel("share of the layer's channels pruned")
    axes.set_ylabel("test accuracy")
    set_figure_title(axes.figure, title, facts)
    axes.grid(alpha=0.25)
    legend = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5), "ncols": math.ceil(len(curves) / 26)}
    axes.legend(frameon=False, fontsize=8, handlelength=4, **legend)
    return axes.figure


def plot_frontier(
    frontier: Sequence[FrontierPoint], n_pruned: int, budget: float, cost: str, title: str, facts: str = ""
) -> Any:
    """Accuracy lost on the images that chose against the share of `cost` that is left, plan by plan.

    Returns the matplotlib figure. The budget is drawn, and the last certified plan marked; so is the one that was taken
    where that is another: it prunes `n_pruned` channels.
    """
    axes = new_axes(8, 5)
    shares, lost = [point.cost_share for point in frontier], [100 * point.lost for point in frontier]
    axes.plot(shares, lost, color=BLUE, linewidth=1.6, marker="o", markersize=4, label="on the images that chose")
    axes.axhline(100 * budget, color=GREY, linewidth=0.8, linestyle="--", label="budget")
    certified, taken = marked(frontier, n_pruned)
    if certified is not None:
        axes.plot(
            certified.cost_share, 100 * certified.lost, color=ORANGE, marker="D", markersize=9,
            linestyle="none", label="certified on images that chose nothing",
        )  # fmt: skip
    if taken is not None:
        place = (taken.cost_share, 100 * taken.lost)
        axes.plot(*place, color=GREEN, marker="s", markersize=9, linestyle="none", label="the plan that was taken")
    axes.set_xlim(1.02, 0)
    axes.set_xlabel(f"share of {cost} that is left")
    axes.set_ylabel("accuracy lost, points")
    axes.legend(frameon=False, loc="lower right")
    axes.grid(alpha=0.25)
    set_title(axes, title, facts)
    return axes.figure


def plot_confusion(confusion_ll: np.ndarray, class_names: Sequence[str], title: str, facts: str = "") -> Any:
    """Images of each class (rows) by predicted class (columns), shaded by the share of their class."""
    n_labels = len(confusion_ll)
    side = min(14.0, 3.6 + 0.55 * n_labels)
    axes = new_axes(side + 1, side)
    share_ll = confusion_ll / np.maximum(1, confusion_ll.sum(axis=1, keepdims=True))
    picture = axes.imshow(share_ll, cmap="Blues", vmin=0, vmax=1)
    if n_labels <= 20:
        for row, column in np.ndindex(confusion_ll.shape):
            if confusion_ll[row, column]:
                color = "white" if share_ll[row, column] > 0.5 else "#333333"
                text = f"{confusion_ll[row, column]:,}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    step = math.ceil(n_labels / 40)
    names = [plain(short(name, 20)) for name in class_names[::step]]
    axes.set_xticks(range(0, n_labels, step), names)
    if max(map(len, class_names)) > 3:
        axes.tick_params("x", rotation=90)
    axes.set_yticks(range(0, n_labels, step), names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.figure.colorbar(picture, ax=axes, label="share of the true class", fraction=0.046, pad=0.02)
    set_title(axes, title, facts)
    return axes.figure


def plot_learning_curves(history: Sequence[Epoch], title: str) -> Any:
    """Loss and accuracy over the epochs, training and validation; returns the matplotlib figure."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(9, 4)
    epochs = [epoch.epoch for epoch in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        axes.plot(epochs, [getattr(epoch, name) for epoch in history], color=BLUE, marker=".", label="training")
        if history[0].val_loss is not None:
            values = [getattr(epoch, f"val_{name}") for epoch in history]
            axes.plot(epochs, values, color=ORANGE, linestyle="--", marker=".", label="validation")
        axes.axvline(best_epoch(list(history)).epoch, color=GREY, linewidth=0.8, linestyle=":", label="weights kept")
        axes.set_xlabel("epoch")
        axes.set_ylabel(name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    set_figure_title(figure, title, size=12)
    return figure
