"""Read YAML strictly: no objects, no key twice, 1e-3 a number and a date text."""

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from lab3.errors import ConfigError

_MOST_BYTES = 256 * 2**10
_MOST_DIGITS = 100
_MOST_NUMBER = 2**63


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises `ConfigError` if there is none, a key stands twice, or it is too large."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path}: must be a file, got a folder, pipe or device; give the path of a YAML file")
        if status.st_size > _MOST_BYTES:
            raise ConfigError(f"{path}: must have at most {_MOST_BYTES:,} bytes, got {status.st_size:,}; shorten it")
        with path.open("rb") as file:
            # Files of the system have no size, and reading one can wait for ever.
            text = file.read(status.st_size).decode("utf-8")
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
    """SafeLoader that reads 1e-3 as a number and leaves dates as text.

    It refuses aliases, a key given twice or that is not text, and numbers of no use that take long to write out.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        # A few lines of aliases of aliases stand for more values than fit in memory.
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        kind = node.tag.replace("tag:yaml.org,2002:", "!!")
        is_long = kind in ("!!int", "!!float") and len(node.value) > _MOST_DIGITS
        try:
            value = None if is_long else super().construct_object(node, deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise yaml.constructor.ConstructorError(
                None, None, f"a value must be of its type, got {_shown(node.value)} as {kind}; correct it",
                node.start_mark,
            ) from error  # fmt: skip
        if is_long or (isinstance(value, int) and abs(value) > _MOST_NUMBER):
            raise yaml.constructor.ConstructorError(
                None, None, f"a number must lie within -2**63 and 2**63 and have at most {_MOST_DIGITS} digits, got "
                f"{_shown(node.value)}; correct it", node.start_mark,
            )  # fmt: skip
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be plain text", key_node.start_mark)
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    None, None, f"a key must be text, got {_shown(key_node.value)}; correct it, or put it in quotes",
                    key_node.start_mark,
                )  # fmt: skip
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {_shown(key_node.value)} twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


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
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: not valid YAML: nested too deep") from error
    except Exception as error:
        # PyYAML lets through what Python says of a number, a date or a tag that cannot be made.
        raise ConfigError(f"{source}: not valid YAML: {str(error)[:200] or type(error).__name__}") from error
