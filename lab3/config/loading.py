"""Experiment files and overrides, resolved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from lab3.config.problems import check_values
from lab3.config.sections import Config, TrackingSection
from lab3.config.yaml_files import parse_yaml, read_yaml
from lab3.errors import ConfigError

Override = str | tuple[str, str]


def load_config(
    experiment: Path | None = None, overrides: Sequence[Override] = (), tracking_file: Path | None = None
) -> Config:
    """The resolved experiment.

    `overrides` are `a.b=value` with the value in YAML, alone or behind the command line's option it comes from;
    `tracking_file` holds the tracking section and may be absent. Raises `ConfigError` with every problem at once, under
    the file or behind the option it comes from: dotted key, rule, value received.
    """
    values: dict[str, Any] = {}
    if tracking_file is not None and tracking_file.exists():
        tracking = read_yaml(tracking_file)
        check_values(TrackingSection, tracking, str(tracking_file))
        values["tracking"] = tracking
    if experiment is not None:
        values = _merge(values, read_yaml(experiment))
    options: dict[str, str] = {}
    for override in overrides:
        option, assignment = ("--set", override) if isinstance(override, str) else override
        values = _merge(values, _parse_override(option, assignment))
        options[assignment.partition("=")[0]] = option
    return check_values(Config, values, str(experiment or "the settings"), options)


def dump_config(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def _parse_override(option: str, assignment: str) -> dict[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"{option or 'a setting'} must be key=value with a dotted key, got {assignment!r}; "
            f"example: {f'{option} train.epochs=3'.strip()}"
        )
    nested: Any = parse_yaml(value, f"{option} {assignment!r}".strip())
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _merge(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
