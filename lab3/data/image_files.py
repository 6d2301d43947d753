"""Image files as `<class>/<name>.jpg|png` in a folder or a `.zip`, optionally below `train/` and `test/`."""

import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from lab3.errors import DataError
from lab3.foreign import one_line, problem_of_path, problem_of_zip
from lab3.storage import allocate, blocks_of, release

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MEMORY_MB = 64
_MOST_FILE_BYTES = 64 * 2**20
_MOST_PIXELS = 2**25  # more than any classifier's input by far; RGB in 100 MB
_MOST_EXPANSION = 500  # bytes of pixels for a byte stored; sketches as PNG come to 250
_FREE_EXPANSION = 64 * 2**20
_BLOCK_BYTES = 2**27  # decoded before they are handed on
_MOST_SCANS = 50  # a progressive JPEG has about 10
_MOST_FOLDERS = 8
_MODES = {"rgb": "RGB", "grayscale": "L"}


def read_image_files(
    path: Path, split: Literal["train", "test"], color: Literal["rgb", "grayscale"]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """uint8 images `(N, H, W, C)`, int64 labels `(N,)` and class names in alphabetical order, files in order of name.

    Raises `DataError` if there are no such files, one cannot be decoded or is a link to another place, or two differ in
    size.
    """
    with _open(path) as (names, size_of, read), warnings.catch_warnings():
        # Pillow only warns of what is refused here.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        files = _split_files(names, split, path)
        class_names = tuple(sorted({name.split("/")[-2] for name in files}))
        first = _decode(read(files[0]), files[0], color)
        _check_expansion(len(files) * first.nbytes, files, size_of, path)
        images_nhwc = allocate((len(files), *first.shape), first.dtype, _MEMORY_MB)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in blocks_of(len(files), min(1000, 1 + _BLOCK_BYTES // first.nbytes)):
                decoded = pool.map(lambda name: _decode(read(name), name, color, (files[0], first)), files[rows])
                for number, image in enumerate(decoded, start=rows.start):
                    images_nhwc[number] = image
                release(images_nhwc)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels_n = np.array([label_of[name.split("/")[-2]] for name in files], np.int64)
    return images_nhwc, labels_n, class_names


@contextmanager
def _open(path: Path) -> Iterator[tuple[list[str], Callable[[str], int], Callable[[str], bytes]]]:
    """Names of the files, and how to get the size that one is stored in, and its content."""
    if path.is_dir():
        yield (
            _files_below(path),
            lambda name: (path / name).stat().st_size,
            lambda name: _checked(name, (path / name).stat().st_size, (path / name).read_bytes),
        )
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if problem := problem_of_zip(archive.infolist(), path.stat().st_size):
                raise DataError(f"{path}: {problem}")
            yield (
                [name for name in archive.namelist() if not name.endswith("/")],
                lambda name: archive.getinfo(name).compress_size,
                lambda name: _checked(name, archive.getinfo(name).file_size, lambda: archive.read(name)),
            )
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path}: not a whole .zip file ({one_line(error)})") from error


def _files_below(folder: Path) -> list[str]:
    root = folder.resolve()
    names = []
    for file in folder.rglob("*"):
        name = file.relative_to(folder).as_posix()
        # Where links lead in a circle, this comes to no error; reading the file does.
        if file.is_symlink() and not Path(os.path.realpath(file)).is_relative_to(root):
            raise DataError(
                f"{folder}: images must lie in the folder, got {name!r}, a link to another place; copy them"
            )
        if file.is_file() or (file.is_symlink() and not file.exists()):
            if problem := problem_of_path(name):
                raise DataError(f"{folder}: {problem}")
            names.append(name)
    return names


def _checked(name: str, n_bytes: int, read: Callable[[], bytes]) -> bytes:
    if n_bytes > _MOST_FILE_BYTES:
        raise DataError(
            f"{name}: an image file must have at most {_MOST_FILE_BYTES:,} bytes, got {n_bytes:,}; resize it"
        )
    return read()


def _check_expansion(n_bytes: int, files: list[str], size_of: Callable[[str], int], path: Path) -> None:
    stored_bytes = sum(map(size_of, files))
    if path.is_file():
        # Members of a zip can share their bytes.
        stored_bytes = min(stored_bytes, path.stat().st_size)
    if n_bytes > max(_FREE_EXPANSION, _MOST_EXPANSION * stored_bytes):
        raise DataError(
            f"{path}: the images must have at most {_MOST_EXPANSION} times the bytes they are stored in, got "
            f"{n_bytes:,} bytes of pixels in {stored_bytes:,}, as in a decompression bomb; make them smaller"
        )


def _split_files(names: list[str], split: str, path: Path) -> list[str]:
    deep = [name for name in names if name.count("/") > _MOST_FOLDERS and name.lower().endswith(_SUFFIXES)]
    if deep:
        raise DataError(
            f"{path}: images must lie at most {_MOST_FOLDERS} folders deep, got {deep[0].count('/'):,} for one; "
            "move them to <class>/<name>"
        )
    parts = {name: PurePosixPath(name).parts for name in names if name.lower().endswith(_SUFFIXES)}
    images = sorted(
        name for name, folders in parts.items() if not any(part.startswith((".", "__MACOSX")) for part in folders)
    )
    # A folder zipped whole has one more level at the top.
    while images and min(len(parts[name]) for name in images) > 2 and len({parts[name][0] for name in images}) == 1:
        if parts[images[0]][0] in ("train", "test") and len(parts[images[0]]) == 3:
            break
        for name in images:
            parts[name] = parts[name][1:]
    splits = {parts[name][0] for name in images if len(parts[name]) == 3}
    if splits and splits <= {"train", "test"}:
        images = [name for name in images if parts[name][0] == split]
        depth = 3
    else:
        depth = 2
    misplaced = [name for name in images if len(parts[name]) != depth]
    if misplaced:
        raise DataError(f"{path}: images must lie at <class>/<name>, got {misplaced[0]}")
    if not images:
        raise DataError(f"{path}: there must be at least one {split} image <class>/<name>.jpg|png, got none")
    return images


def _decode(
    content: bytes,
    name: str,
    color: Literal["rgb", "grayscale"],
    first: tuple[str, np.ndarray] | None = None,
) -> np.ndarray:
    """The pixels in an image file, which must be of the size of `first`; nothing else is decoded."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            _check_size(image.size, name, first)
            if image.format != "PNG" and (n_scans := content.count(b"\xff\xda")) > _MOST_SCANS:
                raise DataError(f"{name}: a JPEG must have at most {_MOST_SCANS} scans, got {n_scans}; save it again")
            pixels = np.asarray(image.convert(_MODES[color]))
    except DataError:
        raise
    except Exception as error:
        # A damaged image can raise almost anything.
        raise DataError(f"{name}: not a readable JPEG or PNG ({one_line(error)})") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _check_size(size: tuple[int, int], name: str, first: tuple[str, np.ndarray] | None) -> None:
    width, height = size
    if width * height > _MOST_PIXELS:
        raise DataError(
            f"{name}: an image must have at most {_MOST_PIXELS:,} pixels, got {width}x{height}; "
            "resize it to the model's input"
        )
    if first is not None and first[1].shape[:2] != (height, width):
        first_name, pixels = first
        raise DataError(
            f"all images must be of one size, got {pixels.shape[1]}x{pixels.shape[0]} for {first_name} and "
            f"{width}x{height} for {name}; resize them to the model's input"
        )
