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
_BLOCK_BYTES = 2**27  # decoded before they are handed on
_MODES = {"rgb": "RGB", "grayscale": "L"}


def read_image_files(
    path: Path, split: Literal["train", "test"], color: Literal["rgb", "grayscale"]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """uint8 images `(N, H, W, C)`, int64 labels `(N,)` and class names in alphabetical order, files in order of name.

    Raises `DataError` if there are no such files, one cannot be decoded or is a link to another place, or two differ in
    size.
    """
    with _open(path) as (names, read), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        files = _split_files(names, split, path)
        class_names = tuple(sorted({name.split("/")[-2] for name in files}))
        first = _decode(read(files[0]), files[0], color)
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
def _open(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names of the files, and how to get the content of one."""
    if path.is_dir():
        yield _files_below(path), lambda name: (path / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            if problem := problem_of_zip(archive.infolist()):
                raise DataError(f"{path}: {problem}")
            yield [name for name in archive.namelist() if not name.endswith("/")], archive.read
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
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


def _split_files(names: list[str], split: str, path: Path) -> list[str]:
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
            if first is not None and first[1].shape[1::-1] != image.size:
                raise DataError(
                    "all images must be of one size, got {1}x{0} for {2} and {3}x{4} for {5}; resize them to the "
                    "model's input".format(*first[1].shape[:2], first[0], *image.size, name)
                )
            pixels = np.asarray(image.convert(_MODES[color]))
    except DataError:
        raise
    except Exception as error:
        # A damaged image can raise almost anything.
        raise DataError(f"{name}: not a readable JPEG or PNG ({one_line(error)})") from error
    return pixels.reshape(*pixels.shape[:2], -1)
