"""Every setting with its type, default and meaning."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from lab3.errors import ConfigError
from lab3.pruning.schedule import check_schedule_form
from lab3.vocabulary import (
    Architecture,
    Average,
    Bias,
    Color,
    Cost,
    Criterion,
    Effect,
    Measured,
    Ranking,
    Shortcut,
    Until,
)

Positive = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Confidence = Annotated[float, Field(ge=0.5, lt=1.0)]
PositiveFloat = Annotated[float, Field(gt=0)]
PerChannel = float | list[float]
PositivePerChannel = PositiveFloat | list[PositiveFloat]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of an experiment: unknown keys are errors, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Images and how their pixels become the model's input: (pixel / scale - mean) / std."""

    test: str = "digits"  # digits, cifar10, a path of .npz, CIFAR-10 archive, image folder or .zip, or wandb://...
    train: str | None = None  # the same forms; null: the training split of `test`
    test_sha256: Sha256 | None = None  # of the file with the test images, or of the arrays where it is not one file
    train_sha256: Sha256 | None = None  # the same of the training images
    color: Color = "rgb"  # how image files are decoded
    scale: PositiveFloat = 255.0  # what pixels are divided by first
    mean: PerChannel = 0.0  # subtracted then; one number, or one per color channel
    std: PositivePerChannel = 1.0  # what is divided by last; one number, or one per color channel


class ModelSection(Section):
    """The network: a file to load, or an architecture to train."""

    path: str | None = None  # .h5 of Keras 2 or 3, or .keras, or wandb://entity/project/name:alias
    sha256: Sha256 | None = None  # what the file at `path` must have; any other is refused
    allow_classes: list[str] = []  # names of registered classes that the file may use besides Keras's own
    output: str | int | None = None  # name or index of the output with class scores, where there are several
    architecture: Architecture | None = None  # trained where `path` is null

    @field_validator("sha256")
    @classmethod
    def _hash_of_a_file(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is not None and info.data.get("path") is None:
            raise ValueError("must be null where model.path is null")
        return sha256


class AugmentSection(Section):
    """Random changes of training images; the numbers are those of Keras's layers, 0 switches one off."""

    horizontal_flip: bool = False  # mirror half of the images
    rotation: Fraction = 0.0  # of a full turn, either way
    translation: Fraction = 0.0  # of the height and of the width
    zoom: Fraction = 0.0  # in or out, of the size


class TrainSection(Section):
    """Training with Adam and cross-entropy."""

    epochs: Positive = 10  # passes over the training images; fewer with `patience`
    batch_size: Positive = 64  # images per training step
    learning_rate: PositiveFloat = 0.001  # of Adam
    validation_fraction: Fraction = 0.1  # of the training images, per class; 0: the last epoch is kept
    patience: Positive | None = None  # epochs without a better validation accuracy before stopping; null: never
    augment: AugmentSection = AugmentSection()
    format: Literal["h5", "keras"] = "h5"  # of the saved network


class PruneSection(Section):
    """What is pruned, and in which order."""

    layer: str | int | None = None  # name or index; null: the last Conv2D on the way to the output
    criterion: Criterion = "mean_activation"  # what makes a channel important
    score_on: Literal["auto", "train", "test"] = (
        "auto"  # images to score on; auto: training images where there are some
    )
    effect: Effect = "remove"  # remove: as if sliced out; zero_weights: as in the reports
    measured: Measured = "activation"  # what importance is measured on
    average: Average = "images"  # the mean of images, or of the means of batches
    average_batch_size: Positive = 64  # images per batch with `average: batches`
    bias: Bias = "zero"  # of a pruned channel; keep: with `effect: zero_weights` alone
    ranking: Ranking = "once"  # rank once, or again at every K


class SweepSection(Section):
    """Which K, and how."""

    schedule: str | list[int] = "0:C:1"  # start:stop:step with C channels, or a list of K
    feature_maps_k: list[int] = []  # K whose mean feature maps and confusion matrix are drawn too
    # Which images need not be run at every K: none, those whose input is unchanged, or those whose prediction is
    # inferred, which is not exact.
    shortcut: Shortcut = "unchanged"
    tolerance: Fraction = 0.01  # how much accuracy may fall, as a share of images, for a K to be certified
    confidence: Confidence = 0.95  # of the certificate: of all test sets, how many do not certify too large a K
    n_compared: Positive = 1  # sweeps of these images among which one is chosen; several layers or criteria set it
    until: Until = "all"  # every K of the schedule, or up to the first that cannot be certified
    save_predictions: bool = False  # predictions.npz: the predicted class of every image at every K
    batch_size: Positive = 2000  # images on the device at a time; changes memory and speed, not the counts
    capture_batch_size: Positive = 250  # images per step of the capture pass
    cache_mb: Annotated[int, Field(ge=0)] = 64  # features above this many MB lie in a temporary file

    @field_validator("schedule")
    @classmethod
    def _schedule_form(cls, schedule: str | list[int]) -> str | list[int]:
        try:
            check_schedule_form(schedule)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("sweep.schedule ").split(", got")[0]) from error
        return schedule


