"""The forms of model files, `.h5` and `.keras`, opened with h5py and zipfile alone, and what other files are."""

import io
import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lab3.base.files import sha256_file
from lab3.errors import ModelError
from lab3.inputs.inspection.configuration import parse_configuration

_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_FETCH = "copy or download the file again"
_SAVE_AGAIN = "save it again with model.save()"
_ONNX = "an ONNX model; give the Keras model that it was exported from"
_TFLITE = "a TensorFlow Lite model; give the Keras model that it was converted from"
_TORCH = "a PyTorch model; build the network in Keras, copy the weights into it and save it with model.save()"
_LOAD_OLD = "load it with tf.keras.models.load_model of TensorFlow 2.15 or before, and save it as model.h5"
_OF_ENDING = {
    ".onnx": _ONNX, ".tflite": _TFLITE, ".pt": _TORCH, ".pth": _TORCH, ".pb": f"a TensorFlow graph; {_LOAD_OLD}",
}  # fmt: skip
# Deflate, shuffle, Fletcher's checksum and LZF; HDF5 would look for the code of any other on this machine.
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}


@dataclass(frozen=True)
class InspectedModel:
    """A file's configuration in the words of Keras 3, every class in it allowed, and its weights.

    `arrays`: by path, as `model_weights/conv/kernel:0`. `layers`: for an `.h5`, the paths of each layer's weights, in
    order, by its name; None for a `.keras` file, whose paths say which layer they are of.
    """

    configuration: dict[str, Any]
    arrays: dict[str, np.ndarray]
    layers: dict[str, list[str]] | None


def inspect_model_file(path: Path, allow_classes: Collection[str] = (), sha256: str | None = None) -> InspectedModel:
    """What `path` holds, seen before Keras sees it.

    `allow_classes`: names of classes that may be loaded besides Keras's own. `sha256`: what the file's must be. Raises
    `ModelError` if the file is missing, of another form, not the one expected, leads out of itself or names a class
    that may not be loaded, and what h5py, zipfile and json raise if it is damaged.
    """
    if sha256 is not None and path.is_file() and (found := sha256_file(path)) != sha256:
        raise ModelError(f"the file must have the SHA-256 of model.sha256, {sha256}, got {found}; fetch the file again")
    return (_inspect_keras if _is_zip(path) else _inspect_hdf5)(path, allow_classes)


def _is_zip(path: Path) -> bool:
    """True for the form `.keras`, False for HDF5. Raises `ModelError` if name or first bytes say that it is neither."""
    if path.is_dir():
        is_saved_model = (path / "saved_model.pb").is_file()
        got = f"a SavedModel folder; {_LOAD_OLD}" if is_saved_model else "a folder; give the file itself"
        raise ModelError(f"a model must be an .h5 or .keras file, got {got}")
    if not path.is_file():
        raise ModelError("no such model file; give an .h5 or .keras file")
    with path.open("rb") as file:
        head = file.read(256)
    form = _other_form(path, head) or _OF_ENDING.get(path.suffix.lower())
    if path.suffix not in (".h5", ".hdf5", ".keras"):
        got = f"{path.suffix or 'no ending'!r}" + (f", {form}" if form else "")
        raise ModelError(f"a model file must end in .h5 or .keras, got {got}")
    if form:
        raise ModelError(f"must be a Keras model, got {form}")
    # TensorFlow 2.12 wrote HDF5 under the name of .keras.
    return path.suffix == ".keras" and not head.startswith(b"\x89HDF")


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


def _inspect_hdf5(path: Path, allow_classes: Collection[str]) -> InspectedModel:
    with h5py.File(path, "r") as file:
        text, version = file.attrs.get("model_config"), file.attrs.get("keras_version", b"1")
        if text is None:
            raise ModelError(
                "must hold a model with its layers, got weights or other data; load the weights into the model in the "
                "program that made it, and save that with model.save()"
            )
        configuration = parse_configuration(text, _is_keras_2(version), allow_classes)
        arrays = _read_arrays(file, ("model_weights/",))
        layers: dict[str, list[str]] = {}
        for name in _names_listed(file, "model_weights", "layer_names"):
            group = f"model_weights/{name}"
            layers[name] = [f"{group}/{weight}" for weight in _names_listed(file, group, "weight_names")]
    return InspectedModel(configuration, arrays, layers)


def _inspect_keras(path: Path, allow_classes: Collection[str]) -> InspectedModel:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if sorted(names) != [_CONFIG, _METADATA, _WEIGHTS]:
            raise ModelError(
                f"must hold {_CONFIG}, {_METADATA} and {_WEIGHTS}, "
                f"got {', '.join(name[:60] for name in names[:6]) or 'nothing'}; {_SAVE_AGAIN}"
            )
        text, metadata, content = (archive.read(name) for name in (_CONFIG, _METADATA, _WEIGHTS))
    is_keras_2 = _is_keras_2(json.loads(metadata).get("keras_version"))
    configuration = parse_configuration(text, is_keras_2, allow_classes)
    with h5py.File(io.BytesIO(content), "r") as file:
        # What lies elsewhere is the state of optimizers and metrics.
        return InspectedModel(configuration, _read_arrays(file, ("layers/", "vars/")), None)


def _is_keras_2(version: object) -> bool:
    return (version.decode() if isinstance(version, bytes) else str(version)) < "3"


def _read_arrays(file: Any, places: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Every array below one of `places` by its path.

    Raises `ModelError` for a link anywhere, and for an array of external or virtual data, of another type than plain
    numbers, or with a filter that is not part of h5py.
    """
    links: dict[str, Any] = {}
    # Every link once, none followed; what a visitor raises would be lost.
    file.visititems_links(links.__setitem__)
    arrays: dict[str, np.ndarray] = {}
    for path, link in links.items():
        if not isinstance(link, h5py.HardLink):
            raise ModelError(f"links to other places are not followed, got {path[:120]!r}; {_SAVE_AGAIN}")
        if path.startswith(places) and isinstance(file[path], h5py.Dataset):
            if problem := _problem_of_array(file[path]):
                raise ModelError(f"arrays must {problem} in {path[:120]!r}; {_SAVE_AGAIN}")
            arrays[path] = file[path][()]
    return arrays


def _problem_of_array(dataset: Any) -> str | None:
    properties = dataset.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count():
        return "lie in the file itself, got one elsewhere"
    if {properties.get_filter(index)[0] for index in range(properties.get_nfilters())} - _FILTERS:
        return "be plain or compressed with gzip or LZF, got another filter"
    # bfloat16 is an opaque type of two bytes to NumPy.
    if dataset.dtype.kind not in "biuf" and dataset.dtype != "V2":
        return f"hold plain numbers, got {dataset.dtype}"
    return None


def _names_listed(file: Any, path: str, kind: str) -> list[str]:
    """Texts in the lists `kind` (`layer_names` or `weight_names`) of the group at `path`; Keras divides long lists."""
    attributes = file[path].attrs if path in file else {}
    keys = [key for key in attributes if key == kind or key.removeprefix(kind).isdecimal()]
    keys.sort(key=lambda key: int(key.removeprefix(kind) or 0))
    return [name.decode() if isinstance(name, bytes) else str(name) for key in keys for name in attributes[key]]
