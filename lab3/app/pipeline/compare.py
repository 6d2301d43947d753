"""Two runs of the same experiment, point by point."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import zip_longest

from lab3.errors import first_few
from lab3.inputs.training import Epoch
from lab3.pruning.engine import SweepPoint
from lab3.record import readers
from lab3.record.journal import read_journal
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
        lines = [f"epoch {number}: {line}" for number, line in _lines((before, after), epochs)]
        return Comparison(len(epochs[0].keys() | epochs[1].keys()), "epochs", lines, [])
    if kind == "compress":
        return _compare_measurements(before, after)
    points = [{point.k: point for point in readers.read_points(run)} for run in (before, after)]
    lines = [f"K={k}: {line}" for k, line in _lines((before, after), points)]
    n_other = sum(points[0][k].n_run != points[1][k].n_run for k in points[0].keys() & points[1].keys())
    remarks = [f"at {n_other} K another number of images was run"] if n_other else []
    return Comparison(len(points[0].keys() | points[1].keys()), "points", lines, remarks)


def _compare_measurements(before: RunDir, after: RunDir) -> Comparison:
    """What both measured; times differ between any two runs, and so may what is chosen by them."""
    then, now = (
        {f"{row['what']} {row['of']}": row["value"] for row in read_journal(run.measured_jsonl)}
        for run in (before, after)
    )
    names = [*then, *(name for name in now if name not in then)]
    lines = [
        f"{name:.80}: {then.get(name, 'nothing')!r:.80} -> {now.get(name, 'nothing')!r:.80}"
        for name in names
        if then.get(name) != now.get(name)
    ]
    return Comparison(len(names), "measurements", lines, [])


def _lines(
    runs: tuple[RunDir, RunDir], results: Sequence[Mapping[int, SweepPoint | Epoch]]
) -> Iterator[tuple[int, str]]:
    then, now = results
    for number in sorted(then.keys() | now.keys()):
        if number not in then or number not in now:
            yield number, f"only in {runs[number not in then].path}"
        elif changes := list(_changes(then[number], now[number])):
            yield number, ", ".join(changes)


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
            yield f"{name} in {sum(one != other for one, other in zip_longest(*flat))} places"
        else:
            yield f"{name} {then} -> {now}" + ("" if None in (then, now) else f" ({now - then:+g})")
