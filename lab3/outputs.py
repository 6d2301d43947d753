"""What a run leaves: tables as functions from results to the bytes of a file, the summary, and the figures."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from lab3.engine import SweepPoint
from lab3.figures import (
    about,
    grey_limits,
    plot_before_after,
    plot_comparison,
    plot_confusion,
    plot_feature_map,
    plot_feature_maps,
    save_figure,
    short,
)
from lab3.files import write_atomically
from lab3.journal import Row
from lab3.rank import ChannelStats, PruneStep
from lab3.readers import read_points, read_summary
from lab3.rundir import RunDir
from lab3.scores import Scores
from lab3.training import Epoch


def row_of_point(point: SweepPoint) -> Row:
    """The journal's row of a point."""
    return {name: value for name, value in vars(point).items() if value is not None}


def row_of_epoch(epoch: Epoch, checkpoint: str) -> Row:
    """The row of `epochs.jsonl` of an epoch whose checkpoint has this SHA-256."""
    # JSON has no NaN, which a loss can be.
    numbers = {
        name: str(value) if value is not None and not isfinite(value) else value for name, value in vars(epoch).items()
    }
    return {**numbers, "checkpoint": checkpoint}


def capture_npz(mean_map_hwc: np.ndarray, scores: Scores) -> bytes:
    """The mean feature maps and the scores, so that a resumed run ranks by exactly the same numbers."""
    content = io.BytesIO()
    np.savez(content, mean_map_hwc=mean_map_hwc, **asdict(scores))
    return content.getvalue()


def predictions_npz(ks: Sequence[int], predictions_kn: np.ndarray, labels_n: np.ndarray) -> bytes:
    """Compressed `k` `(K,)`, `predicted` `(K, N)` in the smallest unsigned type, `label` `(N,)`."""
    smallest = np.min_scalar_type(max(int(predictions_kn.max()), int(labels_n.max())))
    content = io.BytesIO()
    np.savez_compressed(content, k=np.array(ks), predicted=predictions_kn.astype(smallest), label=labels_n)
    return content.getvalue()


def channels_csv(channels: Sequence[ChannelStats]) -> bytes:
    """A row a channel, the least important first; `pruned_at_k` is empty for a channel that is never pruned."""
    return _table([field.name for field in fields(ChannelStats)], map(astuple, channels))


def scores_csv(scores: Mapping[str, np.ndarray]) -> bytes:
    """A row a channel in the layer's order, a column a criterion; `scores` are `(C,)` each."""
    rows = zip(*([float(value) for value in column] for column in scores.values()), strict=True)
    return _table(["channel", *scores], ((channel, *row) for channel, row in enumerate(rows)))


def results_csv(points: Sequence[SweepPoint]) -> bytes:
    """A row a point; accuracy and loss to 6 decimals.

    Of a run that infers, the loss is in the column `loss_estimate`, and columns behind it say how much was inferred.
    """
    header = ["k", "n_pruned", "correct", "total", "accuracy", "loss"]
    rows: list[tuple[Any, ...]] = [
        (p.k, p.n_pruned, p.correct, p.total, f"{p.accuracy:.6f}", f"{p.loss:.6f}") for p in points
    ]
    if points[0].is_inferred:
        header[-1:] = ["loss_estimate", "loss_se", "n_inferred", "n_audited"]
        rows = [(*row, f"{p.loss_se:.6f}", p.n_inferred, p.n_audited) for row, p in zip(rows, points, strict=True)]
    return _table(header, rows)


def metrics_csv(points: Sequence[SweepPoint], class_names: Sequence[str]) -> bytes:
    """A row a point with what it has beyond `results_csv`; `correct_<class>` counts images of a class."""
    names = ["k", "top5_correct", "n_changed", "n_tied", "n_run"] + ["n_inferred"] * points[0].is_inferred
    rows = [(*(getattr(point, name) for name in names), *point.class_correct) for point in points]
    return _table([*names, *(f"correct_{name}" for name in class_names)], rows)


