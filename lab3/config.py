"""Experiments: YAML files, `--set` overrides and defaults, resolved into one checked `Config`.

Order of strength: `--set a.b=value`, the experiment file, `wandb_config.yaml` (the tracking section only), defaults.
"""

import difflib
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lab3.errors import ConfigError
from lab3.schedule import check_schedule_form

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
PerChannel = float | list[float]


class Section(BaseModel):
    """A part of an experiment: unknown keys are errors, nothing is converted silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Images and how their pixels become the model's input: (pixel / scale - mean) / std."""

    test: str = "digits"  # digits | cifar10 | path of .npz, CIFAR-10 python archive or folder, image folder or .zip
    train: str | None = None  # the same forms; null: the training split of `test`
    color: Literal["rgb", "grayscale"] = "rgb"  # how image files are decoded
    scale: Annotated[float, Field(gt=0)] = 255.0
    mean: PerChannel = 0.0
    std: PerChannel = 1.0

    @field_validator("std")
    @classmethod
    def _positive_std(cls, std: PerChannel) -> PerChannel:
        if any(value <= 0 for value in (std if isinstance(std, list) else [std])):
            raise ValueError("must be greater than 0")
        return std


class ModelSection(Section):
    """The network: a file to load, or an architecture to train."""

    path: str | None = None  # .h5 of Keras 2 or 3, or .keras
    architecture: Literal["vgg16", "simplecnn", "digits_cnn"] | None = None  # trained where `path` is null


class AugmentSection(Section):
    """Random changes of training images; the numbers are those of Keras's layers, 0 switches one off."""

    horizontal_flip: bool = False
    rotation: Fraction = 0.0  # of a full turn, either way
    translation: Fraction = 0.0  # of the height and of the width
    zoom: Fraction = 0.0


class TrainSection(Section):
    """Training with Adam and cross-entropy."""

    epochs: Positive = 10
    batch_size: Positive = 64
    learning_rate: Annotated[float, Field(gt=0)] = 0.001
    validation_fraction: Fraction = 0.1  # of the training images, per class; 0: the last epoch is kept
    patience: Positive | None = None  # epochs without a better validation accuracy before stopping; null: never
    augment: AugmentSection = AugmentSection()
    format: Literal["h5", "keras"] = "h5"


class PruneSection(Section):
    """What is pruned, and in which order."""

    layer: str | int | None = None  # name or index; null: the last Conv2D on the way to the output
    measured: Literal["output", "before_activation"] = "output"  # what importance is the mean of
    average: Literal["images", "batches"] = "images"  # plain mean, or mean of the means of batches
    average_batch_size: Positive = 64  # with `average: batches`
    bias: Literal["zero", "keep"] = "zero"  # what happens to a pruned channel's bias
    ranking: Literal["iterative", "once"] = "iterative"  # rank again at every K, or once


class SweepSection(Section):
    """Which K, and how."""

    schedule: str | list[int] = "0:C:1"  # start:stop:step with C channels, or a list of K
    feature_maps_k: list[int] = []  # K whose mean feature maps are drawn too
    shortcut: Literal["none", "unchanged", "margins"] = (
        "margins"  # which images need not be run at every K; see engine.py
    )
    batch_size: Positive = 2000  # images on the device at a time; changes memory and speed, not the counts
    capture_batch_size: Positive = 250  # images per step of the capture pass
    cache_mb: Annotated[int, Field(ge=0)] = 2048  # features above this many MB go to a temporary file

    @field_validator("schedule")
    @classmethod
    def _schedule_form(cls, schedule: str | list[int]) -> str | list[int]:
        try:
            check_schedule_form(schedule)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("sweep.schedule ").split(", got")[0]) from error
        return schedule


class TrackingLogSection(Section):
    """What is logged besides the row per K."""

    channel_table: bool = True
    feature_maps: bool = True
    model: bool = True


class TrackingSection(Section):
    """Weights & Biases; `wandb_config.yaml` has the same keys at its top level."""

    project: str = "lab3"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    tags: list[str] = []
    group: str | None = None
    notes: str | None = None
    log: TrackingLogSection = TrackingLogSection()


