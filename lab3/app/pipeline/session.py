"""How a command works: what is the same for a run and for all runs of a group."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lab3.base.progress import Progress
from lab3.config import Config
from lab3.inputs.data import Dataset
from lab3.pruning.capture import Capture
from lab3.pruning.engine import TallyBlocks
from lab3.pruning.rank import PruneStep
from lab3.tracking import Mode, choose_mode
from lab3.vocabulary import Device


class ShareOut(Protocol):
    """What computes blocks of a run's sweep elsewhere; `model_path` is that of its network."""

    def __call__(
        self,
        config: Config,
        model_path: str,
        features: Sequence[np.ndarray],
        labels_n: np.ndarray,
        steps: Sequence[PruneStep],
    ) -> TallyBlocks: ...


@dataclass
class Shared:
    """What the runs of a group have in common: loaded, computed and said once.

    `artifacts`: names of W&B artifacts by the path they were fetched to. `layers`: indices of those that the group
    prunes. `captures`: by layer, by whether it is of the test images, and by whether it has features. `share_out`: has
    other processes compute a sweep's blocks of K.
    """

    artifacts: dict[str, str] = field(default_factory=dict)
    layers: tuple[int, ...] = ()
    models: dict[str, Any] = field(default_factory=dict)
    datasets: dict[tuple[str, str], Dataset] = field(default_factory=dict)
    captures: dict[tuple[int, bool, bool], Capture] = field(default_factory=dict)
    share_out: ShareOut | None = None
    is_mode_said: bool = False


@dataclass(frozen=True)
class Session:
    """`mode`: the choice on the command line, if any. A run that was started `max_attempts` times does not go on.

    `hourly_price`: what the machine costs, in whichever currency.
    """

    progress: Progress = field(default_factory=Progress)
    device: Device = "auto"
    mode: str | None = None
    max_attempts: int | None = None
    hourly_price: float | None = None
    shared: Shared = field(default_factory=Shared)

    def announce_mode(self, config: Config) -> Mode:
        """Where to track, said once."""
        mode, reason = choose_mode(self.mode, config.tracking.mode)
        if not self.shared.is_mode_said:
            self.progress.say(f"W&B {mode}: {reason}")
        self.shared.is_mode_said = True
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
