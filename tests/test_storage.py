"""Arrays in files: the same content, no memory, and a clear error where there is no room."""

import errno
import mmap
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab3.base.arrays import allocate, blocks_of, read_rows, release
from lab3.errors import RunStateError


def resident_kb() -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def test_a_large_array_lies_in_a_file_and_keeps_its_content_when_released() -> None:
    small = allocate((10, 3), np.dtype(np.float32), 1)
    assert not isinstance(small.base, mmap.mmap)
    large = allocate((64, 2**20), np.dtype(np.uint8), 1)
    assert isinstance(large.base, mmap.mmap)
    before = resident_kb()
    for rows in blocks_of(64, 8):
        large[rows] = np.arange(rows.start, rows.stop, dtype=np.uint8)[:, np.newaxis]
        release(large[:, :-1])
    assert resident_kb() - before < 16 * 1024
    assert read_rows(large, slice(3, 5))[:, 12345].tolist() == [3, 4]
    assert read_rows(large, np.array([9, 60]))[:, 12345].tolist() == [9, 60]
    assert resident_kb() - before < 16 * 1024
    small[:] = 1
    assert read_rows(small, np.array([2])).tolist() == [[1, 1, 1]]


def test_no_room_for_a_temporary_file_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(RunStateError, match=r"must have 64 MB free .*; free some, or set TMPDIR to another folder"):
        allocate((64, 2**20), np.dtype(np.uint8), 1)


def test_blocks_cover_everything_once() -> None:
    assert [(rows.start, rows.stop) for rows in blocks_of(5, 2)] == [(0, 2), (2, 4), (4, 5)]