class Config(Section):
    """One experiment, every setting resolved."""

    name: str = "sweep"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataSection = DataSection()
    model: ModelSection = ModelSection()
    train: TrainSection = TrainSection()
    prune: PruneSection = PruneSection()
    sweep: SweepSection = SweepSection()
    tracking: TrackingSection = TrackingSection()

    @field_validator("name")
    @classmethod
    def _name_is_a_file_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
            raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-', a letter or digit first")
        return name


def load_config(
    experiment: Path | None = None, overrides: Sequence[str] = (), tracking_file: Path | None = None
) -> Config:
    """The resolved experiment.

    `overrides` are `a.b=value` with the value in YAML; `tracking_file` holds the tracking section and may be absent.
    Raises `ConfigError` with every problem of a file at once: dotted key, rule, value received.
    """
    values: dict[str, Any] = {}
    if tracking_file is not None and tracking_file.exists():
        tracking = read_yaml(tracking_file)
        _check(TrackingSection, tracking, str(tracking_file))
        values["tracking"] = tracking
    if experiment is not None:
        values = _merge(values, read_yaml(experiment))
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return _check(Config, values, str(experiment or "the settings"))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` if there is none, or a key stands twice."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; experiments/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from error
    values = _parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, got {_shown(values)}")
    return values


def dump_config(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, leaves dates as text, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key_node.value!r} twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _parse_yaml(text: str, source: str) -> Any:
    try:
        # _Loader is a SafeLoader: no tag of it makes an object.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from error


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set must be key=value with a dotted key, got {override!r}; example: --set train.epochs=3")
    nested: Any = _parse_yaml(value, f"--set {override!r}")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return typing.cast(dict[str, Any], nested)


def _merge(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


SectionT = typing.TypeVar("SectionT", bound=Section)


def _check(section: type[SectionT], values: Mapping[str, Any], source: str) -> SectionT:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems: dict[str, str] = {}
        for item in error.errors():
            # A union reports each of its members; one line for the key is enough.
            key, problem = _describe(section, dict(item))
            problems[key] = f"{problems[key]} or {problem.removeprefix('must be ')}" if key in problems else problem
        # Of a list that fails as a whole because of one item, the item's line is enough.
        problems = {key: rule for key, rule in problems.items() if not any(k.startswith(f"{key}.") for k in problems)}
        received = {key: _shown(_lookup(values, key)) for key in problems}
        lines = [
            f"  {key}: {rule}" + ("" if rule.startswith("unknown key") else f", got {received[key]}")
            for key, rule in problems.items()
        ]
        count = "1 problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise ConfigError("\n".join([f"{source}: {count}", *lines])) from error


_RULES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "finite_number": "must be a finite number",
    "model_type": "must hold `key: value` lines",
    "model_attributes_type": "must hold `key: value` lines",
    "none_required": "must be null",
}

_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _describe(section: type[Section], item: dict[str, Any]) -> tuple[str, str]:
    loc = [part for part in item["loc"] if not _is_union_branch(part)]
    key = ".".join(str(part) for part in loc)
    if item["type"] == "extra_forbidden":
        known = _known_keys(section, [str(part) for part in loc[:-1]])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        parent = ".".join(str(part) for part in (*loc[:-1], ""))
        return key, "unknown key" + (
            f", did you mean {parent}{near[0]}?" if near else f"; known here: {', '.join(known)}"
        )
    context = item.get("ctx", {})
    if item["type"] in _LIMITS:
        words, limit = _LIMITS[item["type"]]
        return key, f"must be {words} {context[limit]}"
    if item["type"] == "literal_error":
        rule = f"must be one of {context['expected'].replace(' or ', ', ')}"
        near = difflib.get_close_matches(str(item["input"]), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return key, rule + (f" (did you mean {near[0]}?)" if near else "")
    if item["type"] == "value_error":
        return key, str(context["error"])
    return key, _RULES.get(item["type"], item["msg"])


def _is_union_branch(part: int | str) -> bool:
    return part in ("str", "int", "float") or (isinstance(part, str) and part.startswith(("list[", "constrained-")))


def _known_keys(section: type[Section], path: Sequence[str]) -> list[str]:
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        section = annotation
    return list(section.model_fields)


def _lookup(values: Any, key: str) -> Any:
    for part in key.split("."):
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and part.isdigit() and int(part) < len(values):
            values = values[int(part)]
        else:
            return values
    return values


def _shown(value: Any) -> str:
    if isinstance(value, types.NoneType):
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
