"""Where a run's files become typed values: what is wrong with one, and how what it says differs from now."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lab3.errors import RunStateError, one_line, shown

Value = TypeVar("Value")
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


@contextmanager
def reading(path: Path, remedy: str = "start a new run instead") -> Iterator[None]:
    """Turn whatever fails in reading `path` into a `RunStateError` that names it, says what is wrong and what to do."""
    try:
        yield
    except RunStateError:
        raise
    except Exception as error:
        # Readers of CSV, JSON, zip and NumPy files let errors of a dozen types through.
        raise RunStateError(f"{path} cannot be read ({_problem(error)}); {remedy}") from error


def parse(kind: type[Value], values: Sequence[object], *, is_strict: bool = True) -> list[Value]:
    """Each of `values`, which JSON gave, as a `kind`; call it inside `reading`.

    Nothing is converted and no member is unknown, unless `is_strict` is False: then text may be a number, as "nan" is.
    """
    adapter = _adapter_of(kind, is_strict)  # type: ignore[arg-type]  # of a generic function's type
    found: list[Value] = adapter.validate_json(json.dumps(values))
    return found


@cache
def _adapter_of(kind: Any, is_strict: bool) -> TypeAdapter[Any]:
    """Made once: that takes longer than to read a run's manifest."""
    return TypeAdapter(list[kind], config=_STRICT if is_strict else None)


def _problem(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return one_line(error)
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"][1:]))
    got = "" if first["type"] == "missing" else f", got {shown(first['input'])}"
    return f"{where}: {first['msg']}{got}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of a record is another value now, as `train.seed was 0, now 1`."""
    before, after = flatten(then), flatten(now)
    return [
        f"{name} was {before.get(name)!r}, now {after.get(name)!r}"
        for name in {**after, **before}
        if before.get(name) != after.get(name)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value})
    return flat


def schema_of(kind: type[Any]) -> dict[str, Any]:
    """The JSON schema of a dataclass as it is written, with no other members."""
    schema = TypeAdapter(kind).json_schema(mode="serialization")
    for each in (schema, *schema.get("$defs", {}).values()):
        if "properties" in each:
            each["additionalProperties"] = False
    return schema
