"""What a person sees: progress on stderr, results on stdout."""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import click
from rich.text import Text

from lab3.analysis.certificate import in_points
from lab3.app.cli.printed import new_table, print_table, show_measures
from lab3.app.pipeline import Group
from lab3.base.bars import Bars
from lab3.base.progress import Advance
from lab3.errors import StoppedError, printable
from lab3.pruning.engine import SweepPoint
from lab3.pruning.layers import LayerInfo
from lab3.record.compaction import read_compaction
from lab3.record.readers import read_plan, read_points, read_summary
from lab3.record.rundir import RunDir

_SHOWN_POINTS = 12
_SHOWN_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


class _BrokenOff(BaseException):
    """Raised in a signal's handler; as no `Exception` it passes through libraries that catch those."""


class TerminalProgress(Bars):
    """Bars with rate and time left on a terminal; ten lines a bar in a log file.

    As a context it also makes SIGINT and SIGTERM wait for the current block: the next call of a bar raises
    `StoppedError`. A second signal stops at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._received: int | None = None
        self._is_stoppable = False
        self._earlier_handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._earlier_handlers[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._earlier_handlers.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise KeyboardInterrupt
        self._received = number
        if self._is_stoppable:
            raise _BrokenOff
        text = "stopping after the current block; a second signal stops at once"
        try:
            self.say(text)
        except RuntimeError:
            # A line is being written, and its buffer takes no other before that is done; its file does.
            os.write(2, f"{text}\n".encode())

    def is_asked_to_stop(self) -> bool:
        """True if a signal has come."""
        return self._received is not None

    def stop_if_asked(self) -> None:
        """Raise `StoppedError` if a signal has come."""
        if self._received is not None:
            name = signal.Signals(self._received).name
            code = 130 if self._received == signal.SIGINT else 75
            raise StoppedError(f"stopped by {name}", code)

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """A signal that comes now does not wait."""
        self._is_stoppable = True
        try:
            self.stop_if_asked()
            yield
        except _BrokenOff:
            self.stop_if_asked()
        finally:
            self._is_stoppable = False

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """Draw a bar, or print a line at every tenth of the way."""
        with super().bar(title, total, unit) as draw:

            def advance(n_done: int, note: str) -> None:
                draw(n_done, note)
                self.stop_if_asked()

            yield advance


def show_result(done: RunDir | Group, *, as_json: bool = False) -> None:
    """A table of a run's points or a group's runs, the answer in a sentence, the folder as the last line, on stdout.

    `as_json`: the summary and the folder in its place.
    """
    if as_json:
        click.echo(json.dumps(_as_json(done), indent=2))
        return
    if isinstance(done, Group):
        _show_runs(done)
    elif done.journal_jsonl.exists():
        _show_points(read_points(done))
        click.echo(read_summary(done)["sentence"])
    elif done.plan_csv.exists():
        _show_plan(done)
        click.echo(read_summary(done)["sentence"])
    click.echo(str(done.path))


def _as_json(done: RunDir | Group) -> dict[str, Any]:
    if isinstance(done, RunDir):
        return {"path": str(done.path), **read_summary(done)}
    certified = {label: each.summary() for label, each in done.certificates.items()}
    return {
        "path": str(done.path),
        "certified": certified,
        "runs": {label: _as_json(run) for label, run in done.runs.items()},
    }


def _show_runs(group: Group) -> None:
    """Accuracy of each run at some shares of pruned channels, and how many of them can be pruned."""
    shares = (f"{share:.0%} pruned" for share in _SHOWN_SHARES)
    table = new_table("run", "channels", *shares, "certified")
    for label, run in group.runs.items():
        points, summary, certificate = read_points(run), read_summary(run), group.certificates[label]
        label += " (inferred)" * points[0].is_inferred
        shown = [_nearest(points, share, summary) for share in _SHOWN_SHARES]
        accuracies = (f"{point.accuracy:.4f}" if point else "" for point in shown)
        certified = f"{certificate.n_pruned} ({certificate.share:.0%})"
        table.add_row(Text(printable(label)), str(summary["n_channels"]), *accuracies, certified)
    print_table(table)
    one = next(iter(group.certificates.values()))
    click.echo(
        f"certified: so many channels can be pruned and accuracy falls by at most {in_points(one.tolerance)}, for all "
        f"runs at once ({100 * one.confidence:g} % confidence, {one.n_images:,} images)"
    )


def _nearest(points: Sequence[SweepPoint], share: float, summary: Mapping[str, Any]) -> SweepPoint | None:
    """The point whose share of pruned channels is nearest; None behind the end of a sweep that stopped on its way."""
    n_pruned = share * summary["n_channels"]
    has_stopped = summary["until"] == "certified" and summary["certified"]["failed_k"] is not None
    if has_stopped and n_pruned > points[-1].n_pruned:
        return None
    return min(points, key=lambda point: abs(point.n_pruned - n_pruned))


def _show_plan(run: RunDir) -> None:
    """What a compressed network keeps of each layer, and what that saves."""
    table = new_table("layer", "channels", "kept", "share")
    for row in read_plan(run):
        share = f"{int(row['n_kept']) / int(row['n_channels']):.0%}"
        table.add_row(Text(printable(row["layer"])), row["n_channels"], row["n_kept"], share)
    print_table(table)
    if run.compact.exists():
        compaction = read_compaction(run)
        click.echo("")
        show_measures(compaction.before, compaction.after, "channels of these layers", compaction.device)


def show_layers(layers: Sequence[LayerInfo]) -> None:
    """A table of layers, the one that would be pruned marked."""
    table = new_table("index", "layer", "class", "output shape", "parameters", "")
    for layer in layers:
        shape = "x".join("N" if size is None else str(size) for size in layer.output_shape or ())
        mark, style = ("<- pruned", "bold") if layer.is_pruned else ("", None)
        name, n_parameters = Text(printable(layer.name)), f"{layer.n_parameters:,}"
        table.add_row(str(layer.index), name, layer.class_name, shape, n_parameters, mark, style=style)
    print_table(table)
    click.echo(f"{len(layers)} layers, {sum(layer.n_parameters for layer in layers):,} parameters")


def _show_points(points: Sequence[SweepPoint]) -> None:
    infers = points[0].is_inferred
    table = new_table(
        "K", "pruned", "correct", "accuracy", "change", *(["est. loss", "inferred"] if infers else ["loss"])
    )
    for point in _spread(points):
        change = "" if point is points[0] else f"{point.accuracy - points[0].accuracy:+.4f}"
        counts = (str(point.k), str(point.n_pruned), f"{point.correct:,}", f"{point.accuracy:.4f}", change)
        losses = (
            [f"{point.loss:.4f} ±{point.loss_se:.4f}", f"{point.n_inferred:,}"] if infers else [f"{point.loss:.4f}"]
        )
        table.add_row(*counts, *losses)
    print_table(table)
    if infers:
        click.echo("inferred, not exact: that many predictions were not computed; without --infer all counts are exact")


def _spread(points: Sequence[SweepPoint]) -> list[SweepPoint]:
    """At most a screenful, evenly spread, first and last among them."""
    if len(points) <= 2 * _SHOWN_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(number * last / (_SHOWN_POINTS - 1))] for number in range(_SHOWN_POINTS)]
