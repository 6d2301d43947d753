"""Which reader a data source needs: the name of a built-in set, or a path whose form is seen from name and content."""

import hashlib
from pathlib import Path
from typing import Literal

import numpy as np

from lab3.data.cifar_archive import is_cifar_folder, read_cifar_archive, read_cifar_folder
from lab3.data.dataset import Dataset
from lab3.data.image_files import read_image_files
from lab3.errors import DataError
from lab3.foreign import one_line, problem_of_zip, sha256_file

Split = Literal["train", "test"]
Arrays = tuple[np.ndarray, np.ndarray, tuple[str, ...] | None]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FORMS = (
    "digits, cifar10, or the path of a Keras-layout .npz, the CIFAR-10 python archive (.tar.gz) or its folder, "
    "or images as <class>/<name>.jpg|png in a folder or .zip"
)


def load_dataset(
    source: str,
    split: Split,
    color: Literal["rgb", "grayscale"] = "rgb",
    *,
    sha256: str | None = None,
) -> Dataset:
    """The images of one split.

    `source`: `digits` (bundled with scikit-learn, no network), `cifar10` (through `keras.datasets`), or a path: `.npz`
    with `x_train, y_train, x_test, y_test`; the CIFAR-10 python archive or its folder; image files
    `<class>/<name>.jpg|png` in a folder or `.zip`, classes in alphabetical order of name, optionally below `train/` and
    `test/`. A path without such splits serves as either. `color` is for image files. `sha256`: what the file
    must have, or the arrays where there is no single file.

    >>> load_dataset("digits", "test").images_nhwc.shape
    (445, 8, 8, 1)

    Raises `DataError` for anything else, with what to do; files may come from anybody.
    """
    if source == "digits":
        dataset = _dataset(_load_digits(split), f"digits ({split} split)")
    elif source == "cifar10":
        dataset = _dataset(_load_keras_cifar10(split), f"cifar10 ({split} split)")
    else:
        try:
            return _load_path(source, split, color, sha256)
        except OSError as error:
            raise DataError(f"{source} cannot be read: {error}") from error
    _check_sha256(source, split, sha256, dataset.sha256)
    return dataset


def _check_sha256(source: str, split: Split, expected: str | None, found: str) -> None:
    if expected not in (None, found):
        raise DataError(
            f"{source}: the data must have the SHA-256 of data.{split}_sha256, {expected}, got {found}; "
            "fetch them again"
        )


def _load_path(source: str, split: Split, color: Literal["rgb", "grayscale"], sha256: str | None) -> Dataset:
    path = Path(source)
    if not path.exists():
        raise DataError(f"{source}: no such file or folder; data must be {FORMS}")
    if not path.is_file() and not path.is_dir():
        raise DataError(f"{source}: must be a file or a folder, got a pipe or device; save what it gives as a file")
    if path.is_file() and sha256 is not None:
        # Before anything parses the file.
        _check_sha256(source, split, sha256, sha256_file(path))
    dataset = _dataset(_read_path(path, split, color), str(path), path if path.is_file() else None)
    _check_sha256(source, split, sha256, dataset.sha256)
    return dataset


def _read_path(path: Path, split: Split, color: Literal["rgb", "grayscale"]) -> Arrays:
    if path.suffix == ".npz":
        return _read_npz(path, split)
    if path.name.endswith((".tar.gz", ".tgz", ".tar")):
        return (*read_cifar_archive(path, split), CIFAR10_CLASSES)
    if is_cifar_folder(path):
        return (*read_cifar_folder(path, split), CIFAR10_CLASSES)
    if path.is_dir() or path.suffix == ".zip":
        return read_image_files(path, split, color)
    raise DataError(f"{path} is of no form lab3 reads; data must be {FORMS}")


def _dataset(arrays: Arrays, source: str, file: Path | None = None) -> Dataset:
    images_nhwc, labels_n, class_names = arrays
    if file is not None:
        sha256 = sha256_file(file)
    else:
        digest = hashlib.sha256(np.ascontiguousarray(images_nhwc).data)
        digest.update(np.ascontiguousarray(labels_n).data)
        sha256 = digest.hexdigest()
    return Dataset(images_nhwc, labels_n, class_names, source, sha256)


def _load_digits(split: Split) -> Arrays:
    from sklearn.datasets import load_digits

    digits = load_digits()
    # Every fourth image of a class is for testing: stratified, and the same on every machine and version.
    position_n = np.zeros(len(digits.target), np.int64)
    for label in range(10):
        members = np.flatnonzero(digits.target == label)
        position_n[members] = np.arange(len(members))
    chosen = (position_n % 4 == 3) == (split == "test")
    images_nhwc = digits.images[chosen][..., np.newaxis].astype(np.uint8)
    return images_nhwc, digits.target[chosen].astype(np.int64), tuple("0123456789")


def _load_keras_cifar10(split: Split) -> Arrays:
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
    return images_nhwc, labels_n1.reshape(-1).astype(np.int64), CIFAR10_CLASSES


def _read_npz(path: Path, split: Split) -> Arrays:
    names = (f"x_{split}", f"y_{split}")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if problem := problem_of_zip(archive.zip.infolist()):
                raise DataError(f"{path}: {problem}")
            # NumPy's names are without .npy: one could stand for two members.
            if any(archive.files.count(name) != 1 for name in names):
                raise DataError(
                    f"{path}: must hold the arrays {' and '.join(names)} (Keras layout), got {', '.join(archive.files)}"
                )
            images_nhwc, labels_n = archive[names[0]], archive[names[1]]
            if not isinstance(images_nhwc, np.ndarray) or not isinstance(labels_n, np.ndarray):
                raise ValueError(f"{' and '.join(names)} must be arrays")
    except DataError:
        raise
    except Exception as error:
        # NumPy lets everything from zipfile, zlib and its own parser through.
        raise DataError(f"{path}: not a readable .npz without pickled objects ({one_line(error)})") from error
    return _check_arrays(path, names, images_nhwc, labels_n)


def _check_arrays(path: Path, names: tuple[str, ...], images_nhwc: np.ndarray, labels_n: np.ndarray) -> Arrays:
    if images_nhwc.ndim == 3:
        images_nhwc = images_nhwc[..., np.newaxis]
    if images_nhwc.ndim != 4 or not (images_nhwc.dtype == np.uint8 or np.issubdtype(images_nhwc.dtype, np.floating)):
        raise DataError(
            f"{path}: {names[0]} must be uint8 or float (N, H, W, C), got {images_nhwc.dtype} {images_nhwc.shape}"
        )
    if labels_n.ndim == 2 and labels_n.shape[1] == 1:
        labels_n = labels_n[:, 0]
    if labels_n.ndim != 1 or not np.issubdtype(labels_n.dtype, np.integer):
        raise DataError(
            f"{path}: {names[1]} must be whole numbers (N,) or (N, 1), got {labels_n.dtype} {labels_n.shape}"
        )
    if images_nhwc.dtype != np.uint8:
        with np.errstate(over="ignore"):
            # What becomes infinite is told by check_dataset.
            images_nhwc = images_nhwc.astype(np.float32)
    return images_nhwc, labels_n.astype(np.int64), None
