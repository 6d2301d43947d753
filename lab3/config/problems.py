"""Say everything that is wrong with an experiment at once: dotted key, rule, value received."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from lab3.config.sections import Section
from lab3.errors import ConfigError, shown

SectionT = TypeVar("SectionT", bound=Section)


def check_values(
    section: type[SectionT], values: Mapping[str, Any], source: str, options: Mapping[str, str] | None = None
) -> SectionT:
    """`values` as a `section`. Raises `ConfigError` with all problems, those of `source` first.

    `options`: the command line's option ("" for KEY=VALUE) that gave a value, by dotted key; all else is of `source`.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems: dict[tuple[int | str, ...], str] = {}
        for item in error.errors(include_url=False):
            # A union reports each of its members; one line for the key is enough.
            loc, problem = _describe(section, dict(item))
            problems[loc] = f"{problems[loc]} or {problem.removeprefix('must be ')}" if loc in problems else problem
        # Of a list that fails as a whole because of one item, the item's line is enough.
        wholes = {loc[:depth] for loc in problems for depth in range(1, len(loc))}
        lines: dict[str, list[str]] = {source: [], "the command line": []}
        for loc, rule in problems.items():
            if loc not in wholes:
                option = _option_of(loc, options or {})
                got = "" if rule.startswith("unknown key") else f", got {shown(_lookup(values, loc))}"
                key = _key(loc) if _key(loc).isprintable() else repr(_key(loc))
                line = f"{option or ''} {key}: {rule}{got}"
                lines[source if option is None else "the command line"].append(f"  {line.strip()}")
        told: list[str] = []
        for origin, found in lines.items():
            told += [f"{origin}: {len(found)} problem{'s' * (len(found) != 1)}", *found] if found else []
        raise ConfigError("\n".join(told)) from error


def _option_of(loc: Sequence[int | str], options: Mapping[str, str]) -> str | None:
    """The option that gave the value at `loc`, or what the value is in; None if none did."""
    keys = (_key(loc[:depth]) for depth in range(len(loc), 0, -1))
    return next((options[key] for key in keys if key in options), None)


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


def _describe(section: type[Section], item: dict[str, Any]) -> tuple[tuple[int | str, ...], str]:
    # Of an unknown key every part is a key, even "str".
    is_unknown = item["type"] == "extra_forbidden"
    loc = tuple(part for part in item["loc"] if is_unknown or not _is_union_branch(part))
    if is_unknown:
        known = _known_keys(section, [str(part) for part in loc[:-1]])
        near = difflib.get_close_matches(str(loc[-1]), known, n=1)
        parent = _key((*loc[:-1], ""))
        return loc, "unknown key" + (
            f", did you mean {parent}{near[0]}?" if near else f"; known here: {', '.join(known)}"
        )
    context = item.get("ctx", {})
    if item["type"] in _LIMITS:
        words, limit = _LIMITS[item["type"]]
        return loc, f"must be {words} {context[limit]}"
    if item["type"] == "literal_error":
        rule = f"must be one of {context['expected'].replace(' or ', ', ')}"
        near = _near(str(item["input"]), re.findall(r"'([^']*)'", context["expected"]))
        return loc, rule + (f" (did you mean {' or '.join(near)}?)" if near else "")
    if item["type"] == "value_error":
        return loc, str(context["error"])
    return loc, _RULES.get(item["type"], item["msg"])


def _near(given: str, names: Sequence[str]) -> list[str]:
    """The name that looks like `given`, or else those that hold it or are held by it."""
    word = given.lower().replace("-", "_").replace(" ", "_")
    holding = [name for name in names if len(word) > 1 and word in name] or [name for name in names if name in word]
    return difflib.get_close_matches(word, names, n=1) or holding[:3]


def _is_union_branch(part: int | str) -> bool:
    return part in ("str", "int", "float") or (isinstance(part, str) and part.startswith(("list[", "constrained-")))


def _known_keys(section: type[Section], path: Sequence[str]) -> list[str]:
    for part in path:
        annotation = section.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        section = annotation
    return list(section.model_fields)


def _lookup(values: Any, loc: Sequence[int | str]) -> Any:
    for part in loc:
        if isinstance(values, Mapping):
            values = values.get(part)
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return values
    return values


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(str(part) for part in loc)
