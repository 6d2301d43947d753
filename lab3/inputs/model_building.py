"""A Keras model from an inspected file: built once, and every weight the file's."""

import copy
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from lab3.base.graph import check_is_graph, list_layers
from lab3.errors import ModelError
from lab3.inputs.inspection import InspectedModel

_RENAMED = {"depthwise_kernel": "kernel", "sn_u": "vector_u"}
# A variable, or None for what is no weight, and the path of its array.
Pairs = Iterator[tuple[Any, str]]


def build_model(inspected: InspectedModel) -> Any:
    """The model that `inspected` describes, with its weights, not compiled.

    Raises `ModelError` if it has no graph, if a weight of the file is left over, or if one of the model is not in the
    file; and whatever Keras raises.
    """
    import keras

    # Layers take things out of their own configuration.
    model = _build(copy.deepcopy(inspected.configuration))
    check_is_graph(model)
    _load_weights(model, inspected)
    for layer in list_layers(model):
        for each in (layer, getattr(layer, "layer", None)):
            if isinstance(each, keras.layers.Normalization):
                each.finalize_state()
    return model


def _build(item: dict[str, Any]) -> Any:
    import keras

    settings = item["config"]
    if (item["class_name"], item["module"]) != ("Sequential", "keras") or not settings.get("layers"):
        return keras.saving.deserialize_keras_object(item, safe_mode=True)
    # Read by Keras, a Sequential model is built again with each of its layers.
    model = keras.Sequential([_build(layer) for layer in settings["layers"]], name=settings.get("name"))
    if not model.built and settings.get("build_input_shape"):
        model.build(settings["build_input_shape"])
    return model


def _load_weights(model: Any, inspected: InspectedModel) -> None:
    """Give every variable of the model the array of the file that is its own."""
    import keras
    import ml_dtypes

    pairs = _pairs_of_keras(model, inspected) if inspected.layers is None else _pairs_of_h5(model, inspected)
    missing = {id(variable): variable for variable in model.weights}
    left_over = set(inspected.arrays)
    for variable, name in pairs:
        left_over.discard(name)
        if variable is None:
            continue
        array = inspected.arrays[name]
        if tuple(array.shape) != tuple(variable.shape):
            raise ModelError(
                f"weights must have the shapes of the model's, got {array.shape} for {tuple(variable.shape)} in {name}"
            )
        values = array.view(ml_dtypes.bfloat16).astype(np.float32) if array.dtype.kind == "V" else array
        if missing.pop(id(variable), None) is None:
            # SpectralNormalization and the layer in it both store the kernel.
            if not np.array_equal(keras.ops.convert_to_numpy(variable), values):
                raise ModelError(f"each weight must be stored once, got other values for it in {name!r}")
            continue
        variable.assign(values)
    if missing:
        raise ModelError(
            f"the file must store every parameter, got none for {len(missing)} of {len(model.weights)} weights, as "
            f"{_short(next(iter(missing.values())))}"
        )
    if left_over:
        raise ModelError(f"every weight of the file must be of the model, got {min(left_over)!r} besides")


def _short(variable: Any) -> str:
    """Layer and weight: what stands before is the model's name, which Keras numbers through the process."""
    return "/".join(variable.path.split("/")[-2:])


# `.h5`: lists of names in each layer's group


def _pairs_of_h5(model: Any, inspected: InspectedModel) -> Pairs:
    """Variables of the model and the paths of their arrays; by name where names tell, else in Keras's order."""
    assert inspected.layers is not None
    for layer_name, paths in inspected.layers.items():
        if not paths:
            continue
        layer = next((each for each in model.layers if each.name == layer_name.replace("/", "_")), None)
        variables = [] if layer is None else [*layer.trainable_weights, *layer.non_trainable_weights]
        unknown = [path for path in paths if path not in inspected.arrays]
        if unknown or len(paths) != len(variables):
            raise ModelError(
                f"each layer and each weight must be listed once and be there, got {len(paths)} names, {len(unknown)} "
                f"of them without an array, for {len(variables)} weights of {layer_name!r}"
            )
        for key in (_whole_name, _last_names):
            path_of = {key(path.removeprefix(f"model_weights/{layer_name}/")): path for path in paths}
            keys = [key(variable.path) for variable in variables]
            if len(path_of) == len(paths) and set(keys) == set(path_of):
                paths = [path_of[each] for each in keys]
                break
        for variable, path in zip(variables, paths, strict=True):
            # Names that are taken are numbered.
            if len({re.sub(r"_\d+$", "", _last_names(each)[-1]) for each in (path, variable.path)}) > 1:
                raise ModelError(f"weights must be named as the model's, got {path!r} for {_short(variable)!r}")
            yield variable, path


def _whole_name(path: str) -> str:
    return "_".join([*path.split("/")[:-1], *_last_names(path)[1:]])


def _last_names(path: str) -> tuple[str, str]:
    """The name of a weight, and of what it lies in, in the words of Keras 3."""
    *_, owner, name = ("", *path.removesuffix(":0").split("/"))
    return owner, _RENAMED.get(name, name)


# `.keras`: paths of attributes and of layers, by class and number


def _pairs_of_keras(model: Any, inspected: InspectedModel) -> Pairs:
    """Variables of the model and the paths of their arrays, as `layers/dense_1/vars/0`."""
    import keras

    groups: dict[str, list[str]] = {}
    for path in inspected.arrays:
        groups.setdefault(path.rpartition("/")[0], []).append(path)
    names: dict[int, dict[str, Any]] = {}
    for group, paths in groups.items():
        layer = _layer_at(model, inspected.configuration, group.split("/")[:-1], names)
        if isinstance(layer, keras.random.SeedGenerator):
            # Its state is no weight.
            yield from ((None, path) for path in paths)
            continue
        own = layer.weights[: len(paths)] if isinstance(layer, keras.Layer) else []
        if {f"{group}/{index}" for index in range(len(own))} != set(paths):
            raise ModelError(f"every weight of the file must be of the model, got {paths[0]!r} besides")
        yield from ((variable, f"{group}/{index}") for index, variable in enumerate(own))


def _layer_at(model: Any, item: dict[str, Any], parts: list[str], names: dict[int, dict[str, Any]]) -> Any:
    """The layer, or what else a layer has, at a path; `item` describes the model, `names` is filled by the way."""
    import keras

    found = model
    steps = iter(parts)
    for part in steps:
        if part == "layers" and isinstance(found, keras.Model):
            if id(found) not in names:
                names[id(found)] = _names_in_file(found, item)
            found, item = names[id(found)].get(next(steps, ""), (None, {}))
        else:
            # Attributes that have become public had an underscore.
            found = getattr(found, part.lstrip("_"), None) or getattr(found, part, None)
            item = item.get("config", {}).get(part) or {}
    return found


def _names_in_file(model: Any, item: dict[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """A model's layers and what describes them, by class and number in the order of the file, as `.keras` has them."""
    found: dict[str, tuple[Any, dict[str, Any]]] = {}
    used: Counter[str] = Counter()
    layers = {layer.name: layer for layer in model.layers}
    for each in item.get("config", {}).get("layers", ()):
        if layer := layers.get(each["config"].get("name")):
            name = re.sub(r"\W+", "", type(layer).__name__)
            name = re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()
            found[f"{name}_{used[name]}" if used[name] else name] = layer, each
            used[name] += 1
    return found
