"""The official CIFAR-10 python archive, `cifar-10-python.tar.gz`, or the folder it unpacks to.

Its batches are pickles. They are read with an unpickler that can make NumPy arrays and nothing else.
Source: https://www.cs.toronto.edu/~kriz/cifar.html (row-major, channels first).
"""

import io
import pickle
import tarfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np

from lab3.errors import DataError

_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_ALLOWED = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")
    for name in ("_reconstruct", "ndarray", "dtype")
} | {("_codecs", "encode")}


def is_cifar_folder(path: Path) -> bool:
    """True where `path` holds the unpacked archive."""
    return (path / "test_batch").is_file() or (path / "cifar-10-batches-py" / "test_batch").is_file()


def read_cifar_folder(path: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(N, 32, 32, 3)` and int64 labels `(N,)` of one split."""
    folder = path if (path / "test_batch").is_file() else path / "cifar-10-batches-py"
    missing = [name for name in _BATCHES[split] if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing; unpack the CIFAR-10 python archive again")
    return _join([_decode((folder / name).read_bytes(), name) for name in _BATCHES[split]])


def read_cifar_archive(path: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(N, 32, 32, 3)` and int64 labels `(N,)` of one split, without unpacking to disk."""
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                if name in _BATCHES[split] and (file := archive.extractfile(member)) is not None:
                    batches[name] = _decode(file.read(), name)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{path}: not a whole tar archive ({error})") from error
    missing = [name for name in _BATCHES[split] if name not in batches]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; this must be the CIFAR-10 python archive")
    return _join([batches[name] for name in _BATCHES[split]])


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not an array")
        return super().find_class(module, name)


def _decode(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels = np.asarray(batch[b"data"], np.uint8)
        labels_n = np.asarray(batch[b"labels"], np.int64)
        return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels_n
    except Exception as error:
        # A damaged pickle can raise almost anything.
        raise DataError(f"{name}: not a batch of the CIFAR-10 python archive ({error})") from error


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate([images_nhwc for images_nhwc, _ in batches])
    return images, np.concatenate([labels_n for _, labels_n in batches])
