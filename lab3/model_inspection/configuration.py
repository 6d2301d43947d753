"""A model's configuration: JSON in the words of Keras 3, and every class in it one that may be loaded."""

import json
from collections.abc import Collection
from typing import Any

from lab3.errors import ModelError
from lab3.foreign import one_line
from lab3.model_classes import problem_of_class
from lab3.model_inspection.keras2 import in_words_of_keras_3

_SAVE_AGAIN = "save it again with model.save()"


def parse_configuration(text: bytes, is_keras_2: bool, allow_classes: Collection[str]) -> dict[str, Any]:
    """The configuration in `text`, in the words of Keras 3, without what inference has no use for.

    Raises `ModelError` if it is none, names a class that may not be loaded, or means something else in Keras 3.
    """
    try:
        configuration = json.loads(text)
        if not isinstance(configuration, dict) or not isinstance(configuration.get("config"), dict | list):
            raise ModelError(f"its configuration must describe a model; {_SAVE_AGAIN}")
        # What is checked is what Keras is given.
        converted: dict[str, Any] = in_words_of_keras_3(configuration, is_keras_2)
    except RecursionError as error:
        raise ModelError(f"its configuration must be nested less deeply; {_SAVE_AGAIN}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(f"its configuration must describe a model ({one_line(error)}); {_SAVE_AGAIN}") from error
    except ValueError as error:
        raise ModelError(f"its configuration must be JSON ({error}); copy or download the file again") from error
    if problem := problem_of_class(converted, allow_classes):
        raise ModelError(problem)
    stack: list[Any] = [converted]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            if "class_name" in value and (problem := problem_of_class(value, allow_classes)):
                raise ModelError(problem)
            stack.extend(item for pair in value.items() for item in pair)
        elif isinstance(value, list | tuple):
            stack.extend(value)
        elif isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ModelError(f"texts must be Unicode, got {value[:60]!a}; {_SAVE_AGAIN}")
    return converted
