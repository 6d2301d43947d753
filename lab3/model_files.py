"""Load, save and describe Keras models."""

import logging
import math
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lab3.errors import ConfigError, Lab3Error, ModelError
from lab3.files import replacing
from lab3.foreign import one_line, sha256_file
from lab3.graph import list_layers, output_shapes
from lab3.layers import find_layer
from lab3.model_inspection import InspectedModel, ModelLimits, check_is_file, inspect_model_file

_MOST_OUTPUTS = 2**26  # numbers that one layer makes of one image: 256 MB


@dataclass(frozen=True)
class LayerInfo:
    """One row of `lab3 inspect`."""

    index: int
    name: str
    class_name: str
    output_shape: tuple[int | None, ...] | None
    n_parameters: int
    is_pruned: bool


def load_model(
    path: str | Path,
    output: str | int | None = None,
    *,
    sha256: str | None = None,
    allow_classes: Sequence[str] = (),
    limits: ModelLimits | None = None,
) -> Any:
    """The Keras model in an `.h5` of Keras 2 or 3 or a `.keras` file, not compiled, in safe mode.

    The file is inspected before Keras sees it, and may come from anybody (see `lab3.model_inspection`).
    `output`: name or index of the output that gives class scores, for a model with several; the model returned has that
    one alone. `sha256`: what the file's must be. `allow_classes`: names of registered classes that it may use besides
    Keras's own. Raises `ModelError` if the file is missing, of another form, damaged, not the one expected, too large,
    names other classes or holds weights that are not finite, `ConfigError` if there is no such output.
    """
    import keras

    path = Path(path)
    if sha256 is not None:
        _check_sha256(path, sha256)
    limits = limits or ModelLimits()
    inspected = inspect_model_file(path, limits, allow_classes)
    try:
        with warnings.catch_warnings():
            # Keras 3 would rather not see the input shape that Keras 2 stored on the first layer.
            warnings.filterwarnings("ignore", "Do not pass an `input_shape`")
            _check_declared(inspected, limits)
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:
        # Keras lets everything from h5py, json, zipfile and each layer's own checks through.
        raise ModelError(f"{path}: Keras cannot load it: {one_line(error)}") from error
    check_weights(model, str(path))
    return model if output is None else _with_one_output(model, output)


def check_weights(model: Any, source: str) -> None:
    """Raise `ModelError` if a weight is NaN or infinite."""
    for layer in list_layers(model):
        for weight in layer.weights:
            n_bad = int(np.size(weight)) - int(np.isfinite(np.asarray(weight, np.float32)).sum())
            if n_bad:
                raise ModelError(
                    f"{source}: weights must be finite, got {n_bad} NaN or infinite values in "
                    f"{layer.name}/{weight.name}; "
                    "train the model again"
                )


def save_model(model: Any, path: Path) -> None:
    """Write `model` to `path` (`.h5` or `.keras`) in one durable step."""
    # Keras calls .h5 a legacy format at every save; here it is the user's choice.
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with replacing(path) as temporary:
            model.save(temporary)
    finally:
        log.setLevel(level)


def describe_layers(model: Any, layer: str | int | None = None) -> list[LayerInfo]:
    """A row for each layer, the one that would be pruned marked; none is marked if there is no such layer.

    Raises `ConfigError` or `ModelError` only if `layer` is given and cannot be pruned.
    """
    try:
        pruned = find_layer(model, layer)
    except Lab3Error:
        if layer is not None:
            raise
        pruned = None
    return [
        LayerInfo(index, each.name, type(each).__name__, _output_shape(each), each.count_params(), each is pruned)
        for index, each in enumerate(list_layers(model))
    ]


def _with_one_output(model: Any, output: str | int) -> Any:
    import keras

    names = list(model.output_names)
    if output not in names and not (isinstance(output, int) and -len(names) <= output < len(names)):
        raise ConfigError(
            f"model.output must name an output of the model ({', '.join(names)}) or be its index, got {output!r}"
        )
    index = names.index(output) if output in names else output
    return keras.Model(model.input, model.outputs[index], name=model.name)


def _check_sha256(path: Path, expected: str) -> None:
    check_is_file(path)
    found = sha256_file(path)
    if found != expected:
        raise ModelError(
            f"{path}: the file must have the SHA-256 of model.sha256, {expected}, got {found}; fetch the file again"
        )


def _check_declared(inspected: InspectedModel, limits: ModelLimits) -> None:
    """Raise `ModelError` if the configuration stands for more than the file stores: Keras would allocate that first."""
    # Variables that are never to be filled stay in a list of the thread that made them, and go with it.
    with ThreadPoolExecutor(1) as thread:
        n_declared, n_outputs = thread.submit(_sizes_without_values, inspected.configuration).result()
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


def _sizes_without_values(configuration: dict[str, Any]) -> tuple[int, int]:
    """Parameters of the model that `configuration` describes, and its largest output of one image; no array is made."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        plain = _without_values(configuration)
        if plain["class_name"] == "Sequential":
            model = keras.Sequential.from_config(plain["config"])
        elif plain["class_name"] in ("Functional", "Model"):
            model = keras.Model.from_config(plain["config"])
        else:
            model = keras.saving.deserialize_keras_object(plain)
        n_parameters = sum(math.prod(weight.shape) for weight in model.weights)
        n_outputs = max((math.prod(size or 1 for size in shape) for shape in output_shapes(model)), default=0)
    return n_parameters, n_outputs


def _without_values(value: Any) -> Any:
    """A copy of a configuration without what makes arrays while it is built: optimizers and `Normalization`."""
    if isinstance(value, list):
        return [_without_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "__tuple__":
        return tuple(_without_values(item) for item in value["items"])
    if value.get("class_name") == "TensorShape":
        return value["items"]
    copy = {key: _without_values(item) for key, item in value.items() if key != "compile_config"}
    if value.get("class_name") == "Normalization" and isinstance(copy.get("config"), dict):
        copy |= {"class_name": "Identity", "config": {"name": copy["config"].get("name")}}
    return copy


def _output_shape(layer: Any) -> tuple[int | None, ...] | None:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        # Layers called several times, or with several outputs, have no single one.
        return None
    return tuple(shape)
