"""How far long work is, on a terminal, in a notebook or in a log file."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from lab3.base.progress import Advance, Progress
from lab3.errors import printable


class Bars(Progress):
    """Bars with rate and time left on standard error where it can draw them; ten lines a bar elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)

    def say(self, text: str) -> None:
        """One line, as it is."""
        self.console.print(escape(printable(text)), soft_wrap=True)

    def warn(self, text: str) -> None:
        """One line that stands out."""
        self.console.print(f"[yellow]warning:[/yellow] {escape(printable(text))}", soft_wrap=True)

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """A bar; call what it gives with the number of units done since the last call and a short note."""
        # Rich draws in a notebook with ipywidgets, and without them gives a warning in place of a bar.
        is_notebook_with_widgets = self.console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        if not (self.console.is_terminal or is_notebook_with_widgets):
            yield self._lines(title, total, unit)
            return
        shown = (
            rich_progress.TextColumn("{task.description:<8}"),
            rich_progress.BarColumn(bar_width=30),
            rich_progress.MofNCompleteColumn(),
            _RateColumn(unit),
            rich_progress.TimeElapsedColumn(),
            rich_progress.TextColumn("left"),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}"),
        )
        with rich_progress.Progress(*shown, console=self.console) as bars:
            task = bars.add_task(escape(printable(title)), total=total, note="")

            def advance(n_done: int, note: str) -> None:
                bars.advance(task, n_done)
                if note:
                    bars.update(task, note=note)

            yield advance

    def _lines(self, title: str, total: int, unit: str) -> Advance:
        done, last_note = 0, ""

        def advance(n_done: int, note: str) -> None:
            nonlocal done, last_note
            last_note = note or last_note
            before, done = done, done + n_done
            if done * 10 // total > before * 10 // total:
                self.say(f"{title}: {done:,} of {total:,} {unit}{', ' + last_note if last_note else ''}")

        return advance


def open_progress(is_wanted: bool) -> Progress:
    """Bars where a person looks at them, on a terminal or in a notebook; nothing elsewhere or if none are wanted."""
    bars = Bars()
    is_watched = bars.console.is_terminal or bars.console.is_jupyter
    return bars if is_wanted and is_watched else Progress()


class _RateColumn(rich_progress.ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: rich_progress.Task) -> Text:
        speed: Any = task.finished_speed or task.speed
        return Text(f"{speed:,.1f} {self._unit}/s" if speed else f"- {self._unit}/s")
