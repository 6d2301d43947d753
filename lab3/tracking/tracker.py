"""What a tracker is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lab3.engine import SweepPoint
from lab3.rank import ChannelStats
from lab3.training import Epoch


@dataclass(frozen=True)
class ChannelTable:
    """Every channel with the picture of its mean feature map: `pictures[channel]` is uint8 `(H, W)`."""

    channels: Sequence[ChannelStats]
    pictures: Sequence[np.ndarray]


class Tracker(Protocol):
    """A live view of one run. Calls come in the order of this list; none of them raises."""

    wants_all_points: bool  # True: on resume, tell the points already in the journal again

    def log_epoch(self, epoch: Epoch) -> None:
        """Metrics of one epoch of training."""

    def log_model(self, path: Path, sha256: str) -> None:
        """The model as an artifact, by reference."""

    def log_channels(self, table: ChannelTable) -> None:
        """The channel table, with the next point."""

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Pictures by name, with the next point."""

    def log_point(self, point: SweepPoint) -> None:
        """One point of the sweep, and what was waiting for it."""

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        """End the view; returns a line that says where it is, if anywhere."""


class NullTracker:
    """Tracks nothing."""

    wants_all_points = False

    def log_epoch(self, epoch: Epoch) -> None:
        """Drop the epoch."""

    def log_model(self, path: Path, sha256: str) -> None:
        """Drop the model."""

    def log_channels(self, table: ChannelTable) -> None:
        """Drop the table."""

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Drop the pictures."""

    def log_point(self, point: SweepPoint) -> None:
        """Drop the point."""

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        """Say nothing."""
        return None


_: Tracker = NullTracker()
