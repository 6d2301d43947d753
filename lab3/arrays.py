"""Arrays that lab3 has written, read back from a folder that can be a stranger's."""

import zipfile
from pathlib import Path

import numpy as np

from lab3.foreign import problem_of_zip


def read_arrays(path: Path, *, is_compressed: bool = False) -> dict[str, np.ndarray]:
    """The arrays by name of an .npz that lab3 has written; nothing else of a stranger's is read.

    Raises `ValueError` if lab3 would not have written it, and whatever zipfile, zlib and NumPy raise.
    """
    with path.open("rb") as file:
        stored_bytes = path.stat().st_size
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        if problem := problem_of_zip(members, stored_bytes):
            raise ValueError(problem)
        if not is_compressed and sum(member.file_size for member in members) > stored_bytes:
            raise ValueError("its arrays must not be compressed: lab3 writes no such file")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    if not all(isinstance(array, np.ndarray) for array in found.values()):
        raise ValueError("it must hold arrays only")
    return found
