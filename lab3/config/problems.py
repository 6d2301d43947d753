"""Everything that is wrong with an experiment, at once: dotted key, rule, value received."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from lab3.config.sections import Section
from lab3.errors import ConfigError, shown

SectionT = TypeVar("SectionT", bound=Section)
Location = tuple[int | str, ...]

# Rules for the common mistakes; for the others, Pydantic's words are good enough.
_RULES = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must hold `key: value` lines",
    "string_pattern_mismatch": "must be 64 digits 0-9 a-f, as `sha256sum` prints them",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "value_error": "{error}",
}
_RENAMED = {"safe_drop": "tolerance"}


def check_values(
    section: type[SectionT], values: Mapping[str, Any], source: str, options: Mapping[str, str] | None = None
) -> SectionT:
    """`values` as a `section`. Raises `ConfigError` with all problems, those of `source` first.

    `options`: the command line's option ("" for KEY=VALUE) that gave a value, by dotted key; all else is of `source`.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems: dict[Location, str] = {}
        received: dict[Location, str] = {}
        for item in error.errors(include_url=False):
            loc, rule = _describe(section, dict(item))
            # A union reports each of its members; one line for the key is enough.
            problems[loc] = f"{problems[loc]} or {rule.removeprefix('must be ')}" if loc in problems else rule
            received[loc] = "" if rule.startswith("unknown key") else f", got {shown(item['input'])}"
        # Of a list that fails as a whole because of one item, the item's line is enough.
        containers = {loc[:depth] for loc in problems for depth in range(1, len(loc))}
        lines: dict[str, list[str]] = {source: [], "the command line": []}
        for loc in [loc for loc in problems if loc not in containers]:
            option = _option_of(loc, options or {})
            key = _key(loc) if _key(loc).isprintable() else repr(_key(loc))
            line = f"{option or ''} {key}: {problems[loc]}{received[loc]}"
            lines[source if option is None else "the command line"].append(f"  {line.strip()}")
        blocks = [
            "\n".join([f"{origin}: {len(found)} problem{'s' * (len(found) != 1)}", *found])
            for origin, found in lines.items()
            if found
        ]
        raise ConfigError("\n".join(blocks)) from error


def _option_of(loc: Location, options: Mapping[str, str]) -> str | None:
    """The option that gave the value at `loc`, or what the value is in; None if none did."""
    keys = (_key(loc[:depth]) for depth in range(len(loc), 0, -1))
    return next((options[key] for key in keys if key in options), None)


def _describe(section: Any, item: dict[str, Any]) -> tuple[Location, str]:
    """Where a problem is, and the rule."""
    if item["type"] == "extra_forbidden":
        *parents, key = map(str, item["loc"])
        for part in parents:
            section = section.model_fields[part].annotation
        near = [_RENAMED[key]] if key in _RENAMED else difflib.get_close_matches(key, section.model_fields, n=1)
        hint = (
            f", did you mean {_key((*parents, near[0]))}?"
            if near
            else f"; known here: {', '.join(section.model_fields)}"
        )
        return item["loc"], "unknown key" + hint
    loc = tuple(part for part in item["loc"] if not _is_union_branch(part))
    context = item.get("ctx", {})
    if item["type"] == "literal_error":
        near = _near(str(item["input"]), re.findall(r"'([^']*)'", context["expected"]))
        hint = f" (did you mean {' or '.join(near)}?)" if near else ""
        return loc, f"must be one of {context['expected'].replace(' or ', ', ')}{hint}"
    if item["type"] in _RULES:
        return loc, _RULES[item["type"]].format(**context)
    return loc, item["msg"].replace("Input should be", "must be")


def _near(given: str, names: Sequence[str]) -> list[str]:
    """The name that looks like `given`, or else those that hold it or are held by it."""
    word = given.lower().replace("-", "_").replace(" ", "_")
    holding = [name for name in names if len(word) > 1 and word in name] or [name for name in names if name in word]
    return difflib.get_close_matches(word, names, n=1) or holding[:3]


def _is_union_branch(part: int | str) -> bool:
    return part in ("str", "int", "float") or (isinstance(part, str) and part.startswith(("list[", "constrained-")))


def _key(loc: Sequence[int | str]) -> str:
    return ".".join(map(str, loc))