def epochs_csv(history: Sequence[Epoch]) -> bytes:
    """A row an epoch of training."""
    return _table([field.name for field in fields(Epoch)], map(astuple, history))


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def write_comparison(folder: Path, runs: Mapping[str, RunDir]) -> None:
    """`comparison.csv` and `comparison.png` of finished runs by label: accuracy against the share that is pruned."""
    rows, curves, summaries = [], {}, []
    for label, run in runs.items():
        summary, points = read_summary(run), read_points(run)
        summaries.append(summary)
        n_channels = int(summary["n_channels"])
        label += " (inferred)" * points[0].is_inferred
        curves[label] = [(point.n_pruned / n_channels, point.accuracy) for point in points]
        rows += [
            (label, summary["layer"], summary["criterion"], p.k, p.n_pruned, n_channels, p.correct, f"{p.accuracy:.6f}")
            for p in points
        ]
    header = ["run", "layer", "criterion", "k", "n_pruned", "n_channels", "correct", "accuracy"]
    write_atomically(folder / "comparison.csv", _table(header, rows))
    common = {name: value for name, value in summaries[0].items() if all(each.get(name) == value for each in summaries)}
    source = Path(run.read_manifest().data.test.source).name
    facts = about(
        criterion=common.get("criterion"), effect=common.get("effect"), n_images=points[0].total, source=source
    )
    title = f"{folder.name}: accuracy as channels are pruned"
    save_figure(plot_comparison(curves, title, facts), folder / "comparison.png")


def draw_feature_maps(
    run: RunDir,
    layer_name: str,
    mean_map_hwc: np.ndarray,
    pruned_map: np.ndarray,
    steps: Sequence[PruneStep],
    facts: str,
) -> None:
    """`feature_map_0`, `feature_maps`, and for each of `steps` `feature_maps_k<K>`: before and after, side by side.

    `facts`: what `figures.about` says; so in the other figures of a run.
    """
    layer_name = short(layer_name)
    title = f"mean feature maps of {layer_name}, {mean_map_hwc.shape[2]} channels"
    limits = grey_limits(mean_map_hwc)
    first = plot_feature_map(mean_map_hwc[..., 0], f"mean feature map of {layer_name}, channel 0", facts)
    save_figure(first, run.figure("feature_map_0"))
    save_figure(plot_feature_maps(mean_map_hwc, title, facts, limits), run.figure("feature_maps"))
    for step in steps:
        pruned_hwc = mean_map_hwc.copy()
        pruned = list(step.pruned_channels)
        pruned_hwc[..., pruned] = pruned_map[..., pruned]
        figure = plot_before_after(mean_map_hwc, pruned_hwc, title, step.k, pruned, limits, facts)
        save_figure(figure, run.figure(f"feature_maps_k{step.k}"))


def draw_confusion(run: RunDir, point: SweepPoint, class_names: Sequence[str], facts: str) -> None:
    """`figures/confusion_k<K>.png` of a point that has a confusion matrix."""
    title = f"K = {point.k}: {point.n_pruned} channels pruned, accuracy {point.accuracy:.4f}"
    title += f", {point.n_inferred:,} images inferred" if point.is_inferred else ""
    figure = plot_confusion(np.array(point.confusion), class_names, title, facts)
    save_figure(figure, run.figure(f"confusion_k{point.k}"))


def summarise(
    points: Sequence[SweepPoint], layer: Mapping[str, Any], settings: Mapping[str, Any], safe_drop: float
) -> dict[str, Any]:
    """The content of `summary.json`: what was pruned and how, the baseline, the best, the last and the safe point.

    `exact` is False where the run infers predictions. Safe is the largest K up to which no accuracy is more than
    `safe_drop` below the baseline; `share` is that of the layer's channels that are then pruned.
    """
    best = max(points, key=lambda point: (point.correct, point.k))
    baseline = points[0] if points[0].k == 0 else None
    return {
        **layer,
        **settings,
        "exact": not points[0].is_inferred,
        "n_points": len(points),
        "n_images": points[0].total,
        "baseline": _describe(baseline) if baseline else None,
        "best": _describe(best),
        "last": _describe(points[-1]),
        "safe": _describe_safe(points, safe_drop, layer["n_channels"]) if baseline else None,
    }


def _describe_safe(points: Sequence[SweepPoint], safe_drop: float, n_channels: int) -> dict[str, Any]:
    floor = points[0].correct - safe_drop * points[0].total
    # A product such as 0.07 * 100 is not exact.
    n_safe = next((number for number, point in enumerate(points) if point.correct < floor - 1e-6), len(points))
    safe = points[n_safe - 1]
    return {**_describe(safe), "share": safe.n_pruned / n_channels, "drop": safe_drop}


def _describe(point: SweepPoint) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("k", "n_pruned", "correct", "accuracy")}
