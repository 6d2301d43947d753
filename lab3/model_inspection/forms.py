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
from lab3.foreign import one_line, problem_of_zip, sha256_file
from lab3.model_inspection.configuration import parse_configuration
from lab3.model_inspection.hdf5 import list_arrays, names_listed

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_FETCH = "copy or download the file again"
_ONNX = "an ONNX model; give the Keras model that it was exported from"
_TFLITE = "a TensorFlow Lite model; give the Keras model that it was converted from"
_TORCH = "a PyTorch model; build the network in Keras, copy the weights into it and save it with model.save()"
_LOAD_OLD = "load it with tf.keras.models.load_model of TensorFlow 2.15 or before, and save it as model.h5"
_OF_ENDING = {
    ".onnx": _ONNX, ".tflite": _TFLITE, ".pt": _TORCH, ".pth": _TORCH, ".pb": f"a TensorFlow graph; {_LOAD_OLD}",
}  # fmt: skip


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
def inspect_model_file(
    path: Path, allow_classes: Collection[str] = (), sha256: str | None = None
) -> Iterator[InspectedModel]:
    """What `path` holds, seen before Keras sees it; the file is open in the meantime.

    `allow_classes`: names of classes that may be loaded besides Keras's own. `sha256`: what the file's must be. Raises
    `ModelError` if the file is missing, of another form, damaged, not the one expected, leads out of itself or names a
    class that may not be loaded.
    """
    _check_is_file(path)
    if sha256 is not None and (found := sha256_file(path)) != sha256:
        raise ModelError(
            f"{path}: the file must have the SHA-256 of model.sha256, {sha256}, got {found}; fetch the file again"
        )
    with ExitStack() as stack:
        with path.open("rb") as start:
            head = start.read(256)
        # TensorFlow 2.12 wrote HDF5 under the name of .keras.
        is_zip = path.suffix == ".keras" and not head.startswith(b"\x89HDF")
        try:
            if problem := _problem_of_form(path, head):
                raise ModelError(problem)
            inspected = (_inspect_keras if is_zip else _inspect_hdf5)(path, allow_classes, stack)
        except ModelError as error:
            raise ModelError(f"{path}: {error}") from error
        except Exception as error:
            # h5py and zipfile let everything from HDF5, zlib and their own parsers through.
            form = ".keras" if is_zip else "HDF5"
            raise ModelError(f"{path}: not a whole {form} file ({one_line(error)}); {_FETCH}") from error
        yield inspected


def _check_is_file(path: Path) -> None:
    shown = str(path)[:300]
    try:
        is_file = path.is_file()
    except OSError:
        # A name can be too long to be asked for.
        is_file = False
    if (path / "saved_model.pb").is_file():
        raise ModelError(f"{shown}: a model must be an .h5 or .keras file, got a SavedModel folder; {_LOAD_OLD}")
    if path.is_dir():
        raise ModelError(f"{shown}: a model must be an .h5 or .keras file, got a folder; give the file itself")
    if not is_file:
        raise ModelError(f"{shown}: no such model file; give an .h5 or .keras file")


def _problem_of_form(path: Path, head: bytes) -> str | None:
    """What is wrong with a file whose name or first bytes say that it is no Keras model, None if nothing."""
    form = _other_form(path, head) or _OF_ENDING.get(path.suffix.lower())
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        got = f"{path.suffix or 'no ending'!r}" + (f", {form}" if form else "")
        return f"a model file must end in .h5 or .keras, got {got}"
    return form and f"must be a Keras model, got {form}"


def _other_form(path: Path, head: bytes) -> str | None:
    if not head:
        return f"an empty file; {_FETCH}"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer to it; run `git lfs pull`"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "a web page; download the file that the page is about"
    if head[4:8] == b"TFL3":
        return _TFLITE
    if head.startswith(b"\x08") and (b"onnx" in head or b"pytorch" in head):
        return _ONNX
    is_torch = head.startswith(b"\x80\x02\x8a\nl\xfc\x9cF\xf9")
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            is_torch = any(name.endswith("/data.pkl") for name in archive.namelist())
    return _TORCH if is_torch else None


def _inspect_hdf5(path: Path, allow_classes: Collection[str], stack: ExitStack) -> InspectedModel:
    file = stack.enter_context(h5py.File(path, "r"))
    arrays = {name: array for name, array in list_arrays(file).items() if name.startswith("model_weights/")}
    text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", b"1")
    if text is None:
        raise ModelError(
            "must hold a whole model, got weights or other data; load the weights into the model in the program that "
            "made it, and save that with model.save()"
        )
    if not isinstance(text, str | bytes):
        raise ModelError("its configuration must be text; save it again with model.save()")
    content = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    layers: dict[str, list[str]] = {}
    for name in names_listed(file, "model_weights", "layer_names"):
        group = f"model_weights/{name}"
        layers[name] = [f"{group}/{weight}" for weight in names_listed(file, group, "weight_names")]
    return InspectedModel(parse_configuration(content, _is_keras_2(version), allow_classes), arrays, layers)


def _inspect_keras(path: Path, allow_classes: Collection[str], stack: ExitStack) -> InspectedModel:
    with zipfile.ZipFile(path) as archive:
        names = [member.filename for member in archive.infolist()]
        if problem := problem_of_zip(archive.infolist()):
            raise ModelError(problem)
        if set(names) != {_CONFIG, _METADATA, _WEIGHTS}:
            raise ModelError(
                f"must hold {_CONFIG}, {_METADATA} and {_WEIGHTS}, "
                f"got {', '.join(name[:60] for name in names[:6]) or 'nothing'}; save it again with model.save()"
            )
        text, metadata, content = (archive.read(name) for name in (_CONFIG, _METADATA, _WEIGHTS))
    file = stack.enter_context(h5py.File(io.BytesIO(content), "r"))
    # What lies elsewhere is the state of optimizers and metrics.
    arrays = {name: array for name, array in list_arrays(file).items() if name.startswith(("layers/", "vars/"))}
    is_keras_2 = _is_keras_2(json.loads(metadata).get("keras_version"))
    return InspectedModel(parse_configuration(text, is_keras_2, allow_classes), arrays, None)


def _is_keras_2(version: object) -> bool:
    return (version.decode() if isinstance(version, bytes) else str(version)) < "3"
