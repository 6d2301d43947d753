"""How long work tells what it is doing, without knowing who listens."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int, str], None]


class Progress(Protocol):
    """Lines and bars for a person; the command line draws them on stderr."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    def warn(self, text: str) -> None:
        """One line about something the user may want to change."""

    def is_asked_to_stop(self) -> bool:
        """True if somebody wants the work to stop."""

    def stop_if_asked(self) -> None:
        """Raise `StoppedError` if somebody wants the work to stop; every advance of a bar does so too."""

    def stoppable(self) -> AbstractContextManager[None]:
        """Work that may be broken off anywhere: `StoppedError` comes out of it as soon as somebody wants it to stop."""

    def bar(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A bar; call what it gives with the number of units done since the last call and a short note."""


class SilentProgress:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Drop the line."""

    def warn(self, text: str) -> None:
        """Drop the line."""

    def is_asked_to_stop(self) -> bool:
        """Never."""
        return False

    def stop_if_asked(self) -> None:
        """Go on."""

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Go on."""
        yield

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """Draw nothing."""
        yield lambda n_done, note: None


_: Progress = SilentProgress()
