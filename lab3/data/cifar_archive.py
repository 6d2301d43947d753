"""The official CIFAR-10 python archive, `cifar-10-python.tar.gz`, or the folder it unpacks to.

Its batches are pickles. They are read with an unpickler that makes no object but numbers, text, lists, dictionaries and
stand-ins for NumPy's arrays, whose bytes become arrays here.
Source: https://www.cs.toronto.edu/~kriz/cifar.html (row-major, channels first).
"""

import gzip
import io
import pickle
import pickletools
import re
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3.data.tar_files import read_members
from lab3.errors import DataError
from lab3.foreign import one_line

_BATCHES = {"train": [f"data_batch_{number}" for number in range(1, 6)], "test": ["test_batch"]}
_MOST_BATCH_BYTES = 64 * 2**20  # a batch has 31 MB
_MOST_OPCODES = 1_000_000  # a batch has about 60,000
_MOST_TUPLES = 1_000  # that no call takes up; an array has 3
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_GETS = ("GET", "BINGET", "LONG_BINGET")
_TUPLES = ("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_USED_AGAIN = ("UNICODE", "STRING", "BYTES", "GLOBAL", "REDUCE", "LIST", "DICT")  # or ending so
_ARRAY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


def is_cifar_folder(path: Path) -> bool:
    """True where `path` holds the unpacked archive."""
    return (path / "test_batch").is_file() or (path / "cifar-10-batches-py" / "test_batch").is_file()


def read_cifar_folder(path: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(N, 32, 32, 3)` and int64 labels `(N,)` of one split.

    Raises `DataError` if a batch is missing, a link, too large, or not a batch.
    """
    folder = path if (path / "test_batch").is_file() else path / "cifar-10-batches-py"
    missing = [name for name in _BATCHES[split] if not (folder / name).is_file()]
    if missing:
        raise DataError(f"{folder}: {', '.join(missing)} missing; unpack the CIFAR-10 python archive again")
    for name in _BATCHES[split]:
        if (folder / name).is_symlink():
            raise DataError(f"{folder / name}: batches must be files, got a link; unpack the archive again")
        if (n_bytes := (folder / name).stat().st_size) > _MOST_BATCH_BYTES:
            raise DataError(
                f"{folder / name}: must have at most {_MOST_BATCH_BYTES:,} bytes, got {n_bytes:,}; "
                "unpack the archive again"
            )
    return _join([_decode((folder / name).read_bytes(), name) for name in _BATCHES[split]])


def read_cifar_archive(path: Path, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images `(N, 32, 32, 3)` and int64 labels `(N,)` of one split, without unpacking to disk.

    Raises `DataError` if the archive is damaged, holds links, devices or names that lead out of it, or lacks a batch.
    """
    batches: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        for name, content in read_members(path, _BATCHES[split], _MOST_BATCH_BYTES):
            if name in batches:
                raise DataError(f"{path}: must hold each batch once, got {name} twice; fetch the archive again")
            batches[name] = _decode(content, name)
    except (EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise DataError(f"{path}: not a whole tar archive ({one_line(error)})") from error
    missing = [name for name in _BATCHES[split] if name not in batches]
    if missing:
        raise DataError(f"{path}: {', '.join(missing)} missing; this must be the CIFAR-10 python archive")
    return _join([batches[name] for name in _BATCHES[split]])


class _Array:
    """Stands for an array being unpickled; holds its bytes and makes nothing of them."""

    def __init__(self, *_: object) -> None:
        self.dtype, self.data = _Dtype(""), b""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.is_fortran, self.data = state


class _Dtype:
    """Stands for a dtype being unpickled."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


class _ArrayUnpickler(pickle.Unpickler):
    n_encoded = 0

    def find_class(self, module: str, name: str) -> Any:
        if module in _ARRAY_MODULES and name in ("_reconstruct", "ndarray"):
            return _Array
        if module in _ARRAY_MODULES and name == "dtype":
            return _Dtype
        if (module, name) == ("_codecs", "encode"):
            # How Python 3 pickles bytes for Python 2; a new function each time, which a pickle may do anything to.
            return lambda text, _encoding: self._encode(text)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not an array")

    def _encode(self, text: str) -> bytes:
        # One long text can be encoded any number of times.
        self.n_encoded += len(text)
        if self.n_encoded > _MOST_BATCH_BYTES:
            raise pickle.UnpicklingError(f"it encodes more than {_MOST_BATCH_BYTES:,} bytes")
        return str.encode(text, "latin1")


def _decode(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        _check_opcodes(content)
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels_n = _to_numpy(batch[b"data"]), _to_numpy(batch[b"labels"])
        return pixels.astype(np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels_n.astype(np.int64)
    except Exception as error:
        # A damaged pickle can raise almost anything.
        raise DataError(f"{name}: not a batch of the CIFAR-10 python archive ({one_line(error)})") from error


def _check_opcodes(content: bytes) -> None:
    """Raise `ValueError` for a pickle of endless steps, a huge table of earlier values, or tuples in tuples in tuples.

    To hash a tuple as a key, Python visits what is in it, as often as it is in it and without a limit to the depth.
    """
    n_tuples, previous = 0, ""
    may_use_again: dict[int, bool] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if count > _MOST_OPCODES or (opcode.name in _PUTS and int(argument or 0) > _MOST_OPCODES):
            raise ValueError(f"it has more than {_MOST_OPCODES:,} steps")
        if opcode.name in _PUTS:
            slot = len(may_use_again) if argument is None else int(argument)
            may_use_again[slot] = previous.endswith(_USED_AGAIN)
        n_tuples += (opcode.name in _TUPLES) - (opcode.name == "REDUCE")
        if (
            n_tuples > _MOST_TUPLES
            or opcode.name in ("DUP", "FROZENSET")
            or (opcode.name in _GETS and not may_use_again.get(int(argument or 0)))
        ):
            raise ValueError(f"step {count}, {opcode.name}, is not one of a batch's")
        if opcode.name != "FRAME":
            previous = opcode.name


def _to_numpy(value: Any) -> np.ndarray:
    if isinstance(value, list) and all(type(item) is int for item in value):
        return np.array(value, np.int64)
    if (
        isinstance(value, _Array)
        and re.fullmatch("[iu][1248]", value.dtype.code)
        and value.dtype.order in ("<", ">", "|")
    ):
        plain = np.frombuffer(value.data, np.dtype(value.dtype.order + value.dtype.code))
        return plain.reshape(value.shape, order="F" if value.is_fortran else "C")
    raise ValueError("it must hold an array of whole numbers and a list of labels")


def _join(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    images = np.concatenate([images_nhwc for images_nhwc, _ in batches])
    return images, np.concatenate([labels_n for _, labels_n in batches])
