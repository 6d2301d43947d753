"""How long work reports what it is doing, without knowing who listens."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Advance = Callable[[int, str], None]


class Progress:
    """Lines and bars for a person. This one shows nothing; the command line's draws them on stderr."""

    def say(self, text: str) -> None:
        """One line about what happens now."""

    def warn(self, text: str) -> None:
        """One line about something the user may want to change."""

    def is_asked_to_stop(self) -> bool:
        """True if somebody wants the work to stop."""
        return False

    def stop_if_asked(self) -> None:
        """Raise `StoppedError` if somebody wants the work to stop; every advance of a bar does so too."""

    def stoppable(self) -> AbstractContextManager[None]:
        """Work that may be broken off anywhere: `StoppedError` comes out of it as soon as somebody wants it to stop."""
        return nullcontext()

    def bar(self, title: str, total: int, unit: str) -> AbstractContextManager[Advance]:
        """A bar; call what it gives with the number of units done since the last call and a short note."""
        return nullcontext(lambda n_done, note: None)
