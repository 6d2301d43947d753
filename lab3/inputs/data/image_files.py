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

from lab3.base.arrays import allocate, blocks_of, release
from lab3.errors import DataError, one_line
from lab3.vocabulary import Color

_SUFFIXES = (".jpg", ".jpeg", ".png")
_MEMORY_MB = 64
_BLOCK_BYTES = 2**27  # decoded before they are handed on


def read_image_files(
    path: Path, split: Literal["train", "test"], color: Color
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """uint8 images `(N, H, W, C)`, int64 labels `(N,)` and class names in alphabetical order, files in order of name.

    Raises `DataError` if there are no such files, one cannot be decoded or is a link to another place, or two differ in
    size.
    """
    with _open(path) as (names, read), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        files = _split_files(names, split, path)
        first = _decode(read(files[0]), files[0], color)
        images_nhwc = allocate((len(files), *first.shape), first.dtype, _MEMORY_MB)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for rows in blocks_of(len(files), min(1000, 1 + _BLOCK_BYTES // first.nbytes)):
                decoded = pool.map(lambda name: _decode(read(name), name, color), files[rows])
                for number, image in enumerate(decoded, start=rows.start):
                    if image.shape != first.shape:
                        raise DataError(
                            "all images must be of one size, got {1}x{0} for {2} and {4}x{3} for {5}; resize them to "
                            "the model's input".format(*first.shape[:2], files[0], *image.shape[:2], files[number])
                        )
                    images_nhwc[number] = image
                release(images_nhwc)
    classes = [name.split("/")[-2] for name in files]
    class_names, labels_n = np.unique(classes, return_inverse=True)
    return images_nhwc, labels_n.astype(np.int64), tuple(class_names.tolist())


@contextmanager
def _open(path: Path) -> Iterator[tuple[list[str], Callable[[str], bytes]]]:
    """Names of the files, and how to get the content of one."""
    if path.is_dir():
        yield _files_below(path), lambda name: (path / name).read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            if len(set(names)) < len(names):
                raise DataError(f"{path}: members must have different names, got one twice; pack it again")
            yield names, archive.read
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not an intact .zip file ({one_line(error)})") from error


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
        if not file.is_dir():
            names.append(name)
    return names


def _split_files(names: list[str], split: str, path: Path) -> list[str]:
    parts = {name: PurePosixPath(name).parts for name in sorted(names) if name.lower().endswith(_SUFFIXES)}
    for name in [name for name in parts if any(part.startswith((".", "__MACOSX")) for part in parts[name])]:
        del parts[name]
    # A zipped folder has one more level at the top.
    while len(top := {each[0] for each in parts.values()}) == 1 and min(map(len, parts.values())) > 2:
        if top <= {"train", "test"} and max(map(len, parts.values())) == 3:
            break
        parts = {name: each[1:] for name, each in parts.items()}
    splits = {each[0] for each in parts.values() if len(each) == 3}
    if splits and splits <= {"train", "test"}:
        parts = {name: each[1:] for name, each in parts.items() if each[0] == split}
    misplaced = [name for name, each in parts.items() if len(each) != 2]
    if misplaced:
        raise DataError(f"{path}: images must lie at <class>/<name>, got {misplaced[0]}")
    if not parts:
        raise DataError(f"{path}: there must be at least one {split} image <class>/<name>.jpg|png, got none")
    return list(parts)


def _decode(content: bytes, name: str, color: Color) -> np.ndarray:
    """The pixels in an image file, `(H, W, C)`."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            pixels = np.asarray(image.convert("RGB" if color == "rgb" else "L"))
    except Exception as error:
        # A damaged image can raise almost anything.
        raise DataError(f"{name}: not a readable JPEG or PNG ({one_line(error)})") from error
    return pixels.reshape(*pixels.shape[:2], -1)
