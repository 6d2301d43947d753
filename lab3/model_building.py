"""A Keras model from an inspected configuration: what it would allocate first, then the model itself."""

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lab3.errors import ModelError
from lab3.graph import output_shapes
from lab3.model_inspection import InspectedModel, ModelLimits

_MOST_OUTPUTS = 2**26  # numbers that one layer makes of one image: 256 MB
_MOST_CONSTANTS = 2**24  # numbers that `Normalization` layers make of a given mean: 128 MB
_CONSTANT = "lab3_constant"
_NUMBERS = itertools.count()  # names of layers differ


def check_declared(inspected: InspectedModel, limits: ModelLimits) -> None:
    """Raise `ModelError` if the configuration stands for more than the file stores: Keras would allocate that first."""
    # Variables that are never to be filled stay in a list of the thread that made them, and go with it.
    with ThreadPoolExecutor(1) as thread:
        n_declared, n_constants, n_outputs = thread.submit(_sizes_without_values, inspected.configuration).result()
    if n_declared > limits.parameters:
        raise ModelError(
            f"the model must have at most {limits.parameters:,} parameters, got {n_declared:,}; "
            "if you trust it, raise model.max_parameters"
        )
    if n_declared > inspected.n_values:
        raise ModelError(
            f"the file must store every parameter, got {inspected.n_values:,} values for {n_declared:,} parameters; "
            "save it again with model.save()"
        )
    if n_outputs > _MOST_OUTPUTS:
        raise ModelError(
            f"a layer must make at most {_MOST_OUTPUTS:,} numbers of an image, got {n_outputs:,}; use smaller images"
        )
    if n_constants > _MOST_CONSTANTS:
        raise ModelError(
            f"Normalization layers must have at most {_MOST_CONSTANTS:,} constants, got {n_constants:,}; "
            "normalise along the last axis alone"
        )


def build_model(configuration: dict[str, Any]) -> Any:
    """The model that `configuration` describes; its weights are zeros until they are loaded."""
    return _build(_prepared(configuration, has_values=True))


def _build(configuration: Any) -> Any:
    import keras

    # Files of Keras 2, and .h5 of Keras 3, name no modules.
    if "module" not in configuration:
        if configuration["class_name"] == "Sequential":
            return keras.Sequential.from_config(configuration["config"])
        if configuration["class_name"] in ("Functional", "Model"):
            return keras.Model.from_config(configuration["config"])
    return keras.saving.deserialize_keras_object(configuration, safe_mode=True)


def _sizes_without_values(configuration: dict[str, Any]) -> tuple[int, int, int]:
    """Parameters of all layers that `configuration` describes, also those that lead nowhere, numbers in the constants
    of `Normalization` layers, and the largest output of one image; no array is made.
    """
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = _build(_prepared(configuration, has_values=False))
        n_outputs = max((math.prod(size or 1 for size in shape) for shape in output_shapes(model)), default=0)
    n_parameters = n_constants = 0
    for path, n_values in _variables_made():
        if any(part.startswith(_CONSTANT) for part in path.split("/")):
            n_constants += n_values
        # The state of a random generator is not among the weights.
        elif n_values > 2 or not path.endswith("seed_generator_state"):
            n_parameters += n_values
    return n_parameters, n_constants, n_outputs


def _variables_made() -> Iterator[tuple[str, int]]:
    """Path and size of every variable that this thread has made without a value."""
    from keras.src.backend.common.global_state import get_global_attribute

    for variable in get_global_attribute("uninitialized_variables") or []:
        yield variable.path, math.prod(variable.shape)


def _prepared(value: Any, has_values: bool) -> Any:
    """A copy of a configuration without what is of no use or takes long: optimizers, and initial values other than 0.

    Without `has_values` also without what makes arrays: `LayerNormalization` has variables of the sizes of the mean and
    variance of `Normalization`.
    """
    if isinstance(value, list):
        return [_prepared(item, has_values) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get("class_name")
    if name == "__tuple__" and "items" in value:
        return tuple(_prepared(item, has_values) for item in value["items"])
    if name == "TensorShape":
        return value["items"]
    copy: dict[str, Any] = {
        key: "zeros" if _is_initializer(key, item) else _prepared(item, has_values)
        for key, item in value.items()
        if key != "compile_config"
    }
    if name == "Normalization" and isinstance(copy.get("config"), dict) and not has_values:
        copy |= _like_normalization(copy["config"])
    return copy


def _is_initializer(key: str, value: Any) -> bool:
    """True for a setting as `kernel_initializer`, of a class of Keras; orthogonal ones take cubic time."""
    if not key.endswith("_initializer"):
        return False
    return isinstance(value, str) or (
        isinstance(value, dict) and value.get("registered_name") in (None, value.get("class_name"))
    )


def _like_normalization(settings: dict[str, Any]) -> dict[str, Any]:
    axis = settings.get("axis", -1)
    name = settings.get("name") if settings.get("mean") is None else f"{_CONSTANT}_{next(_NUMBERS)}"
    if axis is None or axis == []:
        return {"class_name": "Identity", "config": {"name": name}}
    return {"class_name": "LayerNormalization", "config": {"name": name, "axis": axis}}
