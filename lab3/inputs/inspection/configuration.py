"""A model's configuration: JSON in the words of Keras 3, and every class in it one that may be loaded."""

import inspect
import json
from collections.abc import Collection
from typing import Any

import numpy as np

from lab3.errors import ModelError
from lab3.inputs.model_classes import MODELS, module_of, problem_of_class

Item = dict[str, Any]

# Settings that Keras 3 does not have and that do not change what a layer computes in inference.
_WITHOUT_EFFECT = {
    "adjustment", "batch_size", "force_generator", "fused", "implementation", "input_length",
    "input_shape", "key_shape", "noise_shape", "query_shape", "rng_type", "seed", "trainable",
    "value_shape",
}  # fmt: skip
# Those that may be left out at these values alone.
_NEUTRAL = {"groups": 1, "ragged": False, "renorm": False, "virtual_batch_size": None}
# `keras.Model` is the public way to what is named `Functional` there.
_FUNCTIONAL_MODULES = (
    "keras.src.models.functional", "keras.src.engine.functional", "keras.src.engine.sequential",
    "keras.engine.functional",
)  # fmt: skip
_NOT_OF_INFERENCE = ("_constraint", "_regularizer")


def parse_configuration(text: str | bytes, is_keras_2: bool, allow_classes: Collection[str]) -> Item:
    """The configuration in `text`, in the words of Keras 3, without what inference has no use for.

    Each class has a module, as `.keras` files of Keras 3 have it; initial values are zeros, there are no regularizers,
    no constraints and no optimizer. `is_keras_2`: Keras 2 wrote the file; some of what it means, Keras 3 writes in the
    same words for something else. Raises `ModelError` if it names a class that may not be loaded, or means something
    else in Keras 3, and whatever Python raises if it describes no model.
    """
    converted: Item = _in_words_of_keras_3(json.loads(text), is_keras_2)
    items: list[Item] = []

    def keep(item: Item) -> Item:
        items.append(item)
        return item

    # What is checked is what Keras is given: all of it, from the outside in, and text without halves of characters.
    json.loads(json.dumps(converted, ensure_ascii=False).encode(), object_hook=keep)
    for item in reversed(items):
        if "class_name" in item and (problem := problem_of_class(item, allow_classes)):
            raise ModelError(problem)
    return converted


def _in_words_of_keras_3(value: Any, is_keras_2: bool) -> Any:
    """A converted copy of a part of a configuration, from the inside out."""
    if isinstance(value, list):
        return [_in_words_of_keras_3(each, is_keras_2) for each in value]
    if not isinstance(value, dict):
        return value
    name, settings = value.get("class_name"), value.get("config")
    if name in ("TensorShape", "__tuple__"):
        items = _in_words_of_keras_3(value["items"], is_keras_2)
        return items if name == "TensorShape" else tuple(items)
    if name == "Policy" and isinstance(settings, dict):
        return settings["name"]
    copy: Item = {}
    for key, item in value.items():
        if key.endswith("_initializer"):
            copy[key] = "zeros"
        elif key.endswith(_NOT_OF_INFERENCE):
            copy[key] = None
        elif key == "name":
            copy[key] = _renamed(item)
        elif key != "compile_config" and not (key == "build_config" and is_keras_2):
            copy[key] = _in_words_of_keras_3(item, is_keras_2)
    if is_keras_2:
        _check_meaning(copy)
    return _converted(copy, is_keras_2) if isinstance(name, str) and isinstance(settings, dict | list) else copy


def _renamed(name: Any) -> Any:
    """A layer's name without `/`, which Keras 3 does not allow."""
    return name.replace("/", "_") if isinstance(name, str) else name


def _check_meaning(item: Item) -> None:
    """Raise `ModelError` for what Keras 3 has under the same name, but computes in another way."""
    activation = item.get("activation")
    if "hard_sigmoid" in (activation, activation.get("config") if isinstance(activation, dict) else None):
        raise ModelError(
            "hard_sigmoid of Keras 2 is another function than that of Keras 3, so the file cannot be loaded exactly; "
            "build the model again with layers in its place: Rescaling(0.2, 0.5) and ReLU(max_value=1)"
        )
    if item.get("class_name") == "RandomCrop":
        raise ModelError(
            "RandomCrop of Keras 2 crops in inference too, that of Keras 3 does not, so the file cannot be loaded "
            "exactly; build the model again with CenterCrop in its place"
        )


