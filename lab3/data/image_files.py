"""Image files as `<class>/<name>.jpg|png` in a folder or a `.zip`, optionally below `train/` and `test/`."""

import io
import os
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image

from lab3.errors import DataError
from lab3.storage import allocate, blocks_of, release

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MEMORY_MB = 64
_MODES = {"rgb": "RGB", "grayscale": "L"}


def read_image_files(
    path: Path, split: Literal["train", "test"], color: Literal["rgb", "grayscale"]
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """uint8 images `(N, H, W, C)`, int64 labels `(N,)` and class names in alphabetical order, files in order of name.

    Raises `DataError` if there are no such files, one cannot be decoded, or two differ in size.
    """
    with _open(path) as (names, read):
        files = _split_files(names, split, path)
        class_names = tuple(sorted({name.split("/")[-2] for name in files}))
        first = _decode(read(files[0]), files[0], color)
        images_nhwc = allocate((len(files), *first.shape), first.dtype, _MEMORY_MB)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in blocks_of(len(files), 1000):
                decoded = pool.map(lambda name: _decode(read(name), name, color), files[rows])
                for number, image in enumerate(decoded, start=rows.start):
                    if image.shape != first.shape:
                        raise DataError(
                            f"{path}: all images must be of one size, got {_size(first)} for {files[0]} and "
                            f"{_size(image)} for {files[number]}; resize them to the model's input"
                        )
                    images_nhwc[number] = image
                release(images_nhwc)
    labels_n = np.array([class_names.index(name.split("/")[-2]) for name in files], np.int64)
    return images_nhwc, labels_n, class_names


@contextmanager
def _open(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    if path.is_dir():
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        yield names, lambda name: (path / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            yield [name for name in archive.namelist() if not name.endswith("/")], archive.read
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a whole .zip file ({error})") from error


def _split_files(names: list[str], split: str, path: Path) -> list[str]:
    parts = {name: PurePosixPath(name).parts for name in names}
    images = sorted(
        name
        for name, folders in parts.items()
        if name.lower().endswith(_SUFFIXES) and not any(part.startswith((".", "__MACOSX")) for part in folders)
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


def _decode(content: bytes, name: str, color: Literal["rgb", "grayscale"]) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            pixels = np.asarray(image.convert(_MODES[color]))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: not a readable JPEG or PNG ({error})") from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _size(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
