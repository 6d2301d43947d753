"""Write the files a run leaves: tables, summary and figures, each in one step from what the journal holds."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from lab3.engine import SweepPoint
from lab3.figures import (
    about,
    grey_limits,
    plot_accuracy,
    plot_before_after,
    plot_comparison,
    plot_confusion,
    plot_feature_map,
    plot_feature_maps,
    plot_learning_curves,
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
    row: dict[str, Any] = {
        "k": point.k,
        "pruned_channels": list(point.pruned_channels),
        "correct": point.correct,
        "total": point.total,
        "loss": point.loss,
        "top5_correct": point.top5_correct,
        "class_correct": list(point.class_correct),
        "n_changed": point.n_changed,
        "n_tied": point.n_tied,
        "n_run": point.n_run,
    }
    if point.confusion is not None:
        row["confusion"] = [list(counts) for counts in point.confusion]
    if point.is_inferred:
        row |= {"n_inferred": point.n_inferred, "n_audited": point.n_audited, "loss_se": point.loss_se}
    return row


def write_capture(run: RunDir, mean_map_hwc: np.ndarray, scores: Scores) -> None:
    """Keep the mean feature maps and the scores, so that a resumed run ranks by exactly the same numbers."""
    content = io.BytesIO()
    np.savez(content, mean_map_hwc=mean_map_hwc, **asdict(scores))
    write_atomically(run.capture_npz, content.getvalue())


def write_channels(run: RunDir, channels: Sequence[ChannelStats]) -> None:
    """`channels.csv`, the least important first; `pruned_at_k` is empty for a channel that never goes."""
    run.write_csv(run.channels_csv, [field.name for field in fields(ChannelStats)], [astuple(row) for row in channels])


def write_scores(run: RunDir, scores: Mapping[str, np.ndarray]) -> None:
    """`scores.csv`, a row a channel in the layer's order, a column a criterion; `scores` are `(C,)` each."""
    rows = zip(*([float(value) for value in column] for column in scores.values()), strict=True)
    run.write_csv(run.scores_csv, ["channel", *scores], ((channel, *row) for channel, row in enumerate(rows)))


def write_results(run: RunDir, points: Sequence[SweepPoint]) -> None:
    """`results.csv`, ascending K; accuracy and loss to 6 decimals.

    Of a run that infers, the loss is in the column `loss_estimate`, and columns behind it say how much was inferred.
    """
    header = ["k", "n_pruned", "correct", "total", "accuracy", "loss"]
    rows: list[tuple[Any, ...]] = [
        (p.k, p.n_pruned, p.correct, p.total, f"{p.accuracy:.6f}", f"{p.loss:.6f}") for p in points
    ]
    if points[0].is_inferred:
        header[-1:] = ["loss_estimate", "loss_se", "n_inferred", "n_audited"]
        rows = [(*row, f"{p.loss_se:.6f}", p.n_inferred, p.n_audited) for row, p in zip(rows, points, strict=True)]
    run.write_csv(run.results_csv, header, rows)


def write_metrics(run: RunDir, points: Sequence[SweepPoint], class_names: Sequence[str]) -> None:
    """`metrics.csv`, ascending K: what a point has beyond `results.csv`; `correct_<class>` counts images of a class."""
    names = ["k", "top5_correct", "n_changed", "n_tied", "n_run"] + ["n_inferred"] * points[0].is_inferred
    rows = [(*(getattr(point, name) for name in names), *point.class_correct) for point in points]
    run.write_csv(run.metrics_csv, [*names, *(f"correct_{name}" for name in class_names)], rows)


def write_predictions(run: RunDir, ks: Sequence[int], predictions_kn: np.ndarray, labels_n: np.ndarray) -> None:
    """`predictions.npz`, compressed: `k` `(K,)`, `predicted` `(K, N)` in the smallest unsigned type, `label` `(N,)`."""
    smallest = np.min_scalar_type(max(int(predictions_kn.max()), int(labels_n.max())))
    content = io.BytesIO()
    np.savez_compressed(content, k=np.array(ks), predicted=predictions_kn.astype(smallest), label=labels_n)
    write_atomically(run.predictions_npz, content.getvalue())


