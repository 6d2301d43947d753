"""The forms of model files, `.h5` and `.keras`, opened with h5py and zipfile alone, and what other files are."""

import io
import json
import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lab3.errors import ModelError
from lab3.foreign import one_line, problem_of_zip
from lab3.model_inspection.configuration import parse_configuration
from lab3.model_inspection.hdf5 import list_arrays, names_listed

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_ENDINGS = (".h5", ".hdf5", ".keras")
_FETCH = "copy or download the file again"
_ONNX = ("an ONNX model", "give the Keras model that it was exported from")
_TFLITE = ("a TensorFlow Lite model", "give the Keras model that it was converted from")
_TORCH = ("a PyTorch model", "build the network in Keras, copy the weights into it and save it with model.save()")
_SAVED_MODEL = (
    "a SavedModel",
    "load it where it was made with tf.keras.models.load_model (TensorFlow 2.15 or before) and save it as model.h5",
)
_OF_ENDING = {".onnx": _ONNX, ".tflite": _TFLITE, ".pt": _TORCH, ".pth": _TORCH, ".pb": _SAVED_MODEL}


@dataclass(frozen=True)
class InspectedModel:
    """A file's configuration in the words of Keras 3, every class in it allowed, and its weights, not yet read.

    `arrays`: `h5py.Dataset` by path. `layers`: for an `.h5`, the paths of each layer's weights, in order, by its name;
    None for a `.keras` file, whose paths say which layer they are of.
    """

    configuration: dict[str, Any]
    arrays: dict[str, Any]
    layers: dict[str, list[str]] | None


@contextmanager
def inspect_model_file(path: Path, allow_classes: Collection[str] = ()) -> Iterator[InspectedModel]:
    """What `path` holds, seen without Keras; the file is open in the meantime.

    `allow_classes`: names of classes that may be loaded besides Keras's own. Raises `ModelError` if the file is
    missing, of another form, damaged, leads out of itself or names a class that may not be loaded.
    """
    check_is_file(path)
    is_zip = False
    with ExitStack() as stack:
        try:
            _check_form(path)
            is_zip = path.suffix == ".keras" if not h5py.is_hdf5(path) else False
            inspected = (_inspect_keras if is_zip else _inspect_hdf5)(path, allow_classes, stack)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        except Exception as error:
            # h5py and zipfile let everything from HDF5, zlib and their own parsers through.
            form = ".keras" if is_zip else "HDF5"
            raise ModelError(f"{path}: not a whole {form} file ({one_line(error)}); {_FETCH}") from error
        yield inspected


def check_is_file(path: Path) -> None:
    """Raise `ModelError` unless there is a file at `path`."""
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError:
        # A name can be too long to be asked for.
        is_file = is_folder = False
    shown = str(path)[:300]
    if is_folder:
        what, advice = ("a folder", "give the .h5 or .keras file itself")
        if (path / "saved_model.pb").exists():
            what, advice = f"{_SAVED_MODEL[0]} folder", _SAVED_MODEL[1]
        raise ModelError(f"{shown}: a model must be an .h5 or .keras file, got {what}; {advice}")
    if not is_file:
        raise ModelError(f"{shown}: no such model file; give an .h5 or .keras file")


def _check_form(path: Path) -> None:
    """Raise `ModelError` if name or first bytes say that the file is something else."""
    what, advice = _other_form(path) or _OF_ENDING.get(path.suffix.lower(), (None, None))
    if path.suffix not in _ENDINGS:
        seen = f", {what}; {advice}" if what else ""
        raise ModelError(f"a model file must end in .h5 or .keras, got {path.suffix or 'no ending'!r}{seen}")
    if what:
        raise ModelError(f"must be a Keras model in an .h5 or .keras file, got {what}; {advice}")


def _other_form(path: Path) -> tuple[str, str] | None:
    """What a file is that is no Keras model, and what to do, where its first bytes tell."""
    with path.open("rb") as file:
        head = file.read(256)
    if not head:
        return "an empty file", _FETCH
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to the model", "run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page", "download the file that the page is about"
    if head[4:8] == b"TFL3":
        return _TFLITE
    if head.startswith(b"\x08") and (b"onnx" in head or b"pytorch" in head):
        return _ONNX
    is_torch = head.startswith(b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    return _TORCH if is_torch else None


def _inspect_hdf5(path: Path, allow_classes: Collection[str], stack: ExitStack) -> InspectedModel:
    file = stack.enter_context(h5py.File(path, "r"))
    arrays = list_arrays(file)
    if "model_config" not in file.attrs:
        raise ModelError(
            "must hold a whole model, got weights or other data; load the weights into the model in the program that "
            "made it, and save that with model.save()"
        )
    text, version = file.attrs["model_config"], file.attrs.get("keras_version", b"1")
    if not isinstance(text, str | bytes):
        raise ModelError("its configuration must be text; save it again with model.save()")
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    is_keras_2 = (version if isinstance(version, str) else bytes(version).decode()) < "3"
    layers = {
        name: [
            f"model_weights/{name}/{weight}" for weight in names_listed(file, f"model_weights/{name}", "weight_names")
        ]
        for name in names_listed(file, "model_weights", "layer_names")
    }
    weights = {name: array for name, array in arrays.items() if name.startswith("model_weights/")}
    return InspectedModel(parse_configuration(content, is_keras_2, allow_classes), weights, layers)


def _inspect_keras(path: Path, allow_classes: Collection[str], stack: ExitStack) -> InspectedModel:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if problem := problem_of_zip(members):
            raise ModelError(problem)
        if {member.filename for member in members} != {_CONFIG, _METADATA, _WEIGHTS}:
            raise ModelError(
                f"must hold {_CONFIG}, {_METADATA} and {_WEIGHTS}, "
                f"got {', '.join(member.filename[:60] for member in members[:6]) or 'nothing'}; "
                "save it again with model.save()"
            )
        metadata = json.loads(archive.read(_METADATA))
        text, content = archive.read(_CONFIG), archive.read(_WEIGHTS)
    is_keras_2 = str(metadata.get("keras_version")) < "3"
    file = stack.enter_context(h5py.File(io.BytesIO(content), "r"))
    # What lies elsewhere is the state of optimizers and metrics.
    weights = {name: array for name, array in list_arrays(file).items() if name.startswith(("layers/", "vars/"))}
    return InspectedModel(parse_configuration(text, is_keras_2, allow_classes), weights, None)
