"""The tables of a run, each a function from results to the bytes of a file, and its summary."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, fields
from math import isfinite
from typing import Any

import numpy as np

from lab3.inputs.training import Epoch
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import ChannelStats
from lab3.pruning.scores import Scores
from lab3.record.journal import Row
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir


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


def comparison_csv(runs: Mapping[str, RunDir]) -> bytes:
    """A row for each point of finished runs, by their labels."""
    rows: list[tuple[Any, ...]] = []
    for label, run in runs.items():
        summary, points = read_summary(run), read_points(run)
        layer, criterion, n_channels = (summary[name] for name in ("layer", "criterion", "n_channels"))
        label += " (inferred)" * points[0].is_inferred
        rows += [(label, layer, criterion, p.k, p.n_pruned, n_channels, p.correct, f"{p.accuracy:.6f}") for p in points]
    return _table(["run", "layer", "criterion", "k", "n_pruned", "n_channels", "correct", "accuracy"], rows)


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


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
