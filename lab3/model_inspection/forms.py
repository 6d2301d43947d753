"""The two forms of model files, `.h5` and `.keras`, opened with h5py and zipfile alone."""

import io
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lab3.errors import ModelError
from lab3.foreign import one_line, problem_of_zip
from lab3.model_inspection.configuration import check_config_bytes, parse_configuration
from lab3.model_inspection.hdf5 import count_values
from lab3.model_inspection.limits import ModelLimits

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


@dataclass(frozen=True)
class InspectedModel:
    """`configuration`: the model's JSON, every class in it allowed. `n_values`: numbers in the file's arrays."""

    configuration: dict[str, Any]
    n_values: int


def inspect_model_file(path: Path, limits: ModelLimits, allow_classes: Collection[str] = ()) -> InspectedModel:
    """What `path` holds, seen without Keras.

    `allow_classes`: names of classes that may be loaded besides Keras's own. Raises `ModelError` if the file is
    missing, of another form, damaged, too large, leads out of itself or names a class that may not be loaded.
    """
    check_is_file(path)
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        raise ModelError(f"{path}: a model file must end in .h5 or .keras, got {path.suffix or 'no ending'!r}")
    try:
        inspect = _inspect_keras if path.suffix == ".keras" else _inspect_hdf5
        return inspect(path, limits, allow_classes)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    except Exception as error:
        # h5py and zipfile let everything from HDF5, zlib and their own parsers through.
        form = ".keras" if path.suffix == ".keras" else "HDF5"
        raise ModelError(f"{path}: not a whole {form} file ({one_line(error)}); copy or save it again") from error


def check_is_file(path: Path) -> None:
    """Raise `ModelError` unless there is a file at `path`."""
    try:
        is_file = path.is_file()
    except OSError:
        # A name can be too long to be asked for.
        is_file = False
    if not is_file:
        raise ModelError(f"{str(path)[:300]}: no such model file; give an .h5 or .keras file")


def _inspect_hdf5(path: Path, limits: ModelLimits, allow_classes: Collection[str]) -> InspectedModel:
    stored_bytes = path.stat().st_size
    with h5py.File(path, "r") as file:
        n_values = count_values(file, stored_bytes, limits)
        if "model_config" not in file.attrs:
            raise ModelError("must hold a whole model, got weights or other data; save it with model.save()")
        text = file.attrs["model_config"]
    if not isinstance(text, str | bytes):
        raise ModelError("its configuration must be text; save it again with model.save()")
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return InspectedModel(parse_configuration(content, limits, allow_classes), n_values)


def _inspect_keras(path: Path, limits: ModelLimits, allow_classes: Collection[str]) -> InspectedModel:
    stored_bytes = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if problem := problem_of_zip(members, stored_bytes, limits.bytes, "model.max_bytes"):
            raise ModelError(problem)
        if {member.filename for member in members} != {_CONFIG, _METADATA, _WEIGHTS}:
            raise ModelError(
                f"must hold {_CONFIG}, {_METADATA} and {_WEIGHTS}, "
                f"got {', '.join(member.filename[:60] for member in members[:6]) or 'nothing'}; "
                "save it again with model.save()"
            )
        for name in (_CONFIG, _METADATA):
            check_config_bytes(archive.getinfo(name).file_size, limits)
        configuration = parse_configuration(archive.read(_CONFIG), limits, allow_classes)
        archive.read(_METADATA)
        weights = archive.read(_WEIGHTS)
    with h5py.File(io.BytesIO(weights), "r") as file:
        n_values = count_values(file, stored_bytes, limits)
    return InspectedModel(configuration, n_values)
