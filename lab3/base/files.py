"""Files that readers and crashes see as they were or as they are to be, never a part."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path`, with its ending, to write to; what is there at the end takes the place of `path` durably.

    >>> with replacing(Path("summary.json")) as temporary:
    ...     temporary.write_text("{}")
    """
    temporary = path.with_name(f".{os.getpid()}.tmp.{path.name}")
    try:
        yield temporary
        _fsync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file in one durable step."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def encode_json(values: Mapping[str, Any]) -> bytes:
    """The content of a JSON file of a run."""
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()


def fsync_folder(folder: Path) -> None:
    """Make new names in `folder` durable."""
    _fsync(folder)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
