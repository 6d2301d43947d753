"""The record of a sweep: append-only JSON lines, one point each, durable before `append` returns.

The first line is a header. Every line ends with the CRC-32 of what stands before it, so a torn last line (a crash, a
full disk) is recognised and cut when the journal is opened again; a damaged line before the last one is an error.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab3.base.files import fsync_folder
from lab3.base.reading import differences, reading
from lab3.errors import RunStateError

Row = dict[str, Any]
_FORMAT: Row = {"journal": 1}


class Journal:
    """An open journal. Get one from `open_journal`."""

    def __init__(self, path: Path, descriptor: int, rows: list[Row]) -> None:
        self.path = path
        self.header: Row = rows[0]
        self.rows: list[Row] = rows[1:]
        self._descriptor = descriptor
        self._n_bytes = os.fstat(descriptor).st_size

    def append(self, row: Row) -> None:
        """Write one row and return once it is on the disk; raises `OSError`, with nothing of it left, if it is not.

        Raises as `check_untouched` does.
        """
        self.check_untouched()
        _append_line(self._descriptor, row)
        self._n_bytes = os.fstat(self._descriptor).st_size
        self.rows.append(row)

    def check_untouched(self) -> None:
        """Raise `RunStateError` if anything else replaced, cut or added to the file, `OSError` if it was removed."""
        here, there = os.fstat(self._descriptor), self.path.stat()
        if not os.path.samestat(here, there) or here.st_size != self._n_bytes:
            raise RunStateError(
                f"{self.path} must be written by nothing else, but was replaced, or is no longer {self._n_bytes:,} "
                f"bytes long but {there.st_size:,}; put back what it was and resume, or start a new run"
            )


@contextmanager
def open_journal(path: Path, header: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal at `path`, made with `header` where there is none; hold the run's lock meanwhile.

    Raises `RunStateError` if the header differs or a line before the last is damaged.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        rows, valid_bytes = _parse(path.read_bytes(), path)
        check_header(path, rows, header)
        os.ftruncate(descriptor, valid_bytes)
        if not rows:
            rows = [{**_FORMAT, **header}]
            _append_line(descriptor, rows[0])
            fsync_folder(path.parent)
        journal = Journal(path, descriptor, rows)
        yield journal
        journal.check_untouched()
    finally:
        os.close(descriptor)


def check_header(path: Path, lines: Sequence[Row], header: Mapping[str, Any]) -> None:
    """Raise `RunStateError` if the journal at `path`, with these `lines`, was started with another header."""
    if lines and (changed := differences(lines[0], {**_FORMAT, **header})):
        raise RunStateError(f"{path} was started with other settings: {'; '.join(changed)}; start a new run instead")


def read_journal(path: Path) -> list[Row]:
    """The rows in the journal at `path` in the order they were written, header and torn last line left out."""
    return read_lines(path)[1:]


def read_lines(path: Path) -> list[Row]:
    """The header, if it was written, and the rows in the journal at `path`; a torn last line is left out.

    Raises `RunStateError` if another line is damaged.
    """
    with reading(path):
        rows, _ = _parse(path.read_bytes(), path)
        return rows


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a row to a file of rows without a header, durably; a torn last line is cut off first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        _, valid_bytes = _parse(path.read_bytes(), path)
        os.ftruncate(descriptor, valid_bytes)
        _append_line(descriptor, row)
    finally:
        os.close(descriptor)
    fsync_folder(path.parent)


def read_rows(path: Path) -> list[Row]:
    """The rows of `append_row`, a torn last one left out. Raises `RunStateError` if another is damaged."""
    return read_lines(path)


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One line of a journal: the row as JSON with its checksum as the last member."""
    body = json.dumps(row, separators=(",", ":"), allow_nan=False)
    return f'{body[:-1]},"crc32":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode_row(line: bytes) -> Row | None:
    """The row in one line, None if the line is not intact."""
    head, mark, tail = line.rpartition(b',"crc32":"')
    body = head + b"}"
    if not mark or tail != f'{zlib.crc32(body):08x}"}}\n'.encode():
        return None
    try:
        row = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _append_line(descriptor: int, row: Mapping[str, Any]) -> None:
    line = encode_row(row)
    start = os.fstat(descriptor).st_size
    # A full disk can write a part of the line and report no error.
    n_written = os.write(descriptor, line)
    if n_written != len(line):
        os.ftruncate(descriptor, start)
        raise OSError(errno.ENOSPC, f"only {n_written} of {len(line)} bytes of a journal line could be written")
    os.fsync(descriptor)


def _parse(content: bytes, path: Path) -> tuple[list[Row], int]:
    rows: list[Row] = []
    valid_bytes = 0
    lines = content.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        row = decode_row(line)
        if row is None:
            if number < len(lines):
                raise RunStateError(
                    f"{path} line {number} of {len(lines)} is damaged (its checksum does not fit); "
                    f"delete from that line on and resume, and those points are computed again"
                )
            break
        rows.append(row)
        valid_bytes += len(line)
    return rows, valid_bytes
