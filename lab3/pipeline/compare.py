"""Two runs of the same experiment, point by point."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from lab3 import readers
from lab3.engine import SweepPoint
from lab3.errors import first_few
from lab3.rundir import RunDir
from lab3.training import Epoch

_COUNTS = ("correct", "total", "top5_correct", "n_changed", "n_tied", "n_inferred", "n_audited")


@dataclass(frozen=True)
class Comparison:
    """`differences`: a line for each point or epoch that differs; `remarks`: what differs and is no result."""

    n_compared: int
    unit: str
    differences: list[str]
    remarks: list[str]


def compare_runs(before: RunDir, after: RunDir) -> Comparison:
    """The points of two runs bit for bit; the epochs if they only trained."""
    if before.read_manifest()["kind"] == "train":
        epochs, epochs_now = readers.read_epochs(before), readers.read_epochs(after)
        return Comparison(max(len(epochs), len(epochs_now)), "epochs", _compare_epochs(epochs, epochs_now), [])
    points = [{point.k: point for point in readers.read_points(run)} for run in (before, after)]
    n_predicted = _count_predicted_otherwise(before, after)
    differences = []
    for k in sorted({*points[0], *points[1]}):
        first, second = (each.get(k) for each in points)
        if first is None or second is None:
            differences.append(f"K={k}: only in {after.path if first is None else before.path}")
            continue
        parts = list(_compare_points(first, second))
        if n_predicted.get(k):
            parts.append(f"{n_predicted[k]} images predicted otherwise")
        if parts:
            differences.append(f"K={k}: {', '.join(parts)}")
    n_points = len({*points[0], *points[1]})
    return Comparison(n_points, "points", differences, [*_compare_work(*points), *_compare_importance(before, after)])


def _compare_points(before: SweepPoint, after: SweepPoint) -> Iterator[str]:
    gone, gone_now = set(before.pruned_channels), set(after.pruned_channels)
    if gone != gone_now:
        yield f"pruned channels {first_few(sorted(gone - gone_now))} -> {first_few(sorted(gone_now - gone))}"
    for name in _COUNTS:
        then, now = getattr(before, name), getattr(after, name)
        if then != now:
            yield f"{name} {then} -> {now} ({(now or 0) - (then or 0):+d})"
    if before.class_correct != after.class_correct:
        yield f"class_correct in {_n_differing(before.class_correct, after.class_correct)} classes"
    if before.confusion != after.confusion:
        flat = [[n for row in point.confusion or () for n in row] for point in (before, after)]
        yield f"confusion in {_n_differing(*flat)} cells"
    if before.loss != after.loss:
        yield f"loss {before.loss:.6f} -> {after.loss:.6f} ({after.loss - before.loss:+.1e})"
    if before.loss_se != after.loss_se:
        yield f"loss_se {before.loss_se} -> {after.loss_se}"


def _compare_work(before: dict[int, SweepPoint], after: dict[int, SweepPoint]) -> Iterator[str]:
    other = [k for k in before if k in after and before[k].n_run != after[k].n_run]
    if other:
        yield f"at {len(other)} K another number of images was run"


def _compare_importance(before: RunDir, after: RunDir) -> Iterator[str]:
    importance_c, importance_now_c = (readers.read_capture(run)[1].importance_c for run in (before, after))
    if importance_c.shape != importance_now_c.shape:
        yield f"{len(importance_c)} channels, now {len(importance_now_c)}"
    elif n_other := int((importance_c != importance_now_c).sum()):
        most = float(np.abs(importance_c - importance_now_c).max())
        yield f"importance differs for {n_other} of {len(importance_c)} channels, by {most:.1e} at most"


def _compare_epochs(before: Sequence[Epoch], after: Sequence[Epoch]) -> list[str]:
    differences = []
    for number, (then, now) in enumerate(zip_longest(before, after), start=1):
        if then is None or now is None:
            differences.append(f"epoch {number}: only {'after' if then is None else 'before'}")
        elif then != now:
            told = f"loss {then.loss} -> {now.loss}, accuracy {then.accuracy} -> {now.accuracy}"
            differences.append(f"epoch {number}: {told}")
    return differences


def _count_predicted_otherwise(before: RunDir, after: RunDir) -> dict[int, int]:
    """By K, where both runs kept their predictions."""
    if not (before.predictions_npz.exists() and after.predictions_npz.exists()):
        return {}
    (ks, predicted_kn, _), (ks_now, now_kn, _) = (readers.read_predictions(run) for run in (before, after))
    then, now = dict(zip(ks, predicted_kn, strict=True)), dict(zip(ks_now, now_kn, strict=True))
    return {k: _n_differing(then[k], now[k]) for k in ks if k in now}


def _n_differing(before: Sequence[int] | np.ndarray, after: Sequence[int] | np.ndarray) -> int:
    if len(before) != len(after):
        return max(len(before), len(after))
    return int((np.asarray(before) != np.asarray(after)).sum())
