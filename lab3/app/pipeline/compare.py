"""Two runs of the same experiment, point by point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lab3.errors import first_few
from lab3.inputs.training import Epoch
from lab3.pruning.engine import SweepPoint
from lab3.record import readers
from lab3.record.manifest import Kind
from lab3.record.rundir import RunDir

_NO_RESULTS = ("k", "n_run")


@dataclass(frozen=True)
class Comparison:
    """`differences`: a line for each point or epoch that differs; `remarks`: what differs and is no result."""

    n_compared: int
    unit: str
    differences: list[str]
    remarks: list[str]


def compare_runs(before: RunDir, after: RunDir, kind: Kind) -> Comparison:
    """The points of two runs bit for bit; the epochs where `kind` is `train`."""
    if kind == "train":
        epochs = [{epoch.epoch: epoch for epoch in readers.read_epochs(run)} for run in (before, after)]
        lines = [f"epoch {number}: {line}" for number, line in _lines((before, after), epochs, {})]
        return Comparison(len(epochs[0].keys() | epochs[1].keys()), "epochs", lines, [])
    points = [{point.k: point for point in readers.read_points(run)} for run in (before, after)]
    lines = [f"K={k}: {line}" for k, line in _lines((before, after), points, _count_predicted_otherwise(before, after))]
    n_other = sum(points[0][k].n_run != points[1][k].n_run for k in points[0].keys() & points[1].keys())
    remarks = [f"at {n_other} K another number of images was run"] if n_other else []
    remarks += _compare_importance(before, after)
    return Comparison(len(points[0].keys() | points[1].keys()), "points", lines, remarks)


def _lines(
    runs: tuple[RunDir, RunDir], results: Sequence[Mapping[int, SweepPoint | Epoch]], n_predicted: Mapping[int, int]
) -> Iterator[tuple[int, str]]:
    then, now = results
    for number in sorted(then.keys() | now.keys()):
        if number not in then or number not in now:
            yield number, f"only in {runs[number not in then].path}"
            continue
        parts = list(_changes(then[number], now[number]))
        if n_images := n_predicted.get(number):
            parts.append(f"{n_images} images predicted otherwise")
        if parts:
            yield number, ", ".join(parts)


def _changes(before: SweepPoint | Epoch, after: SweepPoint | Epoch) -> Iterator[str]:
    for name in (field.name for field in fields(before)):
        then, now = getattr(before, name), getattr(after, name)
        if then == now or name in _NO_RESULTS:
            continue
        if name == "pruned_channels":
            lost, added = sorted(set(then) - set(now)), sorted(set(now) - set(then))
            yield f"pruned channels {first_few(lost)} -> {first_few(added)}"
        elif isinstance(then, tuple) and isinstance(now, tuple):
            flat = [[n for row in each for n in (row if isinstance(row, tuple) else (row,))] for each in (then, now)]
            yield f"{name} in {_n_differing(*flat)} places"
        else:
            yield f"{name} {then} -> {now}" + ("" if None in (then, now) else f" ({now - then:+g})")


def _compare_importance(before: RunDir, after: RunDir) -> Iterator[str]:
    then_c, now_c = (readers.read_capture(run)[1].importance_c for run in (before, after))
    if then_c.shape != now_c.shape:
        yield f"{len(then_c)} channels, now {len(now_c)}"
    elif n_other := int((then_c != now_c).sum()):
        largest = float(np.abs(then_c - now_c).max())
        yield f"importance differs for {n_other} of {len(then_c)} channels, by {largest:.1e} at most"


def _count_predicted_otherwise(before: RunDir, after: RunDir) -> dict[int, int]:
    """By K, where both runs kept their predictions."""
    if not (before.predictions_npz.exists() and after.predictions_npz.exists()):
        return {}
    then, now = (readers.read_predictions(run) for run in (before, after))
    return {k: _n_differing(then[k], now[k]) for k in then.keys() & now.keys()}


def _n_differing(before: Sequence[int] | np.ndarray, after: Sequence[int] | np.ndarray) -> int:
    if len(before) != len(after):
        return max(len(before), len(after))
    return int((np.asarray(before) != np.asarray(after)).sum())
