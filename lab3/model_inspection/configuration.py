"""A model's configuration: JSON with limits, and every class in it on the list of those that may be loaded."""

import json
from collections.abc import Collection
from typing import Any

from lab3.errors import ModelError
from lab3.model_classes import problem_of_class
from lab3.model_inspection.limits import ModelLimits


def parse_configuration(text: bytes, limits: ModelLimits, allow_classes: Collection[str]) -> dict[str, Any]:
    """The configuration in `text`. Raises `ModelError` if it is none, too large or too deep, or names a class that may
    not be loaded.
    """
    check_config_bytes(len(text), limits)
    try:
        configuration = json.loads(text)
    except RecursionError as error:
        raise ModelError(_too_deep(limits, "more")) from error
    except ValueError as error:
        raise ModelError(f"its configuration must be JSON ({error}); save it again with model.save()") from error
    if not isinstance(configuration, dict) or not isinstance(configuration.get("config"), dict | list):
        raise ModelError("its configuration must describe a model; save it again with model.save()")
    _check_items(configuration, limits, allow_classes)
    return configuration


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
            if "class_name" in value and (problem := problem_of_class(value, allow_classes)):
                raise ModelError(problem)
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, list):
            stack.extend((item, depth + 1) for item in value)


def _too_deep(limits: ModelLimits, got: str) -> str:
    return (
        f"its configuration must be nested at most {limits.nesting} levels deep, got {got}; "
        "if you trust it, raise model.max_nesting"
    )
