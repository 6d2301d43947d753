"""Experiment files and overrides, resolved. YAML is read strictly: no objects, no key twice, dates are text."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from lab3.config.problems import check_values
from lab3.config.sections import Config, Grid, TrackingSection
from lab3.errors import ConfigError, shown

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
        tracking = _read_yaml(tracking_file)
        check_values(TrackingSection, tracking, str(tracking_file))
        values["tracking"] = tracking
    if experiment is not None:
        values = _merge(values, _read_yaml(experiment))
    options: dict[str, str] = {}
    for override in overrides:
        option, assignment = ("--set", override) if isinstance(override, str) else override
        values = _merge(values, _parse_override(option, assignment))
        options[assignment.partition("=")[0]] = option
    return check_values(Config, values, str(experiment or "the settings"), options)


def load_grid(path: Path) -> Grid:
    """The grid in a file. Raises `ConfigError` with every problem at once."""
    return check_values(Grid, _read_yaml(path), str(path))


def dump_config(config: Config | Grid) -> str:
    """`config` as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True, width=120)


def _parse_override(option: str, assignment: str) -> dict[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(
            f"{option or 'a setting'} must be key=value with a dotted key, got {assignment!r}; "
            f"example: {f'{option} train.epochs=3'.strip()}"
        )
    nested: Any = _parse_yaml(value, f"{option} {assignment!r}".strip())
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast(dict[str, Any], nested)


def _merge(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = _parse_yaml(path.read_text("utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; experiments/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"{path}: must hold `key: value` lines, got {str(values)[:60]}")
    return values or {}


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {shown(key.value)} twice", key.start_mark)
            seen.add(str(key.value))
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
        value = yaml.load(text, Loader=_Loader)
        # An integer of thousands of digits cannot be shown.
        repr(value)
        return value
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: not valid YAML: {error.problem}") from error
    except Exception as error:
        # PyYAML lets through what Python says of a number, a date or a tag that cannot be made, or of deep nesting.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{source}: not valid YAML: a value cannot be read ({reason})") from error
