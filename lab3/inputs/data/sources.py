"""Which reader a data source needs: the name of a built-in set, or a path whose form is seen from name and content."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from lab3.base.files import sha256_file
from lab3.errors import DataError, one_line
from lab3.inputs.data.cifar_archive import is_cifar, read_cifar
from lab3.inputs.data.dataset import Dataset
from lab3.inputs.data.image_files import read_image_files
from lab3.vocabulary import Color

Split = Literal["train", "test"]
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMS = (
    "digits, cifar10, or the path of a Keras-layout .npz, the CIFAR-10 python archive (.tar.gz) or its folder, "
    "or images as <class>/<name>.jpg|png in a folder or .zip"
)
_DIGITS = Path(__file__).with_name("digits.npz")


def load_dataset(
    source: str,
    split: Split,
    color: Color = "rgb",
    *,
    sha256: str | None = None,
) -> Dataset:
    """The images of one split.

    `source`: `digits` (bundled, no network), `cifar10` (through `keras.datasets`), or a path: `.npz`
    with `x_train, y_train, x_test, y_test`; the CIFAR-10 python archive or its folder; image files
    `<class>/<name>.jpg|png` in a folder or `.zip`, classes in alphabetical order of name, optionally below `train/` and
    `test/`. A path without such splits serves as either. `color` is for image files. `sha256`: what the file
    must have, or the arrays where there is no single file.

    >>> load_dataset("digits", "test").images_nhwc.shape
    (445, 8, 8, 1)

    Raises `DataError` for anything else, with what to do; files may come from anybody.
    """
    path, is_built_in, found = Path(source), source in ("digits", "cifar10"), None
    try:
        if not is_built_in and path.is_file():
            # Before anything parses the file.
            found = _checked_sha256(source, split, sha256, sha256_file(path))
        images_nhwc, labels_n, class_names = _read(source, split, color)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}") from error
    if found is None:
        digest = hashlib.sha256(np.ascontiguousarray(images_nhwc).data)
        digest.update(np.ascontiguousarray(labels_n).data)
        found = _checked_sha256(source, split, sha256, digest.hexdigest())
    name = f"{source} ({split} split)" if is_built_in else str(path)
    return Dataset(images_nhwc, labels_n, class_names, name, found)


def _checked_sha256(source: str, split: Split, expected: str | None, found: str) -> str:
    if expected not in (None, found):
        raise DataError(
            f"{source}: the data must have the SHA-256 of data.{split}_sha256, {expected}, got {found}; "
            "fetch them again"
        )
    return found


def _read(source: str, split: Split, color: Color) -> Arrays:
    path = Path(source)
    if source == "digits":
        return (*_read_npz(_DIGITS, split), tuple("0123456789"))
    if source == "cifar10":
        return (*_load_keras_cifar10(split), CIFAR10_CLASSES)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; data must be {FORMS}")
    if path.suffix == ".npz":
        return (*_read_npz(path, split), None)
    if is_cifar(path):
        return (*read_cifar(path, split), CIFAR10_CLASSES)
    if path.is_dir() or path.suffix == ".zip":
        return read_image_files(path, split, color)
    raise DataError(f"{path} is of no form lab3 reads; data must be {FORMS}")


def _load_keras_cifar10(split: Split) -> tuple[np.ndarray, np.ndarray]:
    import keras

    try:
        train, test = keras.datasets.cifar10.load_data()
    except Exception as error:
        # Keras lets everything from urllib, tarfile and its hash check through.
        raise DataError(
            f"cifar10: Keras could not download it or read its cache ({one_line(error)}); "
            f"give the images themselves: {FORMS}"
        ) from error
    images_nhwc, labels_n1 = train if split == "train" else test
    return images_nhwc, labels_n1.reshape(-1).astype(np.int64)


def _read_npz(path: Path, split: Split) -> tuple[np.ndarray, np.ndarray]:
    names = [f"x_{split}", f"y_{split}"]
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            listed = archive.files
            # NumPy's names are without .npy: one could stand for two members.
            arrays = [np.asarray(archive[name]) for name in names if listed.count(name) == 1]
    except Exception as error:
        # NumPy lets everything from zipfile, zlib and its own parser through.
        raise DataError(f"{path}: not a readable .npz without pickled objects ({one_line(error)})") from error
    if len(arrays) != len(names):
        raise DataError(f"{path}: must hold the arrays {' and '.join(names)} (Keras layout), got {', '.join(listed)}")
    images_nhwc, labels_n = arrays
    if images_nhwc.ndim == 3:
        images_nhwc = images_nhwc[..., np.newaxis]
    if images_nhwc.ndim != 4 or not (images_nhwc.dtype == np.uint8 or np.issubdtype(images_nhwc.dtype, np.floating)):
        raise DataError(
            f"{path}: {names[0]} must be uint8 or float (N, H, W, C), got {images_nhwc.dtype} {images_nhwc.shape}"
        )
    if labels_n.ndim == 2 and labels_n.shape[1] == 1:
        labels_n = labels_n[:, 0]
    if labels_n.ndim != 1 or not np.issubdtype(labels_n.dtype, np.integer):
        raise DataError(f"{path}: {names[1]} must be integers (N,) or (N, 1), got {labels_n.dtype} {labels_n.shape}")
    if images_nhwc.dtype != np.uint8:
        with np.errstate(over="ignore"):
            # check_dataset reports what becomes infinite.
            images_nhwc = images_nhwc.astype(np.float32)
    return images_nhwc, labels_n.astype(np.int64)
