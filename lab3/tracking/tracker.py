"""What a tracker is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3.engine import SweepPoint
from lab3.rank import ChannelStats
from lab3.training import Epoch


@dataclass(frozen=True)
class ChannelTable:
    """Every channel with the picture of its mean feature map and its scores by criterion.

    `pictures[channel]` is uint8 `(H, W)`, a criterion's scores are `(C,)`. `accuracy_at_k`, once it is known, is the
    accuracy at the K at which a channel goes.
    """

    channels: Sequence[ChannelStats]
    pictures: Sequence[np.ndarray]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    accuracy_at_k: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Asset:
    """Something a run was made from (`input`) or made (`output`).

    `files` are what it consists of, by the name they have in it; `reference` is the address of something that is not
    copied. `facts` tell it apart: the hash of its content among them. `artifact` is its whole name,
    `entity/project/name:version`, if it came from W&B.
    """

    role: Literal["input", "output"]
    type: Literal["dataset", "model", "results"]
    name: str
    facts: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    reference: str | None = None
    aliases: Sequence[str] = ("latest",)
    artifact: str | None = None


class Tracker:
    """A live view of one run; none of the calls raises. This one shows nothing, others override what they show.

    Whoever resumes a run tells its tracker everything from the start, in the same order: it knows what is there.
    """

    def log_epoch(self, epoch: Epoch) -> None:
        """Metrics of one epoch of training."""

    def log_asset(self, asset: Asset) -> None:
        """Data, a model or results."""

    def log_channels(self, table: ChannelTable) -> None:
        """The channel table, in place of the one that was logged before."""

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Pictures by name, with the next media."""

    def log_media(self) -> None:
        """Pictures that were told since the last time, if any, in a row of their own."""

    def log_point(self, point: SweepPoint) -> None:
        """One point of the sweep."""

    def alert(self, title: str, text: str) -> None:
        """Tell whoever watches the run."""

    def finish(self, summary: Mapping[str, Any], exit_code: int, *, is_preempted: bool = False) -> str | None:
        """End the view; returns a line that says where it is, if anywhere."""
        return None
