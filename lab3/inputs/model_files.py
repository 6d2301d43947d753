"""Load, save and describe Keras models."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab3.base.files import replacing
from lab3.base.graph import list_layers
from lab3.errors import ConfigError, ModelError, one_line, printable
from lab3.inputs.inspection import inspect_model_file
from lab3.inputs.model_building import build_model


def load_model(
    path: str | Path,
    output: str | int | None = None,
    *,
    sha256: str | None = None,
    allow_classes: Sequence[str] = (),
) -> Any:
    """The Keras model in an `.h5` or `.keras` file of Keras 2 or 3, not compiled, without regularizers.

    The file is inspected before Keras sees it, and may come from anybody (see docs/trusting-files.md). Its weights are
    those of the file, every one, and no others. `output`: name or index of the output that gives class scores, for a
    model with several; the model returned has that one alone. `sha256`: what the file's must be. `allow_classes`: names
    of registered classes that it may use besides Keras's own. Raises `ModelError` if the file is missing, of another
    form, damaged, not the one expected, names other classes, means something else in Keras 3, or holds weights that do
    not fit or are not finite, `ConfigError` if there is no such output.
    """
    path = Path(path)
    try:
        model = build_model(inspect_model_file(path, allow_classes, sha256))
    except ModelError as error:
        raise ModelError(f"{path}: {printable(str(error))}") from error
    except Exception as error:
        # h5py, zipfile and each of Keras's layers let everything through.
        raise ModelError(
            f"{path}: must be an intact model that Keras can load, got: {one_line(error)}; copy it again, or save it "
            "again with model.save()"
        ) from error
    check_weights(model, str(path))
    return model if output is None else _with_one_output(model, output)


def check_weights(model: Any, source: str) -> None:
    """Raise `ModelError` if a weight is NaN or infinite."""
    for layer in list_layers(model):
        for weight in layer.weights:
            values = np.asarray(weight, np.float32)
            if n_bad := values.size - int(np.isfinite(values).sum()):
                raise ModelError(
                    f"{source}: weights must be finite, got {n_bad} NaN or infinite values in "
                    f"{printable(f'{layer.name}/{weight.name}')}; train the model again"
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


def _with_one_output(model: Any, output: str | int) -> Any:
    import keras

    # Sequential models have no list of names.
    names = list(getattr(model, "output_names", [model.layers[-1].name]))
    if output not in names and not (isinstance(output, int) and -len(names) <= output < len(names)):
        raise ConfigError(
            f"model.output must name an output of the model ({', '.join(names)}) or be its index, got {output!r}"
        )
    index = names.index(output) if output in names else output
    return model if len(names) == 1 else keras.Model(model.input, model.outputs[index], name=model.name)
