"""The record of a sweep: append-only JSON lines, one point each, durable before `append` returns.

The first line is a header. Every line ends with the CRC-32 of what stands before it, so a torn last line (a crash, a
full disk) is recognised and cut when the journal is opened again; a damaged line before the last one is an error.
"""

import errno
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab3.errors import RunStateError
from lab3.files import fsync_folder

Row = dict[str, Any]


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
        """Raise `RunStateError` if the file was replaced, cut or added to by anything else, `OSError` if it is gone."""
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
        if rows:
            _check_header(rows[0], header, path)
        os.ftruncate(descriptor, valid_bytes)
        if not rows:
            _append_line(descriptor, dict(header))
            fsync_folder(path.parent)
            rows = [dict(header)]
        journal = Journal(path, descriptor, rows)
        yield journal
        journal.check_untouched()
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> list[Row]:
    """The points in the journal at `path` in the order they were written, header and torn last line left out."""
    rows, _ = _parse(path.read_bytes(), path)
    return rows[1:]


def read_lines(path: Path, *, is_finished: bool) -> list[Row]:
    """The header, if it was written, and the points in the journal at `path` in the order they were written.

    Raises `RunStateError` if a line is damaged; in the journal of a finished run that can be the last one too.
    """
    content = path.read_bytes()
    rows, valid_bytes = _parse(content, path)
    if is_finished and not 0 < valid_bytes == len(content):
        raise RunStateError(
            f"{path} must end with a whole line, but behind byte {valid_bytes} of {len(content)} the checksum does not "
            "fit; delete what is behind it and summary.json, and resume"
        )
    return rows


def encode_row(row: Mapping[str, Any]) -> bytes:
    """One line of a journal: the row as JSON with its checksum as the last member."""
    body = json.dumps(row, separators=(",", ":"), allow_nan=False)
    return f'{body[:-1]},"crc32":"{zlib.crc32(body.encode()):08x}"}}\n'.encode()


def decode_row(line: bytes) -> Row | None:
    """The row in one line, None if the line is not whole."""
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


def _check_header(found: Row, expected: Mapping[str, Any], path: Path) -> None:
    then, now = flatten(found), flatten(expected)
    differences = [
        f"{key} was {then.get(key)!r}, now {now.get(key)!r}" for key in {**now, **then} if then.get(key) != now.get(key)
    ]
    if differences:
        raise RunStateError(f"{path} was begun with other settings: {'; '.join(differences)}; start a new run instead")


def flatten(header: Mapping[str, Any]) -> Row:
    """The header with the members of its mappings as members of their own."""
    flat: Row = {}
    for key, value in header.items():
        flat.update(value if isinstance(value, dict) else {key: value})
    return flat
