"""Draw what a run's folder holds, into the folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lab3.analysis.certificate import Certificate, Evidence, observe
from lab3.analysis.flips import LostImages
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import PruneStep
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir
from lab3.views.figures import (
    about,
    grey_limits,
    plot_accuracy,
    plot_before_after,
    plot_class_accuracy,
    plot_comparison,
    plot_confusion,
    plot_feature_map,
    plot_feature_maps,
    plot_flips,
    save_figure,
    short,
)

Place = Callable[[str], Path]


def draw_comparison(folder: Path, runs: Mapping[str, RunDir]) -> None:
    """`comparison.png` of finished runs by label: accuracy against the share that is pruned."""
    curves, summaries = {}, []
    for label, run in runs.items():
        summary, points = read_summary(run), read_points(run)
        summaries.append(summary)
        label += " (inferred)" * points[0].is_inferred
        curves[label] = [(point.n_pruned / summary["n_channels"], point.accuracy) for point in points]
    common = {name: value for name, value in summaries[0].items() if all(each.get(name) == value for each in summaries)}
    source, n_images = Path(run.read_manifest().data.test.source).name, points[0].total
    facts = about(criterion=common.get("criterion"), effect=common.get("effect"), n_images=n_images, source=source)
    title = f"{folder.name}: accuracy as channels are pruned"
    save_figure(plot_comparison(curves, title, facts), folder / "comparison.png")


def draw_feature_maps(
    figure: Place,
    layer_name: str,
    mean_map_hwc: np.ndarray,
    pruned_map: np.ndarray,
    steps: Sequence[PruneStep],
    facts: str,
) -> None:
    """`feature_map_0`, `feature_maps`, and for each of `steps` `feature_maps_k<K>`: before and after, side by side.

    `figure`: where the one of a name goes. `facts`: what `figures.about` says; so in the other figures of a run.
    """
    layer_name = short(layer_name)
    title = f"mean feature maps of {layer_name}, {mean_map_hwc.shape[2]} channels"
    limits = grey_limits(mean_map_hwc)
    first = plot_feature_map(mean_map_hwc[..., 0], f"mean feature map of {layer_name}, channel 0", facts)
    save_figure(first, figure("feature_map_0"))
    save_figure(plot_feature_maps(mean_map_hwc, title, facts, limits), figure("feature_maps"))
    for step in steps:
        pruned_hwc = mean_map_hwc.copy()
        pruned = list(step.pruned_channels)
        pruned_hwc[..., pruned] = pruned_map[..., pruned]
        both = plot_before_after(mean_map_hwc, pruned_hwc, title, step.k, pruned, limits, facts)
        save_figure(both, figure(f"feature_maps_k{step.k}"))


def draw_results(figure: Place, evidence: Evidence, certificate: Certificate, lost: LostImages, facts: str) -> None:
    """`accuracy_curve`, `class_accuracy`, `flips`, and `confusion_k<K>` of each point that has a confusion matrix.

    `lost`: the images that are lost first. `facts`: what `figures.about` says; so in the other figures of a run.
    """
    points, names, layer = evidence.points, evidence.class_names, short(evidence.layer_name)
    curve = plot_accuracy(points, evidence.layer_name, evidence.n_channels, None, facts, certificate)
    save_figure(curve, figure("accuracy_curve"))
    observed = observe(points, certificate.tolerance)
    answers = (certificate.k, observed.k if observed else 0)
    marked = next((point for k in answers for point in points if point.k == k and point.n_pruned), points[-1])
    title = f"Accuracy by class as channels of {layer} are pruned"
    save_figure(plot_class_accuracy(points, marked, names, title, facts), figure("class_accuracy"))
    captions = [f"K = {flip.k}\n{short(names[label], 12)}" for flip, label in zip(lost.flips, lost.labels, strict=True)]
    title = f"Images lost and gained as channels of {layer} are pruned"
    save_figure(plot_flips(points, lost.pictures, captions, title, facts), figure("flips"))
    for point in points:
        if point.confusion is not None:
            _draw_confusion(figure, point, names, facts)


def _draw_confusion(figure: Place, point: SweepPoint, class_names: Sequence[str], facts: str) -> None:
    title = f"K = {point.k}: {point.n_pruned} channels pruned, accuracy {point.accuracy:.4f}"
    title += f", {point.n_inferred:,} images inferred" if point.is_inferred else ""
    matrix = plot_confusion(np.array(point.confusion), class_names, title, facts)
    save_figure(matrix, figure(f"confusion_k{point.k}"))
