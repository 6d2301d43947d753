"""A model's configuration: JSON in the words of Keras 3, and every class in it one that may be loaded."""

import json
from collections.abc import Collection
from typing import Any

from lab3.errors import ModelError
from lab3.model_classes import problem_of_class
from lab3.model_inspection.keras2 import in_words_of_keras_3

_SAVE_AGAIN = "save it again with model.save()"


def parse_configuration(text: bytes, is_keras_2: bool, allow_classes: Collection[str]) -> dict[str, Any]:
    """The configuration in `text`, in the words of Keras 3, without what inference has no use for.

    Raises `ModelError` if it is none, names a class that may not be loaded, or means something else in Keras 3.
    """
    try:
        configuration = json.loads(text, object_pairs_hook=_without_repetition)
        if not isinstance(configuration, dict) or not isinstance(configuration.get("config"), dict | list):
            raise ModelError(f"its configuration must describe a model; {_SAVE_AGAIN}")
        converted: dict[str, Any] = in_words_of_keras_3(configuration, is_keras_2)
        _check_items(converted, allow_classes)
    except RecursionError as error:
        raise ModelError(f"its configuration must be nested less deeply, got too many levels; {_SAVE_AGAIN}") from error
    except ValueError as error:
        raise ModelError(f"its configuration must be JSON ({error}); {_SAVE_AGAIN}") from error
    return converted


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose keys differ: Keras also acts upon values that a later one of the same key hides."""
    items: dict[str, Any] = {}
    for key, value in pairs:
        if key in items:
            raise ModelError(f"a key must be given once, got {key[:60]!a} twice; {_SAVE_AGAIN}")
        items[key] = value
    return items


def _check_items(configuration: dict[str, Any], allow_classes: Collection[str]) -> None:
    if problem := problem_of_class(configuration, allow_classes):
        raise ModelError(problem)
    stack: list[Any] = [configuration]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value and (problem := problem_of_class(value, allow_classes) or _problem_of(value)):
                raise ModelError(problem)
            stack.extend(item for pair in value.items() for item in pair)
        elif isinstance(value, list | tuple):
            stack.extend(value)
        elif isinstance(value, str) and not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ModelError(f"texts must be Unicode, got {value[:60]!a}; {_SAVE_AGAIN}")


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
