"""Experiment files and overrides, resolved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from lab3.config.problems import check_values
from lab3.config.sections import Config, TrackingSection
from lab3.config.yaml_files import parse_yaml, read_yaml
from lab3.errors import ConfigError


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
        check_values(TrackingSection, tracking, str(tracking_file))
        values["tracking"] = tracking
    if experiment is not None:
        values = _merge(values, read_yaml(experiment))
    for override in overrides:
        values = _merge(values, _parse_override(override))
    return check_values(Config, values, str(experiment or "the settings"))


def dump_config(config: Config) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def _parse_override(override: str) -> dict[str, Any]:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set must be key=value with a dotted key, got {override!r}; example: --set train.epochs=3")
    nested: Any = parse_yaml(value, f"--set {override!r}")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _merge(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
