"""Read YAML strictly: no objects, no key twice, 1e-3 a number and a date text."""

import re
from pathlib import Path
from typing import Any

import yaml

from lab3.errors import ConfigError, shown

_MAX_INT = 2**63


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` if there is none, or a key stands twice."""
    try:
        if path.exists() and not path.is_file():
            # Opening a pipe can wait for ever.
            raise ConfigError(f"{path}: must be a file, got a folder, pipe or device; give the path of a YAML file")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; experiments/ holds examples") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file ({error})") from error
    values = parse_yaml(text, str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: must hold `key: value` lines, got {str(values)[:60]}")
    return values


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-3 as a number, leaves dates as text and refuses keys given twice or that are no text."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        value = super().construct_object(node, deep)
        if isinstance(value, int) and abs(value) > _MAX_INT:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number must lie within -2**63 and 2**63, got {shown(node.value)}", node.start_mark
            )
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, got {shown(key_node.value)}; correct it, or put it in quotes",
                    key_node.start_mark,
                )  # fmt: skip
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {shown(key_node.value)} twice", key_node.start_mark
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


def parse_yaml(text: str, source: str) -> Any:
    """The value in a YAML text. Raises `ConfigError` with the place of a mistake in `source`."""
    try:
        # _Loader is a SafeLoader: no tag of it makes an object.
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{source}{place}: not valid YAML: {error.problem}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deep") from error
    except Exception as error:
        # PyYAML lets through what Python says of a number, a date or a tag that cannot be made.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"{source}: not valid YAML: a value cannot be read ({reason})") from error