def _converted(item: Item, is_keras_2: bool) -> Item:
    """An item that names a class, with a module and its settings in Keras 3's words; the item itself is changed."""
    if "Custom>CustomScaleLayer" in (item["class_name"], item.get("registered_name")):
        # Keras 2 registered the layer of InceptionResNetV2.
        item |= {"class_name": "CustomScaleLayer", "module": None, "registered_name": None}
    name, settings = item["class_name"], item["config"]
    if name in MODELS:
        # Keras before 2.2 gave a Sequential model's layers alone.
        if isinstance(settings, list):
            settings = item["config"] = {"name": "sequential", "layers": settings}
        _convert_model(settings, is_keras_2)
        if item.get("module") in _FUNCTIONAL_MODULES:
            item |= {"module": "keras", "registered_name": None}
        if name == "Functional" and item.get("module") in (None, "keras", "keras.models"):
            item["class_name"] = "Model"
    if item.get("module") is None and item.get("registered_name") in (None, name) and not name.startswith("__"):
        module = module_of(name)
        item |= {"module": module, "registered_name": None if module else name}
    if item.get("module") == "keras.layers" == module_of(name):
        _convert_settings(name, settings)
    return item


def _convert_settings(name: str, settings: Item) -> None:
    """Change a layer's settings in place; those that neither this nor Keras 3 knows stay, and Keras refuses them."""
    import keras

    if name == "InputLayer" and "batch_input_shape" in settings:
        settings["batch_shape"] = settings.pop("batch_input_shape")
    if name == "LeakyReLU" and "alpha" in settings:
        settings["negative_slope"] = settings.pop("alpha")
    if name == "BatchNormalization" and isinstance(settings.get("axis"), list) and len(settings["axis"]) == 1:
        (settings["axis"],) = settings["axis"]
    for key in ("scale", "offset") if name == "Rescaling" else ():
        numbers = settings.get(key, 0)
        # Keras would notice only once it computes.
        if not all(isinstance(each, int | float | dict | list) for each in np.ravel(numbers).tolist()):
            raise ModelError(
                f"{key} of a Rescaling layer must be numbers, got {str(numbers)[:60]!r}; build the model again"
            )
    parameters = inspect.signature(getattr(keras.layers, name)).parameters
    known = set(parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        known |= {"activity_regularizer", "autocast", "dtype", "name", "trainable"}
    for key in set(settings) - known:
        is_neutral = key in _NEUTRAL and settings[key] == _NEUTRAL[key]
        if key in _WITHOUT_EFFECT or is_neutral or key.endswith(("_initializer", *_NOT_OF_INFERENCE)):
            del settings[key]


def _convert_model(settings: Item, is_keras_2: bool) -> None:
    """Change a model's settings in place: what it is fed with, what it gives, and how its layers call each other."""
    layers = settings["layers"]
    models = {layer.get("name") for layer in layers if layer["class_name"] in MODELS}
    shapes = [layer["config"].pop("batch_input_shape", None) for layer in layers]
    if "input_layers" not in settings and shapes and shapes[0] is not None:
        entry = {"batch_shape": shapes[0], "name": f"{settings.get('name')}_input"}
        layers.insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": entry})
    for layer in layers:
        if "inbound_nodes" in layer:
            # Keras 3 writes dictionaries.
            layer["inbound_nodes"] = [
                _node(node, models) if isinstance(node, list) else node for node in layer["inbound_nodes"]
            ]
    if not is_keras_2:
        return
    sequential = {layer.get("name") for layer in layers if layer["class_name"] == "Sequential"}
    for key in ("input_layers", "output_layers"):
        if isinstance(tensors := settings.get(key), list):
            # Keras 2 wrote a single tensor as a list of one.
            moved = [_moved(each, sequential) if isinstance(each, list) else each for each in tensors]
            settings[key] = moved[0] if len(moved) == 1 else moved


def _node(calls: list[Any], models: Collection[Any]) -> Any:
    """A call of a layer, in Keras 2 a list of `[layer, call, output, further arguments]` for each tensor it reads."""
    tensors = [_tensor(call[:3], models) for call in calls]
    kwargs = {
        key: _tensor(value, models)
        if isinstance(value, list) and [type(part) for part in value] == [str, int, int]
        else value
        for key, value in (calls[0][3] if len(calls[0]) > 3 else {}).items()
    }
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}


def _tensor(place: list[Any], models: Collection[Any]) -> Item:
    # Shape and type are looked up where it was made.
    history = {"shape": [], "dtype": "float32", "keras_history": _moved(place, models)}
    return {"class_name": "__keras_tensor__", "config": history}


def _moved(place: list[Any], models: Collection[Any]) -> list[Any]:
    """`[layer, call, output]`: Keras 2 counted a model's own making as its first call."""
    name, call, output = place
    return [_renamed(name), call - (_renamed(name) in models), output]
