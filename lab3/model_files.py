"""Load, save and describe Keras models."""

import logging
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lab3.errors import ConfigError, Lab3Error, ModelError
from lab3.files import replacing
from lab3.graph import list_layers
from lab3.layers import find_layer


@dataclass(frozen=True)
class LayerInfo:
    """One row of `lab3 inspect`."""

    index: int
    name: str
    class_name: str
    output_shape: tuple[int | None, ...] | None
    n_parameters: int
    is_pruned: bool


def load_model(path: str | Path, output: str | int | None = None) -> Any:
    """The Keras model in an `.h5` of Keras 2 or 3 or a `.keras` file, not compiled, in safe mode.

    `output`: name or index of the output that gives class scores, for a model with several; the model returned has that
    one alone. Raises `ModelError` if the file is missing, of another form or damaged, or holds weights that are not
    finite, `ConfigError` if there is no such output.
    """
    import keras

    path = Path(path)
    _check_form(path)
    try:
        with warnings.catch_warnings():
            # Keras 3 would rather not see the input shape that Keras 2 stored on the first layer.
            warnings.filterwarnings("ignore", "Do not pass an `input_shape`")
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        # Keras lets everything from h5py, json, zipfile and each layer's own checks through.
        raise ModelError(f"{path}: Keras cannot load it: {_first_line(error)}") from error
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


def _check_form(path: Path) -> None:
    if not path.is_file():
        raise ModelError(f"{path}: no such model file; give an .h5 or .keras file")
    if path.suffix in (".h5", ".hdf5"):
        try:
            with h5py.File(path) as file:
                holds_model = "model_config" in file.attrs
        except OSError as error:
            raise ModelError(f"{path}: not a whole HDF5 file ({error}); copy or save it again") from error
        if not holds_model:
            raise ModelError(f"{path}: must hold a whole model, got weights or other data; save it with model.save()")
    elif path.suffix == ".keras":
        if not zipfile.is_zipfile(path):
            raise ModelError(f"{path}: not a whole .keras file; copy or save it again")
    else:
        raise ModelError(f"{path}: a model file must end in .h5 or .keras, got {path.suffix or 'no ending'!r}")


def _output_shape(layer: Any) -> tuple[int | None, ...] | None:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        # Layers called several times, or with several outputs, have no single one.
        return None
    return tuple(shape)


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__
