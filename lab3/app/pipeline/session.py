"""How a command works: what is the same for a run and for all runs of a group."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lab3.base.progress import Progress
from lab3.config import Config
from lab3.tracking import Mode, choose_mode
from lab3.vocabulary import Device

Value = TypeVar("Value")


@dataclass(frozen=True)
class Session:
    """`mode`: the choice on the command line, if any. A run that was started `max_attempts` times does not go on.

    `shared` holds what other runs of the same group can use again.
    """

    progress: Progress = field(default_factory=Progress)
    device: Device = "auto"
    mode: str | None = None
    max_attempts: int | None = None
    shared: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def reuse(self, key: tuple[Any, ...], make: Callable[[], Value]) -> Value:
        """What was made for `key` before, or what `make` makes now."""
        if key not in self.shared:
            self.shared[key] = make()
        value: Value = self.shared[key]
        return value

    def announce_mode(self, config: Config) -> Mode:
        """Where to track, said once."""
        mode, reason = choose_mode(self.mode, config.tracking.mode)
        self.reuse(("mode",), lambda: self.progress.say(f"W&B {mode}: {reason}"))
        return mode


def with_settings(config: Config, **sections: dict[str, Any]) -> Config:
    """`config` with other values in some sections, as `model={"path": None}`."""
    changed = {name: getattr(config, name).model_copy(update=values) for name, values in sections.items()}
    return config.model_copy(update=changed)


@contextmanager
def timed(elapsed: dict[str, float], name: str) -> Iterator[None]:
    """Store the seconds spent inside as `elapsed[name]`."""
    start = time.perf_counter()
    yield
    elapsed[name] = round(time.perf_counter() - start, 3)
