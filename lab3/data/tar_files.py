"""Members of a tar archive in turn, found by their headers of 512 bytes alone.

`tarfile` is not used: it follows extended headers, maps of sparse files and negative sizes wherever they lead.
"""

import gzip
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from lab3.errors import DataError
from lab3.foreign import problem_of_path, problem_of_size

_BLOCK = 512
_CHUNK = 2**20
_MOST_MEMBERS = 1_000  # the CIFAR-10 archive has 9
_FILES = (b"0", b"\0")
_FOLDER = b"5"
_PAX = (b"x", b"g")  # times and owners to fractions, as Python and macOS pack them; nothing in them is needed
_LONG_NAMES = (b"L", b"K")


def read_members(path: Path, wanted: Collection[str], most_bytes: int) -> Iterator[tuple[str, bytes]]:
    """Last part of the name, and content, of each file whose name ends in one of `wanted`; the rest is passed over.

    Raises `DataError` for links, devices, names that lead out of the archive, a wanted file of more than `most_bytes`,
    and content far larger than the file; `ValueError`, or what gzip raises, for an archive that is not whole.
    """
    n_bytes = 0
    with _open_stream(path) as stream:
        for _ in range(_MOST_MEMBERS):
            header = stream.read(_BLOCK)
            if not header.strip(b"\0"):
                return
            full_name, kind, size = _parse(header)
            if problem := problem_of_path(full_name) or _problem_of_kind(kind, full_name):
                raise DataError(f"{path}: {problem}")
            padded = size + -size % _BLOCK
            n_bytes += _BLOCK + padded
            # Whatever comes after this member is found by decompressing it.
            if problem := problem_of_size(n_bytes, path.stat().st_size):
                raise DataError(f"{path}: {problem}")
            name = PurePosixPath(full_name).name
            if name in wanted and kind in _FILES:
                if size > most_bytes:
                    raise DataError(
                        f"{path}: {name} must have at most {most_bytes:,} bytes, got {size:,}; fetch the archive again"
                    )
                content = stream.read(size)
                yield name, content
                padded -= len(content)
            _pass_over(stream, padded, full_name)
    raise DataError(f"{path}: an archive must have at most {_MOST_MEMBERS:,} members, got more; fetch it again")


def _open_stream(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        is_compressed = file.read(2) == b"\x1f\x8b"
    return gzip.GzipFile(path) if is_compressed else path.open("rb")


def _parse(header: bytes) -> tuple[str, bytes, int]:
    """Name, kind and size; POSIX, GNU and the oldest form have them at the same places."""
    if len(header) < _BLOCK:
        raise ValueError("it ends within a header")
    if _octal(header[148:156]) != sum(header[:148]) + 8 * ord(" ") + sum(header[156:]):
        raise ValueError("a header has a wrong checksum")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0" and header[345:500].strip(b"\0"):
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape"), header[156:157], _octal(header[124:136])


def _octal(field: bytes) -> int:
    # Larger and negative numbers have a form of their own, which no CIFAR-10 archive needs.
    if not re.fullmatch(rb" *[0-7]+[ \0]*", field):
        raise ValueError("a header has a number that is not octal")
    return int(field.strip(b" \0"), 8)


def _problem_of_kind(kind: bytes, name: str) -> str | None:
    if kind in _LONG_NAMES:
        return "names must have at most 100 letters, got a longer one; pack the archive again below a shorter folder"
    if kind not in (*_FILES, _FOLDER, *_PAX):
        return f"members must be files and folders, got a link or device, {name[:60]!r}; fetch the archive again"
    return None


def _pass_over(stream: gzip.GzipFile | io.BufferedReader, n_bytes: int, name: str) -> None:
    while n_bytes > 0:
        n_read = len(stream.read(min(n_bytes, _CHUNK)))
        if n_read == 0:
            raise ValueError(f"it ends within {name[:60]!r}")
        n_bytes -= n_read