def write_comparison(folder: Path, runs: Mapping[str, RunDir]) -> None:
    """`comparison.csv` and `comparison.png` of finished runs by label: accuracy against the share of channels gone."""
    rows, curves = [], {}
    criteria, effects, images = set(), set(), set()
    for label, run in runs.items():
        summary = read_summary(run)
        points, n_channels = read_points(run), int(summary["n_channels"])
        label += " (inferred)" * points[0].is_inferred
        criteria.add(summary["criterion"])
        effects.add(summary["effect"])
        images.add((points[0].total, Path(run.read_manifest()["data"]["test"]["source"]).name))
        curves[label] = [(point.n_pruned / n_channels, point.accuracy) for point in points]
        rows += [
            (label, summary["layer"], summary["criterion"], p.k, p.n_pruned, n_channels, p.correct, f"{p.accuracy:.6f}")
            for p in points
        ]
    header = ["run", "layer", "criterion", "k", "n_pruned", "n_channels", "correct", "accuracy"]
    RunDir(folder).write_csv(folder / "comparison.csv", header, rows)
    (n_images, source), *_ = images
    facts = about(criterion=_only(criteria), effect=_only(effects), n_images=n_images, source=source)
    title = f"{folder.name}: accuracy as channels are pruned"
    save_figure(plot_comparison(curves, title, facts), folder / "comparison.png")


def _only(values: set[str]) -> str | None:
    """What all have in common, None if they differ."""
    return next(iter(values)) if len(values) == 1 else None


def row_of_epoch(epoch: Epoch, checkpoint: str) -> Row:
    """The row of `epochs.jsonl` of an epoch whose checkpoint has this SHA-256."""
    # JSON has no NaN, which a loss can be.
    numbers = {
        name: str(value) if value is not None and not isfinite(value) else value
        for name, value in asdict(epoch).items()
    }
    return {**numbers, "checkpoint": checkpoint}


def write_epochs(run: RunDir, history: Sequence[Epoch]) -> None:
    """`epochs.csv`, one row an epoch of training."""
    run.write_csv(run.epochs_csv, [field.name for field in fields(Epoch)], [astuple(epoch) for epoch in history])


def draw_training(run: RunDir, history: Sequence[Epoch]) -> Path:
    """`figures/learning_curves.png`."""
    return _save(run, "learning_curves", plot_learning_curves(history, f"{run.run_id}: training"))


def draw_feature_maps(
    run: RunDir,
    layer_name: str,
    mean_map_hwc: np.ndarray,
    pruned_map: np.ndarray,
    steps: Sequence[PruneStep],
    facts: str,
) -> dict[str, Path]:
    """`feature_map_0`, `feature_maps`, and for each of `steps` `feature_maps_k<K>`: before and after, side by side.

    `facts`: what `figures.about` says; so in the other figures of a run.
    """
    n_channels = mean_map_hwc.shape[2]
    layer_name = short(layer_name)
    title = f"mean feature maps of {layer_name}, {n_channels} channels"
    limits = grey_limits(mean_map_hwc)
    first = plot_feature_map(mean_map_hwc[..., 0], f"mean feature map of {layer_name}, channel 0", facts)
    paths = {
        "feature_map_0": _save(run, "feature_map_0", first),
        "feature_maps": _save(run, "feature_maps", plot_feature_maps(mean_map_hwc, title, facts, limits)),
    }
    for step in steps:
        pruned_hwc = mean_map_hwc.copy()
        pruned = list(step.pruned_channels)
        pruned_hwc[..., pruned] = pruned_map[..., pruned]
        figure = plot_before_after(mean_map_hwc, pruned_hwc, title, step.k, pruned, limits, facts)
        paths[f"feature_maps_k{step.k}"] = _save(run, f"feature_maps_k{step.k}", figure)
    return paths


def draw_accuracy(run: RunDir, points: Sequence[SweepPoint], layer_name: str, n_channels: int, facts: str) -> Path:
    """`figures/accuracy_curve.png`."""
    return _save(run, "accuracy_curve", plot_accuracy(points, layer_name, n_channels, facts=facts))


def draw_confusion(run: RunDir, point: SweepPoint, class_names: Sequence[str], facts: str) -> Path:
    """`figures/confusion_k<K>.png` of a point that has a confusion matrix."""
    assert point.confusion is not None
    title = f"K = {point.k}: {point.n_pruned} channels pruned, accuracy {point.accuracy:.4f}"
    title += f", {point.n_inferred:,} images inferred" if point.is_inferred else ""
    return _save(run, f"confusion_k{point.k}", plot_confusion(np.array(point.confusion), class_names, title, facts))


def summarise(
    points: Sequence[SweepPoint], layer: Mapping[str, Any], settings: Mapping[str, Any], safe_drop: float
) -> dict[str, Any]:
    """The content of `summary.json`: what was pruned and how, the baseline, the best, the last and the safe point.

    `exact` is False where the run infers predictions. Safe is the largest K up to which no accuracy is more than
    `safe_drop` below the baseline; `share` is that of the layer's channels that are then gone.
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
    return {"k": point.k, "n_pruned": point.n_pruned, "correct": point.correct, "accuracy": point.accuracy}


def _save(run: RunDir, name: str, figure: Any) -> Path:
    path = run.figures / f"{name}.png"
    save_figure(figure, path)
    return path
