"""`compact/proof.json`: where a compact model came from, what it was held against, what it costs."""

from dataclasses import asdict, dataclass
from typing import Any

from lab3.base.files import encode_json
from lab3.inputs.training import Epoch
from lab3.pruning.compact.cost import Speed
from lab3.pruning.compact.proof import Proof
from lab3.record.manifest import Source, read_signed, signed
from lab3.record.rundir import RunDir
from lab3.vocabulary import Effect

PROOF_JSON = "proof.json"


@dataclass(frozen=True)
class Measures:
    """A model as it is written and as it runs: channels of the layers in question, costs, bytes of its file, speeds."""

    n_channels: int
    parameters: int
    multiply_adds: int
    peak_activation_bytes: int
    file_bytes: int
    speeds: tuple[Speed, ...]


@dataclass(frozen=True)
class PrunedLayer:
    """A layer whose `pruned_channels` are out, but for `constant_channels`, which stay to hold constants."""

    name: str
    n_channels: int
    pruned_channels: tuple[int, ...]
    constant_channels: tuple[int, ...] = ()

    @property
    def n_kept(self) -> int:
        """Channels of the smaller layer."""
        return self.n_channels - len(self.pruned_channels) + len(self.constant_channels)


@dataclass(frozen=True)
class Trial:
    """Channels pruned, fine-tuned to reach an accuracy, and the accuracy that they reached on validation images."""

    k: int
    val_accuracy: float


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """The compact model trained on, `finetuned.keras` and `.h5`, against the unpruned network on the test images.

    `n_lost` and `n_gained`: images right before pruning and wrong now, and the other way round; `p`: of Tango's test
    that accuracy falls by `tolerance` or more, passed at `level` or below. `reason`: why no count would pass.
    `least_tolerance`: the smallest in thousandths that would, 1 if none. `trials`: of `--target-accuracy`.
    """

    epochs: tuple[Epoch, ...]
    kept_epoch: int
    learning_rate: float
    n_train: int
    accuracy_unpruned: float
    accuracy_pruned: float
    accuracy: float
    n_lost: int
    n_gained: int
    tolerance: float
    confidence: float
    level: float
    p: float
    is_certified: bool
    reason: str | None
    least_tolerance: float
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """The content of `proof.json`.

    `k`: of the sweep, None where a whole network was compressed. `chosen_by`: what K is, `certified`, `observed` or
    `k` where it was given; `budget` or `target_accuracy` for a whole network. `model`: SHA-256 of the file with all
    channels. `rounding`: what `--round-to` costs, in words. `files`: SHA-256 by name in the folder.
    """

    run_id: str
    created_at: str
    lab3: str
    versions: dict[str, str]
    device: str
    model: str
    data: Source
    effect: Effect
    layers: tuple[PrunedLayer, ...]
    k: int | None
    chosen_by: str
    rounding: str | None
    proof: Proof
    before: Measures
    after: Measures
    files: dict[str, str]
    finetuned: Finetuned | None = None

    def summary(self) -> dict[str, Any]:
        """What it comes to: sizes and times, with their shares of the unpruned model, and the proof."""
        before, after = _measures(self.before), _measures(self.after)
        shares = {f"{name}_share": after[name] / value for name, value in before.items() if value}
        found: dict[str, Any] = {"k": self.k, **after, **shares}
        found |= {name: getattr(self.proof, name) for name in ("n_equal", "n_tied", "largest_difference", "correct")}
        if self.finetuned is not None:
            names = ("accuracy", "is_certified", "least_tolerance", "n_lost", "n_gained", "kept_epoch")
            found |= {f"finetuned_{name}": getattr(self.finetuned, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def encode(self) -> bytes:
        """The file, which ends with the checksum of all else in it."""
        return encode_json(signed(asdict(self)))


def _measures(measures: Measures) -> dict[str, float]:
    sizes = {name: value for name, value in vars(measures).items() if name != "speeds"}
    return sizes | {f"ms_batch_{speed.batch_size}": speed.seconds * 1000 for speed in measures.speeds}


def read_compaction(run: RunDir) -> Compaction:
    """What `proof.json` of the run's compact model says. Raises `RunStateError` if it is missing or damaged."""
    return read_signed(Compaction, run.compact / PROOF_JSON, f"make it again with `lab3 compact {run.path}`")
