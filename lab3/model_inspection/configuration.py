"""A model's configuration: JSON with limits, and every class in it on the list of those that may be loaded."""

import json
from collections.abc import Collection
from typing import Any

from lab3.errors import ModelError
from lab3.model_classes import problem_of_class
from lab3.model_inspection.limits import ModelLimits
from lab3.model_inspection.structure import check_structure


def parse_configuration(text: bytes, limits: ModelLimits, allow_classes: Collection[str]) -> dict[str, Any]:
    """The configuration in `text`. Raises `ModelError` if it is none, too large or too deep, or names a class that may
    not be loaded.
    """
    check_config_bytes(len(text), limits)
    try:
        configuration = json.loads(text, object_pairs_hook=_without_repetition)
    except RecursionError as error:
        raise ModelError(_too_deep(limits, "more")) from error
    except ValueError as error:
        raise ModelError(f"its configuration must be JSON ({error}); save it again with model.save()") from error
    if not isinstance(configuration, dict) or not isinstance(configuration.get("config"), dict | list):
        raise ModelError("its configuration must describe a model; save it again with model.save()")
    _check_items(configuration, limits, allow_classes)
    check_structure(configuration)
    return configuration


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: Keras also acts upon values that a later one of the same key hides."""
    items: dict[str, Any] = {}
    for key, value in pairs:
        if key in items:
            raise ModelError(f"a key must be given once, got {key[:60]!a} twice; save it again with model.save()")
        items[key] = value
    return items


def check_config_bytes(n_bytes: int, limits: ModelLimits) -> None:
    """Raise `ModelError` if a configuration of `n_bytes` is too large to be read."""
    if n_bytes > limits.config_bytes:
        raise ModelError(
            f"its configuration must have at most {limits.config_bytes:,} bytes, got {n_bytes:,}; "
            "if you trust it, raise model.max_config_bytes"
        )


def _check_items(configuration: dict[str, Any], limits: ModelLimits, allow_classes: Collection[str]) -> None:
    # Loss, optimizer and metrics of the whole model are not loaded and may be anybody's.
    stack: list[tuple[Any, int]] = [(value, 2) for key, value in configuration.items() if key != "compile_config"]
    if problem := problem_of_class(configuration, allow_classes):
        raise ModelError(problem)
    while stack:
        value, depth = stack.pop()
        if depth > limits.nesting:
            raise ModelError(_too_deep(limits, f"{depth} levels"))
        if isinstance(value, dict):
            if "class_name" in value and (problem := problem_of_class(value, allow_classes) or _problem_of(value)):
                raise ModelError(problem)
            stack.extend((item, depth + 1) for pair in value.items() for item in pair)
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)
        elif isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ModelError(f"texts must be Unicode, got {value[:60]!a}; save it again with model.save()")


def _problem_of(item: dict[str, Any]) -> str | None:
    """What is wrong with a layer's settings that Keras would notice only once it computes."""
    settings = item.get("config")
    if item["class_name"] != "Rescaling" or not isinstance(settings, dict):
        return None
    for key in ("scale", "offset"):
        numbers = settings.get(key, 0)
        each = numbers if isinstance(numbers, list) else [numbers]
        if not all(isinstance(number, int | float | dict | list) for number in each):
            return f"{key} of a Rescaling layer must be numbers, got {str(numbers)[:60]!r}; build the model again"
    return None


def _too_deep(limits: ModelLimits, got: str) -> str:
    return (
        f"its configuration must be nested at most {limits.nesting} levels deep, got {got}; "
        "if you trust it, raise model.max_nesting"
    )
