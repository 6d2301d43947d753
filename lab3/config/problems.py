"""Say everything that is wrong with an experiment at once: dotted key, rule, value received."""

import difflib
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from lab3.config.sections import Section
from lab3.errors import ConfigError

SectionT = TypeVar("SectionT", bound=Section)


def check_values(section: type[SectionT], values: Mapping[str, Any], source: str) -> SectionT:
    """`values` as a `section`. Raises `ConfigError` with all problems of `source`."""
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
            f"  {_printable(key)}: {rule}" + ("" if rule.startswith("unknown key") else f", got {received[key]}")
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
    "string_pattern_mismatch": "must be 64 digits 0-9 a-f, as `sha256sum` prints them",
}

_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def _describe(section: type[Section], item: dict[str, Any]) -> tuple[str, str]:
    # Of an unknown key every part is a key, even "str".
    is_unknown = item["type"] == "extra_forbidden"
    loc = [part for part in item["loc"] if is_unknown or not _is_union_branch(part)]
    key = ".".join(str(part) for part in loc)
    if is_unknown:
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
        elif isinstance(values, list) and part.isdecimal() and int(part) < len(values):
            values = values[int(part)]
        else:
            return values
    return values


def _printable(key: str) -> str:
    return key if key.isprintable() else repr(key)


def _shown(value: Any) -> str:
    if isinstance(value, types.NoneType):
        return "null"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
