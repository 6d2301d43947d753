"""What `report.json` says of a run: its schema is docs/report.schema.json."""

from dataclasses import dataclass
from typing import Any, Literal

from lab3.pruning.budget import FrontierPoint
from lab3.record.compaction import Compaction
from lab3.record.exported import Exported

Kind = Literal["sweep", "train", "compress", "group"]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A K of the sweep. `new_channels` are pruned here and were not at the K before; `back_channels` the other way.

    `band_low` and `band_high` hold the true accuracies of all K at once; `drop` is the accuracy lost against K = 0,
    with the score interval of this K alone; `p`: of a fall by at least the tolerance. None where predictions were
    inferred.
    """

    k: int
    n_pruned: int
    correct: int
    accuracy: float
    loss: float
    band_low: float | None
    band_high: float | None
    n_lost: int
    n_gained: int
    drop: float | None
    drop_low: float | None
    drop_high: float | None
    p: float | None
    class_correct: tuple[int, ...]
    new_channels: tuple[int, ...]
    back_channels: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Channel:
    """A channel of the layer. `rank` 0 is pruned first; `pruned_at_k` is None for one that no K of the sweep prunes."""

    channel: int
    importance: float | None
    rank: int
    pruned_at_k: int | None
    scores: dict[str, float | None]


@dataclass(frozen=True)
class LostImage:
    """An image that is right at K = 0 and wrong at `k`; `label` is its class's number."""

    image: int
    k: int
    label: int


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was pruned, and every K of it. `certified_k` 0 with a `reason`: nothing is certified."""

    layer: str
    n_channels: int
    criterion: str
    effect: str
    measured: str
    ranking: str
    scored_on: str
    is_exact: bool
    n_images: int
    class_names: tuple[str, ...]
    class_total: tuple[int, ...]
    tolerance: float
    confidence: float
    certified_k: int
    certified_n_pruned: int
    failed_k: int | None
    reason: str | None
    observed_k: int | None
    points: tuple[Point, ...]
    channels: tuple[Channel, ...]
    lost_first: tuple[LostImage, ...]


@dataclass(frozen=True)
class PlannedLayer:
    """A layer of a compressed network."""

    layer: str
    n_channels: int
    n_pruned: int
    n_kept: int


@dataclass(frozen=True, kw_only=True)
class Compression:
    """A whole network within a budget of accuracy: `plan` is what was written, `frontier` how plans grew."""

    budget: float
    cost: str
    cost_share: float
    confidence: float
    is_certified: bool
    reason: str
    n_choosing: int
    n_certifying: int
    accuracy_before: float
    plan: tuple[PlannedLayer, ...]
    frontier: tuple[FrontierPoint, ...]


@dataclass(frozen=True, kw_only=True)
class TrainedEpoch:
    """An epoch of the network's training; a loss that is no number is None."""

    epoch: int
    loss: float | None
    accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class Member:
    """A run of a group, `certified_k` and all of `sentence` with what holds for all of them at once."""

    label: str
    run_id: str
    layer: str
    criterion: str
    n_channels: int
    certified_k: int
    certified_share: float
    baseline: float | None
    sentence: str
    curve: tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class How:
    """What the run was made with. `command` repeats it; `self_check` is what it found before its first point."""

    command: str
    settings: dict[str, Any]
    versions: dict[str, str]
    device: str
    model: str | None
    model_sha256: str | None
    data: str
    data_sha256: str
    git_commit: str | None
    attempts: tuple[str, ...]
    elapsed_s: dict[str, float]
    self_check: dict[str, Any] | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that `report.html`, `report.json` and `report.md` say of a finished run or group."""

    schema_version: Literal[1] = 1
    kind: Kind
    run_id: str
    lab3: str
    created_at: str | None
    finished_at: str | None
    sentence: str | None
    sweep: Sweep | None = None
    compression: Compression | None = None
    compaction: Compaction | None = None
    exports: tuple[Exported, ...] = ()
    epochs: tuple[TrainedEpoch, ...] = ()
    members: tuple[Member, ...] = ()
    how: How | None = None
