"""What a notebook gives to `lab3.sweep`, checked before any work, by the rules of the settings of the same names."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lab3.config.problems import check_values
from lab3.config.sections import PruneSection, Seed, SweepSection
from lab3.errors import DataError, Lab3Error, ModelError
from lab3.inputs.data import Dataset, check_dataset

_SOURCE = "lab3.sweep"


class Arguments(PruneSection, SweepSection):
    """The settings that a notebook gives."""

    seed: Seed = 0
    progress: bool = True


def check_arguments(**values: Any) -> Arguments:
    """The settings, those of NumPy as Python's. Raises `ConfigError` with all that is wrong with them."""
    return check_values(Arguments, {name: _as_python(value) for name, value in values.items()}, _SOURCE)


@contextmanager
def named_as_arguments() -> Iterator[None]:
    """Errors name `effect` where the command line has `prune.effect`."""
    try:
        yield
    except Lab3Error as error:
        text = re.sub(r"\b(?:prune|sweep)\.(?=[a-z])", "", str(error))
        text = text.replace("data.scale", "how the images are scaled").replace("`lab3 inspect`", "`model.summary()`")
        raise type(error)(text) from error


def check_model(model: Any) -> None:
    """Raise `ModelError` unless `model` is a Keras model."""
    import keras

    if isinstance(model, str | Path):
        raise ModelError(
            f"{_SOURCE}: model must be a Keras model, got the path {str(model)!r}; load it first with "
            f"lab3.load_model({str(model)!r})"
        )
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{_SOURCE}: model must be a Keras 3 model, got {_kind(model)}; save it as .h5 or .keras and load "
            "that with lab3.load_model"
        )


def check_data(
    images: Any, labels: Any, input_shape: tuple[int | None, ...], n_labels: int
) -> tuple[np.ndarray, np.ndarray]:
    """`(images_nhwc, labels_n)`, the labels int64 `(N,)`, ready for a model of this input shape without N.

    Raises `DataError` if they cannot be used.
    """
    images_nhwc = _check_images(images, input_shape)
    labels_n = _check_labels(labels, n_labels)
    check_dataset(Dataset(images_nhwc, labels_n, None, _SOURCE, ""), input_shape, n_labels)
    return images_nhwc, labels_n


def _check_images(images: Any, input_shape: tuple[int | None, ...]) -> np.ndarray:
    wanted = "(N, " + ", ".join("any" if size is None else str(size) for size in input_shape) + ")"
    if not hasattr(images, "__array__"):
        raise DataError(
            f"{_SOURCE}: images must be an array {wanted}, got {_kind(images)}; make one with numpy.stack(images)"
        )
    images_nhwc = np.asarray(images)
    if images_nhwc.dtype.kind not in "uifb":
        raise DataError(
            f"{_SOURCE}: images must hold numbers, got an array of {images_nhwc.dtype}; "
            "make one array of equal images with numpy.stack(images).astype('float32')"
        )
    if images_nhwc.ndim == 3 and len(input_shape) == 3 and input_shape[2] == 1:
        images_nhwc = images_nhwc[..., np.newaxis]
    if images_nhwc.ndim not in (len(input_shape) + 1, 4):
        is_one = images_nhwc.ndim == len(input_shape)
        hint = "that is one image: give images[numpy.newaxis]" if is_one else "give them the shape with images.reshape"
        raise DataError(f"{_SOURCE}: images must be an array {wanted}, got {images_nhwc.shape}; {hint}")
    return images_nhwc


def _check_labels(labels: Any, n_labels: int) -> np.ndarray:
    """Class numbers, a column of them, or one-hot rows, as int64 `(N,)`."""
    rule = f"{_SOURCE}: labels must be integers (N,) or (N, 1), or one-hot rows (N, {n_labels})"
    if isinstance(labels, list | tuple):
        labels = np.array(labels, dtype=None if len({np.shape(each) for each in labels}) <= 1 else object)
    if not hasattr(labels, "__array__"):
        raise DataError(f"{rule}, got {_kind(labels)}; make an array of class numbers of them")
    found = np.asarray(labels)
    if found.ndim == 2 and found.shape[1] == n_labels:
        if found.dtype.kind not in "uifb" or not (((found == 0) | (found == 1)).all() and (found.sum(1) == 1).all()):
            raise DataError(
                f"{rule}, got rows that are not one 1 among 0; take labels.argmax(axis=1) if the best counts"
            )
        found = found.argmax(axis=1)[:, np.newaxis]
    if found.ndim != 1 and (found.ndim != 2 or found.shape[1] != 1):
        raise DataError(f"{rule}, got {found.shape}; the model has {n_labels} classes")
    if found.dtype.kind not in "uib":
        example = f", such as {found.flat[0]!r}" if found.size else ""
        hint = "round them with labels.astype(int) if they are integers" if found.dtype.kind == "f" else (
            "give each class its number, in the order of the model's outputs"
        )  # fmt: skip
        raise DataError(f"{rule}, got {found.dtype}{example}; {hint}")
    labels_n: np.ndarray = found.reshape(-1).astype(np.int64)
    return labels_n


def _as_python(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    return [_as_python(each) for each in value] if isinstance(value, range | list | tuple) else value


def _kind(value: Any) -> str:
    return f"a {type(value).__module__}.{type(value).__name__}".replace(" builtins.", " ")
