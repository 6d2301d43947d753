"""The words of Keras 2 in a configuration, and what they are in Keras 3."""

import inspect
from collections.abc import Collection
from typing import Any

import numpy as np

from lab3.errors import ModelError
from lab3.model_classes import MODELS, module_of

Item = dict[str, Any]

# Settings that Keras 3 does not have and that do not change what a layer computes in inference.
_WITHOUT_EFFECT = {
    "adjustment", "batch_size", "force_generator", "fused", "implementation", "input_length",
    "input_shape", "key_shape", "noise_shape", "query_shape", "rng_type", "seed", "trainable",
    "value_shape",
}  # fmt: skip
# Those that may be left out at these values alone.
_NEUTRAL = {"groups": 1, "ragged": False, "renorm": False, "virtual_batch_size": None}
_KERAS_2_MODULES = ("keras.src.engine.functional", "keras.src.engine.sequential", "keras.engine.functional")
_NOT_OF_INFERENCE = ("_constraint", "_regularizer")


def in_words_of_keras_3(value: Any, is_keras_2: bool) -> Any:
    """A copy of a configuration in which each class has a module, as `.keras` files of Keras 3 have it.

    What inference has no use for is left out: initial values are zeros, there are no regularizers, no constraints and
    no optimizer. `is_keras_2`: Keras 2 wrote the file; some of what it means, Keras 3 writes in the same words for
    something else. Raises `ModelError` for a function of Keras 2 that has another meaning in Keras 3.
    """
    if isinstance(value, list):
        return [in_words_of_keras_3(each, is_keras_2) for each in value]
    if not isinstance(value, dict):
        return value
    name, settings = value.get("class_name"), value.get("config")
    if name in ("TensorShape", "__tuple__") and isinstance(value.get("items"), list):
        items = in_words_of_keras_3(value["items"], is_keras_2)
        return items if name == "TensorShape" else tuple(items)
    if name == "Policy" and isinstance(settings, dict):
        return settings.get("name")
    copy: Item = {}
    for key, item in value.items():
        if key.endswith("_initializer"):
            copy[key] = "zeros"
        elif key.endswith(_NOT_OF_INFERENCE):
            copy[key] = None
        elif key != "compile_config" and not (key == "build_config" and is_keras_2):
            copy[key] = in_words_of_keras_3(item, is_keras_2)
    if is_keras_2:
        _check_meaning(copy)
    return _converted(copy, is_keras_2) if isinstance(name, str) and isinstance(settings, dict | list) else copy


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
    if item["class_name"] == "Custom>CustomScaleLayer" or item.get("registered_name") == "Custom>CustomScaleLayer":
        # Keras 2 registered the layer of InceptionResNetV2.
        item |= {"class_name": "CustomScaleLayer", "module": None, "registered_name": None}
    name, settings = item["class_name"], item["config"]
    if isinstance(settings, dict) and isinstance(settings.get("name"), str):
        settings["name"] = _renamed(settings["name"])
    if name in MODELS:
        # Keras before 2.2 gave a Sequential model's layers alone.
        if isinstance(settings, list):
            settings = item["config"] = {"name": "sequential", "layers": settings}
        layers = settings.get("layers")
        if isinstance(layers, list) and all(isinstance(layer, dict) for layer in layers):
            _convert_model(settings, layers, is_keras_2)
        if str(item.get("module")) in ("keras.src.models.functional", *_KERAS_2_MODULES):
            # `keras.Model` is the public way to what is named `Functional` there.
            item |= {"module": "keras", "registered_name": None}
        if name == "Functional" and item.get("module") in (None, "keras", "keras.models"):
            item["class_name"] = "Model"
    if item.get("module") is None and item.get("registered_name") in (None, name) and not name.startswith("__"):
        module = module_of(name)
        item |= {"module": module, "registered_name": None if module else name}
    if item.get("module") == "keras.layers" == module_of(name) and isinstance(settings, dict):
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


def _convert_model(settings: Item, layers: list[Item], is_keras_2: bool) -> None:
    """Change a model's settings in place: what it is fed with, what it gives, and how its layers call each other."""
    models = {layer.get("name") for layer in layers if layer.get("class_name") in MODELS}
    shapes = [
        layer["config"].pop("batch_input_shape", None) for layer in layers if isinstance(layer.get("config"), dict)
    ]
    if "input_layers" not in settings and shapes and shapes[0] is not None:
        entry = {"batch_shape": shapes[0], "name": f"{settings.get('name')}_input"}
        layers.insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": entry})
    for layer in layers:
        if "name" in layer:
            layer["name"] = _renamed(layer["name"])
        nodes = layer.get("inbound_nodes")
        if isinstance(nodes, list):
            layer["inbound_nodes"] = [_node(node, models) if isinstance(node, list) else node for node in nodes]
    if not is_keras_2:
        return
    sequential = {layer.get("name") for layer in layers if layer.get("class_name") == "Sequential"}
    for key in ("input_layers", "output_layers"):
        if isinstance(tensors := settings.get(key), list):
            # Keras 2 told a single tensor from a list of one nowhere.
            moved = [_moved(each, sequential) if isinstance(each, list) else each for each in tensors]
            settings[key] = moved[0] if len(moved) == 1 and isinstance(moved[0], list) else moved


def _node(calls: list[Any], models: Collection[Any]) -> Any:
    """A call of a layer, in Keras 2 a list of `[layer, call, output, further arguments]` for each tensor it reads."""
    if not all(isinstance(call, list) and len(call) in (3, 4) for call in calls):
        return calls
    tensors = [_tensor(call[:3], models) for call in calls]
    further = calls[0][3] if calls and len(calls[0]) == 4 and isinstance(calls[0][3], dict) else {}
    kwargs = {
        key: _tensor(value, models)
        if isinstance(value, list) and [type(part) for part in value] == [str, int, int]
        else value
        for key, value in further.items()
    }
    return {"args": tensors if len(tensors) == 1 else [tensors], "kwargs": kwargs}


def _tensor(place: list[Any], models: Collection[Any]) -> Item:
    # Shape and type are looked up where it was made.
    history = {"shape": [], "dtype": "float32", "keras_history": _moved(place, models)}
    return {"class_name": "__keras_tensor__", "config": history}


def _moved(place: list[Any], models: Collection[Any]) -> list[Any]:
    """`[layer, call, output]`: Keras 2 counted a model's own making as its first call."""
    if len(place) != 3 or not isinstance(place[0], str) or not isinstance(place[1], int):
        return place
    return [_renamed(place[0]), place[1] - (place[0] in models), place[2]]


def _renamed(name: Any) -> Any:
    """A layer's name without `/`, which Keras 3 does not allow."""
    return name.replace("/", "_") if isinstance(name, str) else name
