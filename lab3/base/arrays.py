"""Large arrays with a row per image: in memory where small, else in a nameless file of which memory holds little."""

import errno
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from lab3.errors import RunStateError


def allocate(shape: tuple[int, ...], dtype: np.dtype, memory_mb: float) -> np.ndarray:
    """A new array; above `memory_mb` megabytes it lies in a temporary file that vanishes with the array.

    Raises `RunStateError` where the file has no room.
    """
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if n_bytes <= memory_mb * 2**20:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix="lab3-") as file:
        try:
            if hasattr(os, "posix_fallocate"):
                # Room is taken at once: a full disk would otherwise end the process at some later write to the map.
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                os.ftruncate(file.fileno(), n_bytes)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise RunStateError(
                f"the folder for temporary files, {tempfile.gettempdir()}, must have {n_bytes / 2**20:,.0f} MB free "
                "for images or features; free some, or set TMPDIR to another folder"
            ) from error
        return np.ndarray(shape, dtype, buffer=mmap.mmap(file.fileno(), n_bytes))


def read_rows(array: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
    """A copy of some rows; of an array in a file nothing else stays in memory."""
    if isinstance(rows, slice) or _map_of(array) is None:
        chosen = np.array(array[rows])
        release(array)
        return chosen
    chosen = np.empty((len(rows), *array.shape[1:]), array.dtype)
    for number, row in enumerate(rows):
        # The kernel maps much around each row; all of it together would be the whole array.
        chosen[number] = array[row]
        release(array)
    return chosen


def release(array: np.ndarray) -> None:
    """Take out of memory what was read or written of an array in a file. The content stays."""
    mapped = _map_of(array)
    if mapped is not None:
        mapped.madvise(mmap.MADV_DONTNEED)


def _map_of(array: np.ndarray) -> mmap.mmap | None:
    """The file that an array, or what it is a part of, lies in."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def blocks_of(n: int, batch_size: int) -> Iterator[slice]:
    """Slices of at most `batch_size` that cover 0..n-1.

    >>> list(blocks_of(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, n, batch_size):
        yield slice(start, min(start + batch_size, n))
