"""How far long work is, on a terminal, in a notebook or in a log file."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from lab3.foreign import printable
from lab3.progress import Advance


@contextmanager
def draw_bar(console: Console, title: str, total: int, unit: str) -> Iterator[Advance]:
    """A bar with rate and time left where `console` can draw one; a line at every tenth of the way elsewhere."""
    # Rich draws in a notebook with ipywidgets, and without them gives a warning in place of a bar.
    is_notebook_with_widgets = console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
    if not (console.is_terminal or is_notebook_with_widgets):
        yield _lines(console, title, total, unit)
        return
    columns = (
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        _RateColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(escape(printable(title)), total=total, note="")

        def advance(n_done: int, note: str) -> None:
            bars.advance(task, n_done)
            if note:
                bars.update(task, note=note)

        yield advance


def open_console(is_wanted: bool) -> Console | None:
    """Standard error where a person looks at it, a terminal or a notebook; None elsewhere or if nothing is wanted."""
    console = Console(stderr=True, highlight=False)
    return console if is_wanted and (console.is_terminal or console.is_jupyter) else None


def say(console: Console, text: str) -> None:
    """One line, as it is."""
    console.print(escape(printable(text)), soft_wrap=True)


def _lines(console: Console, title: str, total: int, unit: str) -> Advance:
    done, last_note = 0, ""

    def advance(n_done: int, note: str) -> None:
        nonlocal done, last_note
        last_note = note or last_note
        before, done = done, done + n_done
        if done * 10 // total > before * 10 // total:
            say(console, f"{title}: {done:,} of {total:,} {unit}{', ' + last_note if last_note else ''}")

    return advance


class _RateColumn(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        speed: Any = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self._unit}/s" if speed else f"- {self._unit}/s")
