"""The official CIFAR-10 python archive, `cifar-10-python.tar.gz`, or the folder it unpacks to.

Its batches are pickles, which can hold code. There is one such archive, so nothing is unpickled but bytes whose hash is
known to be its own. MD5, which its publisher gives, is enough for that: two new files with one hash can be made, but
not another file with the hash of a file that is there.
Source: https://www.cs.toronto.edu/~kriz/cifar.html (row-major, channels first).
"""

import hashlib
import io
import pickle
import tarfile
import warnings
from pathlib import Path
from typing import Literal

import numpy as np

from lab3.errors import DataError

ARCHIVE_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
BATCH_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
_FOLDER = "cifar-10-batches-py"


def is_cifar(path: Path) -> bool:
    """True where `path` is a tar archive by its name, or the folder that CIFAR-10's unpacks to."""
    return path.name.endswith((".tar.gz", ".tgz", ".tar")) or (_folder_of(path) / "test_batch").is_file()


def read_cifar(path: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(N, 32, 32, 3)` and int64 labels `(N,)` of one split, without unpacking to disk.

    Raises `DataError` if the file or one in the folder is another than the archive's, `OSError` if it cannot be read.
    """
    names = [name for name in BATCH_MD5 if (name == "test_batch") == (split == "test")]
    folder = _folder_of(path)
    contents = [(folder / name).read_bytes() for name in names] if path.is_dir() else _read_archive(path, names)
    images, labels = [], []
    for name, content in zip(names, contents, strict=True):
        _check_hash(path / name, "MD5", BATCH_MD5[name], hashlib.md5(content, usedforsecurity=False).hexdigest())
        with warnings.catch_warnings():
            # NumPy of today on how NumPy of then wrote its arrays.
            warnings.simplefilter("ignore")
            batch = pickle.loads(content, encoding="bytes")
        images.append(batch[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(np.array(batch[b"labels"], np.int64))
    return np.concatenate(images), np.concatenate(labels)


def _folder_of(path: Path) -> Path:
    return path if (path / "test_batch").is_file() else path / _FOLDER


def _read_archive(path: Path, names: list[str]) -> list[bytes]:
    content = path.read_bytes()
    _check_hash(path, "SHA-256", ARCHIVE_SHA256, hashlib.sha256(content).hexdigest())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return [archive.extractfile(f"{_FOLDER}/{name}").read() for name in names]  # type: ignore[union-attr]


def _check_hash(path: Path, kind: str, expected: str, found: str) -> None:
    if found != expected:
        raise DataError(
            f"{path}: lab3 reads the one CIFAR-10 archive, cifar-10-python.tar.gz, and the folder it unpacks to, here "
            f"of {kind} {expected}, got {found}; fetch it again, or convert yours to .npz"
        )
