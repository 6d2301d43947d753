"""What happens in a run, and who logs it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3.analysis.flips import LostImages
from lab3.config.sections import TrackingSection
from lab3.inputs.training import Epoch
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import ChannelStats


@dataclass(frozen=True)
class Asset:
    """Something a run was made from (`input`) or made (`output`).

    `files` are what it consists of, by the name they have in it; `reference` is the address of something that is not
    copied. `facts` tell it apart: the hash of its content among them. `artifact` is its full name,
    `entity/project/name:version`, if it came from W&B.
    """

    role: Literal["input", "output"]
    type: Literal["dataset", "model", "results"]
    name: str
    facts: Mapping[str, Any]
    files: Mapping[str, Path] = field(default_factory=dict)
    reference: str | None = None
    artifact: str | None = None


@dataclass(frozen=True)
class ChannelTable:
    """Every channel with the picture of its mean feature map and its scores by criterion; replaces an earlier table.

    `pictures[channel]` is uint8 `(H, W)`, a criterion's scores are `(C,)`. `accuracy_at_k`, once it is known, is the
    accuracy at the K at which a channel is pruned.
    """

    channels: Sequence[ChannelStats]
    pictures: Sequence[np.ndarray]
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)
    accuracy_at_k: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LostTable:
    """The images that are lost first, each with its picture, class and the K at which it is."""

    lost: LostImages
    class_names: Sequence[str]


@dataclass(frozen=True)
class MediaReady:
    """Pictures by name, at least one."""

    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class Alert:
    """Something that whoever watches the run should know."""

    title: str
    text: str


@dataclass(frozen=True)
class Finished:
    """The run has come to its end with this summary."""

    summary: Mapping[str, Any]


@dataclass(frozen=True)
class Compacted:
    """The run has a smaller model, of which this is the summary."""

    summary: Mapping[str, Any]


RowEvent = Epoch | SweepPoint | FrontierPoint | MediaReady  # each is a row of the run's history
Event = RowEvent | Asset | ChannelTable | LostTable | Alert | Finished | Compacted


@dataclass(frozen=True)
class RunSettings:
    """What a tracker shows of the run as a whole; W&B's files are kept below `folder`.

    Project, entity, group, notes and tags from W&B's own environment variables are stronger. The first `n_rows_there`
    rows are not logged again. `started_s`: Unix time.
    """

    folder: Path
    run_id: str
    tracking: TrackingSection = field(default_factory=TrackingSection)
    job_type: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    started_s: float | None = None
    is_resumed: bool = False
    n_rows_there: int = 0


class Tracker:
    """A view of one run; neither method raises. This one shows nothing, others show what their view can hold."""

    def log(self, step: int, event: Event) -> None:
        """Show an event. `step`: the number of its row, or of the row that comes next where it has none.

        A run that is resumed logs everything from the start: a tracker knows what is there already.
        """

    def close(self, exit_code: int) -> str | None:
        """End the view; returns a line that says where it is, if anywhere.

        `exit_code`: 0 for a finished run, 75 or 130 for one that a signal stopped, else 1.
        """
        return None