class CompressSection(Section):
    """Of `lab3 compress`: channels of all layers for a budget of accuracy."""

    budget: Annotated[float, Field(gt=0, lt=1)] = 0.01  # the most accuracy that may be lost, certified
    cost: Cost = "flops"  # what is to become less
    n_images: Positive = 2000  # images that choose, drawn from the training images, or from half of the test images
    finetune: Annotated[int, Field(ge=0)] = 0  # epochs of training of the smaller network; 0: none
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None  # on validation images; null: no target


class TrackingLogSection(Section):
    """What is logged besides the row per K."""

    channel_table: bool = True  # importance, rank and mean feature map of every channel, once
    feature_maps: bool = True  # the grids of mean feature maps
    model: bool = True  # the model file as an artifact, by reference and hash (not copied)


class TrackingSection(Section):
    """Weights & Biases; `wandb_config.yaml` has the same keys at its top level."""

    project: str = "lab3"  # W&B project
    entity: str | None = None  # W&B user or team; null: the key's default
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"  # auto: online with a key, else offline
    tags: list[str] = []  # the run's tags in W&B
    group: str | None = None  # the run's group in W&B; null: none, or one of their own for several layers or criteria
    notes: str | None = None  # the run's notes in W&B
    start_timeout_s: PositiveFloat = 30.0  # without an answer by then, the run goes on offline
    finish_timeout_s: PositiveFloat = 60.0  # what is not sent by then is left to `lab3 publish`
    alert_below: Annotated[float, Field(ge=0, le=1)] | None = None  # a W&B alert where the baseline accuracy is lower
    log: TrackingLogSection = TrackingLogSection()


class Grid(Section):
    """Many sweeps of one experiment: every combination of the values that vary."""

    experiment: str  # path of an experiment, or the name of one that lab3 ships
    set: dict[str, Any] = {}  # settings of all sweeps, by their dotted key
    vary: dict[
        str, list[Any] | Literal["all"]
    ]  # values of a setting, by its dotted key; `prune.layer: all`: each layer
    cpus: PositiveFloat = 1.0  # cores of a sweep
    gpus: Annotated[float, Field(ge=0)] = 0.0  # GPUs of a sweep; 0.25: four share one
    shards: Positive = 1  # blocks of K of one sweep that are computed at once, each with so many cores and GPUs
    tries: Positive = 3  # how often a sweep is started that fails for want of a machine, a lock or room

    @field_validator("vary")
    @classmethod
    def _varies(cls, vary: dict[str, list[Any] | Literal["all"]]) -> dict[str, list[Any] | Literal["all"]]:
        for key, values in vary.items():
            if not values or (values == "all" and key != "prune.layer"):
                raise ValueError(f"{key} must have a list of values, and one at least")
            if values != "all" and len({repr(value) for value in values}) < len(values):
                raise ValueError(f"{key} must have each value once")
        if not vary:
            raise ValueError("must name a setting at least")
        return vary


class Config(Section):
    """One experiment, every setting resolved."""

    name: str = "sweep"  # the first part of a run's id
    seed: Seed = 0  # of training, of the random criterion and of samples of images
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    prune: PruneSection = PruneSection()
    sweep: SweepSection = SweepSection()
    compress: CompressSection = CompressSection()
    tracking: TrackingSection = TrackingSection()

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-', a letter or digit first")
        return name
