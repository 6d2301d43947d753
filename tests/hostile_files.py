"""Files that strangers could send: each tries to run code, to read another file, to fill the memory, or is broken.

`BAIT` stands in a folder of its own: `canary` must never appear, and the content of `secret` must never be told.
"""

import io
import json
import marshal
import pickle
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import keras
import numpy as np
from PIL import Image

from lab3.record.journal import encode_row

SECRET = "the-secret-nobody-may-read"
Kind = Literal["model", "data", "config", "journal"]


@dataclass(frozen=True)
class Place:
    """Where a file is made: its folder, two good models in it, and the bait outside."""

    folder: Path
    h5: Path
    keras: Path
    keras2: Path
    canary: Path
    secret: Path


@dataclass(frozen=True)
class Hostile:
    """One file: `make` writes it and returns its path; `message` is a part of what lab3 says."""

    name: str
    kind: Kind
    make: Callable[[Place], Path]
    message: str


CORPUS: list[Hostile] = []


def hostile(kind: Kind, message: str) -> Callable[[Callable[[Place], Path]], Callable[[Place], Path]]:
    def add(make: Callable[[Place], Path]) -> Callable[[Place], Path]:
        CORPUS.append(Hostile(make.__name__, kind, make, message))
        return make

    return add


def make_place(folder: Path) -> Place:
    """Two good models in the forms of Keras 3 and one in that of Keras 2, and the bait."""
    place = Place(
        folder / "files", folder / "good.h5", folder / "good.keras", folder / "keras2.h5", folder / "bait" / "canary",
        folder / "bait" / "secret",
    )  # fmt: skip
    for each in (place.folder, place.canary.parent):
        each.mkdir()
    place.secret.write_text(SECRET)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            keras.layers.Conv2D(2, 3, activation="relu", name="conv"),
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, name="scores"),
        ]
    )
    for path in (place.h5, place.keras):
        model.save(path)
    shutil.copy(place.h5, place.keras2)
    with h5py.File(place.keras2, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        set_config(file, _as_keras2(config))
    return place


def _as_keras2(value: Any) -> Any:
    """The configuration as Keras 2 wrote it: no modules, plain dtypes, `batch_input_shape`."""
    if isinstance(value, list):
        return [_as_keras2(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        return value["config"]["name"]
    left_out = ("module", "registered_name", "build_config", "optional", "quantization_config")
    plain = {key: _as_keras2(item) for key, item in value.items() if key not in left_out}
    if "batch_shape" in plain:
        plain["batch_input_shape"] = plain.pop("batch_shape")
    return plain


def set_config(file: Any, config: Any) -> None:
    file.attrs["model_config"] = config if isinstance(config, bytes | int) else json.dumps(config).encode()


def h5_with(place: Place, change: Callable[[Any], None], base: Path | None = None) -> Path:
    """The good `.h5` with `change` done to the open file."""
    path = place.folder / "model.h5"
    shutil.copy(base or place.h5, path)
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def h5_config(place: Place, change: Callable[[Any], Any], base: Path | None = None) -> Path:
    """The good `.h5` with its configuration replaced by what `change` returns, or changed in place."""

    def replace(file: Any) -> None:
        config = json.loads(file.attrs["model_config"])
        changed = change(config)
        set_config(file, config if changed is None else changed)

    return h5_with(place, replace, base)


def keras_with(place: Place, **members: bytes | None) -> Path:
    """The good `.keras` with members replaced or added (`config_json=...`), None: left out."""
    path = place.folder / "model.keras"
    with zipfile.ZipFile(place.keras) as archive:
        content: dict[str, bytes | None] = {name: archive.read(name) for name in archive.namelist()}
    content |= {name.replace("_", "."): member for name, member in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, member in content.items():
            if member is not None:
                archive.writestr(name, member)
    return path


def keras_config(place: Place, change: Callable[[Any], Any]) -> Path:
    with zipfile.ZipFile(place.keras) as archive:
        config = json.loads(archive.read("config.json"))
    changed = change(config)
    return keras_with(place, config_json=json.dumps(config if changed is None else changed).encode())


def add_layer(config: Any, class_name: str, settings: dict[str, Any], **keys: Any) -> None:
    """Put a layer before the last one."""
    item = {"class_name": class_name, "config": {"name": "extra", **settings}, **keys}
    config["config"]["layers"].insert(-1, item)


def touching(place: Place) -> list[Any]:
    """A function that makes the canary, as Keras serialises lambdas."""
    code = compile(f"lambda x: open({str(place.canary)!r}, 'w') and x", "hostile", "eval").co_consts[0]
    import base64

    return [base64.b64encode(marshal.dumps(code)).decode(), None, None]


class Touch:
    """An object whose unpickling makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return (Path.touch, (self.canary,))


def lambda_settings(place: Place) -> dict[str, Any]:
    code = dict(zip(("code", "defaults", "closure"), touching(place), strict=True))
    return {"function": {"class_name": "__lambda__", "config": code}}


# Models that would run code


@hostile("model", "Lambda layers hold code and are never loaded")
def lambda_of_keras_3(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "Lambda", lambda_settings(place), module="keras.layers"))


@hostile("model", "Lambda layers hold code and are never loaded")
def lambda_of_keras_2(place: Place) -> Path:
    settings = {"function": touching(place), "function_type": "lambda", "output_shape_type": "raw"}
    return h5_config(place, lambda config: add_layer(config, "Lambda", settings), place.keras2)


@hostile("model", "Lambda layers hold code and are never loaded")
def lambda_in_zip(place: Place) -> Path:
    return keras_config(
        place, lambda config: add_layer(config, "Lambda", lambda_settings(place), module="keras.layers")
    )


@hostile("model", "Lambda layers hold code and are never loaded")
def lambda_in_a_nested_model(place: Place) -> Path:
    def nest(config: Any) -> None:
        inner = {"class_name": "Lambda", "config": lambda_settings(place)}
        add_layer(config, "Sequential", {"layers": [inner]})

    return h5_config(place, nest)


@hostile("model", "Lambda layers hold code and are never loaded")
def lambda_inside_a_wrapper(place: Place) -> Path:
    layer = {"class_name": "Lambda", "config": lambda_settings(place)}
    return keras_config(place, lambda config: add_layer(config, "TimeDistributed", {"layer": layer}))


@hostile("model", "__lambda__ layers hold code")
def lambda_as_activation(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = lambda_settings(place)["function"]

    return keras_config(place, change)


@hostile("model", "Lambda layers hold code")
def lambda_under_another_name(place: Place) -> Path:
    return keras_config(
        place,
        lambda config: add_layer(
            config, "Dense", lambda_settings(place), module="keras.layers", registered_name="any>Lambda"
        ),
    )


@hostile("model", "'keras.src.layers.core.lambda_layer.Dense' is none of the Keras classes")
def known_name_in_another_module(place: Place) -> Path:
    return keras_config(
        place, lambda config: add_layer(config, "Dense", {"units": 2}, module="keras.src.layers.core.lambda_layer")
    )


@hostile("model", "'Dense registered as other>Thing' is none")
def known_name_registered_as_another(place: Place) -> Path:
    return keras_config(place, lambda config: add_layer(config, "Dense", {"units": 2}, registered_name="other>Thing"))


@hostile("model", "'os.system' is none of the Keras classes")
def function_of_the_system(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = {
            "class_name": "function", "module": "os", "config": "system", "registered_name": "system",
        }  # fmt: skip

    return keras_config(place, change)


@hostile("model", "'keras.utils.get_file' is none of the Keras classes")
def function_that_downloads(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = {
            "class_name": "function", "module": "keras.utils", "config": "get_file", "registered_name": "get_file",
        }  # fmt: skip

    return keras_config(place, change)


@hostile("model", "TFSMLayer layers hold code")
def saved_model_from_elsewhere(place: Place) -> Path:
    settings = {"filepath": str(place.secret.parent), "call_endpoint": "serve"}
    return h5_config(place, lambda config: add_layer(config, "TFSMLayer", settings))


@hostile("model", "TorchModuleWrapper layers hold code")
def pickled_torch_module(place: Place) -> Path:
    import base64

    module = base64.b64encode(pickle.dumps(Touch(place.canary))).decode()
    return keras_config(place, lambda config: add_layer(config, "TorchModuleWrapper", {"module": module}))


@hostile("model", "lab3 does not handle StringLookup layers, which Keras has")
def vocabulary_from_elsewhere(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "StringLookup", {"vocabulary": str(place.secret)}))


@hostile("model", "lab3 does not handle TextVectorization layers, which Keras has")
def vocabulary_in_zip(place: Place) -> Path:
    settings = {"vocabulary": str(place.secret)}
    return keras_config(place, lambda config: add_layer(config, "TextVectorization", settings, module="keras.layers"))


@hostile("model", "register it with Keras and set model.allow_classes to [MyLayer]")
def unknown_class(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "MyLayer", {}))


@hostile("model", "TFOpLambda is an operation of Keras 2 that Keras 3 cannot load")
def operation_of_keras_2(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "TFOpLambda", {"function": "math.multiply"}), place.keras2)


@hostile("model", "'builtins.__typespec__' is none of the Keras classes")
def type_specification(place: Place) -> Path:
    item = {"spec_name": "TensorSpec", "registered_name": None}
    return keras_config(place, lambda config: add_layer(config, "__typespec__", {}, module="builtins", **item))


@hostile("model", "'CompositeTensor' is none of the Keras classes")
def composite_tensor(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "CompositeTensor", {}, spec={}, tensors=[]))


@hostile("model", "names of classes and functions must be text, got")
def class_that_is_no_name(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][0]["class_name"] = ["Lambda"]

    return h5_config(place, change)


@hostile("model", "layers.Lambda layers hold code and are never loaded")
def lambda_with_a_dotted_name(place: Place) -> Path:
    return keras_config(
        place, lambda config: add_layer(config, "layers.Lambda", lambda_settings(place), module="keras")
    )


@hostile("model", "names of classes must be without dots, got 'layers.StringLookup'")
def vocabulary_with_a_dotted_name(place: Place) -> Path:
    settings = {"vocabulary": str(place.secret)}
    return keras_config(place, lambda config: add_layer(config, "layers.StringLookup", settings, module="keras"))


@hostile("model", "names of classes must be without dots, got 'utils.get_file'")
def function_with_a_dotted_name(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][-1]["config"]["activation"] = {
            "class_name": "function", "module": "keras", "config": "utils.get_file", "registered_name": "function",
        }  # fmt: skip

    return keras_config(place, change)


@hostile("model", "surrogates not allowed")
def half_a_letter(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][1]["config"]["name"] = "a\ud800b"

    return h5_config(place, change)


@hostile("model", "scale of a Rescaling layer must be numbers, got 'abc'")
def scale_that_is_text(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "Rescaling", {"scale": "abc", "offset": 0.0}))


# Models that lead elsewhere


def _replace_weight(link: Callable[[Any, str], None]) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        group = file["model_weights/conv"]
        name = group.attrs["weight_names"][0]
        name = name.decode() if isinstance(name, bytes) else name
        del group[name]
        link(group, name)

    return change


@hostile("model", "links to other places are not followed")
def external_link(place: Place) -> Path:
    def link(group: Any, name: str) -> None:
        group[name] = h5py.ExternalLink(str(place.h5), f"/model_weights/conv/{name}")

    return h5_with(place, _replace_weight(link))


@hostile("model", "links to other places are not followed, got 'model_weights'")
def external_link_to_all_weights(place: Place) -> Path:
    def link(file: Any) -> None:
        del file["model_weights"]
        file["model_weights"] = h5py.ExternalLink(str(place.h5), "/model_weights")

    return h5_with(place, link)


@hostile("model", "links to other places are not followed")
def soft_link(place: Place) -> Path:
    def link(group: Any, name: str) -> None:
        group[name] = h5py.SoftLink("/model_weights/scores")

    return h5_with(place, _replace_weight(link))


@hostile("model", "arrays must lie in the file itself")
def external_storage(place: Place) -> Path:
    def link(group: Any, name: str) -> None:
        group.create_dataset(name, (3, 3, 1, 2), "f4", external=[(str(place.secret), 0, h5py.h5f.UNLIMITED)])

    return h5_with(place, _replace_weight(link))


@hostile("model", "arrays must lie in the file itself")
def virtual_dataset(place: Place) -> Path:
    def link(group: Any, name: str) -> None:
        layout = h5py.VirtualLayout((3, 3, 1, 2), "f4")
        layout[:] = h5py.VirtualSource(str(place.h5), f"/model_weights/conv/{name}", (3, 3, 1, 2))
        group.create_virtual_dataset(name, layout)

    return h5_with(place, _replace_weight(link))


@hostile("model", "arrays must hold plain numbers, got object")
def object_references(place: Place) -> Path:
    def change(file: Any) -> None:
        file["model_weights/references"] = np.array([file.ref], h5py.ref_dtype)

    return h5_with(place, change)


@hostile("model", "got another filter")
def unusual_filter(place: Place) -> Path:
    def change(file: Any) -> None:
        file.create_dataset("model_weights/scaled", data=np.arange(10), scaleoffset=4, chunks=(10,))

    return h5_with(place, change)


@hostile("model", "arrays must hold plain numbers")
def texts_of_any_length(place: Place) -> Path:
    def change(file: Any) -> None:
        file.create_dataset("model_weights/texts", data=["a", "b"], dtype=h5py.string_dtype())

    return h5_with(place, change)


@hostile("model", "links to other places are not followed")
def external_link_inside_zip(place: Place) -> Path:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers"] = h5py.ExternalLink(str(place.h5), "/model_weights")
    return keras_with(place, model_weights_h5=content.getvalue())


# Models that would fill memory or never end


@hostile("model", "must be an intact model that Keras can load, got: maximum recursion depth")
def deep_json(place: Place) -> Path:
    return h5_with(place, lambda file: set_config(file, b"[" * 20_000 + b"]" * 20_000))


@hostile("model", "must be an intact model that Keras can load, got: maximum recursion depth")
def deep_json_in_zip(place: Place) -> Path:
    return keras_with(place, config_json=b'{"config":' * 20_000 + b"1" + b"}" * 20_000)


@hostile("model", "each weight must be listed once and be there")
def one_weight_a_thousand_times(place: Place) -> Path:
    def change(file: Any) -> None:
        group = file["model_weights/conv"]
        group.attrs["weight_names"] = [group.attrs["weight_names"][0]] * 1_000

    return h5_with(place, change)


@hostile("model", "the file must store every parameter, got none for 2 of 4 weights, as conv/kernel")
def layer_below_another(place: Place) -> Path:
    def change(file: Any) -> None:
        file["model_weights/conv"].create_group("inner")
        file["model_weights"].attrs["layer_names"] = [b"conv/inner", b"scores"]

    return h5_with(place, change)


def keras_of(place: Place, config: dict[str, Any]) -> Path:
    content = io.BytesIO()
    h5py.File(content, "w").close()
    return keras_with(place, config_json=json.dumps(config).encode(), model_weights_h5=content.getvalue())


def _settings(place: Place, **settings: Any) -> Path:
    """The good `.h5` with other settings of its last layer, 2 units on 8 numbers."""
    return h5_config(place, lambda config: config["config"]["layers"][-1]["config"].update(settings))


@hostile("model", "weights must have the shapes of the model's, got (8, 2) for (8, 3)")
def one_unit_more_than_stored(place: Place) -> Path:
    return _settings(place, units=3)


@hostile("model", "got 2 names, 0 of them without an array, for 1 weights of 'scores'")
def bias_that_nothing_uses(place: Place) -> Path:
    return _settings(place, use_bias=False)


@hostile("model", "weights must have the shapes of the model's, got (8, 2) for (8, 3)")
def one_unit_more_than_stored_in_zip(place: Place) -> Path:
    return keras_config(place, lambda config: config["config"]["layers"][-1]["config"].update(units=3))


@hostile("model", "every weight of the file must be of the model, got 'layers/dense/vars/")
def bias_that_nothing_uses_in_zip(place: Place) -> Path:
    return keras_config(place, lambda config: config["config"]["layers"][-1]["config"].update(use_bias=False))


@hostile("model", "the file must store every parameter, got none for 2 of 6 weights, as extra/kernel")
def layer_that_is_not_stored(place: Place) -> Path:
    return h5_config(place, lambda config: add_layer(config, "Dense", {"units": 8}))


@hostile("model", "the file must store every parameter, got none for 2 of 6 weights, as extra/kernel")
def layer_that_is_not_stored_in_zip(place: Place) -> Path:
    convolution = {"class_name": "DepthwiseConv2D", "config": {"name": "extra", "kernel_size": 1}}
    return keras_config(place, lambda config: config["config"]["layers"].insert(1, convolution))


@hostile("model", "every weight of the file must be of the model, got 'model_weights/scores/more' besides")
def array_that_nothing_uses(place: Place) -> Path:
    def change(file: Any) -> None:
        file["model_weights/scores/more"] = np.zeros(2, np.float32)

    return h5_with(place, change)


@hostile("model", "weights must be named as the model's, got 'model_weights/scores/alpha' for 'scores/kernel'")
def weights_of_other_names(place: Place) -> Path:
    def change(file: Any) -> None:
        group = file["model_weights/scores"]
        for name in group.attrs["weight_names"]:
            group.move(name, "alpha" if "kernel" in str(name) else "beta")
        group.attrs["weight_names"] = [b"alpha", b"beta"]

    return h5_with(place, change)


@hostile("model", "must be Sequential or Functional with a known input shape, got Sequential")
def sum_without_an_input(place: Place) -> Path:
    layers = {"name": "model", "layers": [{"class_name": "Add", "config": {"name": "sum"}}]}
    return keras_of(place, {"module": "keras", "class_name": "Sequential", "registered_name": None, "config": layers})


# Broken models


@hostile("model", "must be an intact model that Keras can load, got")
def torn_hdf5(place: Place) -> Path:
    path = place.folder / "model.h5"
    content = place.h5.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


@hostile("model", "must be an intact model that Keras can load, got")
def noise_with_a_signature(place: Place) -> Path:
    path = place.folder / "model.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + np.random.default_rng(0).bytes(5_000))
    return path


@hostile("model", "must be an intact model that Keras can load, got: ")
def configuration_that_is_no_json(place: Place) -> Path:
    return h5_with(place, lambda file: set_config(file, b"\xff\xfe not json"))


@hostile("model", "must be an intact model that Keras can load, got: list indices must be integers")
def configuration_that_is_a_list(place: Place) -> Path:
    return h5_with(place, lambda file: set_config(file, [1, 2]))


@hostile("model", "must be an intact model that Keras can load, got: the JSON object must be str")
def configuration_that_is_a_number(place: Place) -> Path:
    return h5_with(place, lambda file: set_config(file, 7))


@hostile("model", "weights must be finite, got 1 NaN")
def not_a_number(place: Place) -> Path:
    def change(file: Any) -> None:
        group = file["model_weights/scores"]
        group[group.attrs["weight_names"][0]][0, 0] = np.nan

    return h5_with(place, change)


@hostile("model", "must be an intact model that Keras can load, got: ")
def layer_without_settings(place: Place) -> Path:
    def change(config: Any) -> None:
        config["config"]["layers"][1]["config"] = {}

    return h5_config(place, change)


@hostile("model", "must hold config.json, metadata.json and model.weights.h5, got")
def pickled_weights(place: Place) -> Path:
    content = io.BytesIO()
    np.savez(content, a=np.array([Touch(place.canary)], object))
    return keras_with(place, model_weights_h5=None, model_weights_npz=content.getvalue())


@hostile("model", "must hold config.json, metadata.json and model.weights.h5, got")
def additional_member(place: Place) -> Path:
    return keras_with(place, evil_py=b"print()")


@hostile("model", "must hold config.json, metadata.json and model.weights.h5, got")
def member_above_the_folder(place: Place) -> Path:
    path = keras_with(place)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../canary", "x")
    return path


@hostile("model", "must hold config.json, metadata.json and model.weights.h5, got")
def member_at_the_root(place: Place) -> Path:
    path = keras_with(place)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(str(place.canary), "x")
    return path


@hostile("model", "must hold config.json, metadata.json and model.weights.h5, got")
def member_twice(place: Place) -> Path:
    path = keras_with(place)
    name = zipfile.ZipInfo("config.jsoN")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "{}")
    path.write_bytes(path.read_bytes().replace(b"config.jsoN", b"config.json"))
    return path


@hostile("model", "must be an intact model that Keras can load, got")
def link_in_zip(place: Place) -> Path:
    path = keras_with(place, metadata_json=None)
    link = zipfile.ZipInfo("metadata.json")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(place.secret))
    return path


@hostile("model", "must be an intact model that Keras can load, got")
def zip_that_lies_about_a_size(place: Place) -> Path:
    path = keras_with(place)
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("config.json").file_size
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", size // 2)))
    return path


@hostile("model", "must be an intact model that Keras can load, got")
def noise_in_zip(place: Place) -> Path:
    return keras_with(place, model_weights_h5=b"\x89HDF\r\n\x1a\n" + b"x" * 999)


# Data


def npz_with(place: Place, **members: bytes) -> Path:
    path = place.folder / "data.npz"
    good = {"x_test": np.zeros((2, 4, 4, 1), np.uint8), "y_test": np.array([0, 1])}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in good.items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", members.get(name, content.getvalue()))
        for name in set(members) - set(good):
            archive.writestr(name, members[name])
    return path


def npy_header(shape: str, dtype: str = "|u1", padding: int = 0) -> bytes:
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}{' ' * padding}\n".encode()
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header


@hostile("data", "not a readable .npz without pickled objects")
def pickle_in_npz(place: Place) -> Path:
    content = io.BytesIO()
    np.save(content, np.array([Touch(place.canary)], object))
    return npz_with(place, x_test=content.getvalue())


@hostile("data", "not a readable .npz")
def npz_that_declares_a_terabyte(place: Place) -> Path:
    return npz_with(place, x_test=npy_header("(1099511627776, 1, 1, 1)"))


@hostile("data", "not a readable .npz")
def npz_with_an_expression(place: Place) -> Path:
    return npz_with(place, x_test=npy_header(f"open({str(place.canary)!r}, 'w')"))


@hostile("data", "not a readable .npz")
def npz_with_a_long_header(place: Place) -> Path:
    return npz_with(place, x_test=npy_header("(1,)", padding=10**6))


@hostile("data", "not a readable .npz")
def torn_npz(place: Place) -> Path:
    path = npz_with(place)
    path.write_bytes(path.read_bytes()[:-30])
    return path


def png(size: tuple[int, int] = (4, 4)) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size).save(content, "PNG")
    return content.getvalue()


def zip_with(place: Place, members: dict[str, bytes]) -> Path:
    path = place.folder / "images.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"a/1.png": png(), **members}.items():
            archive.writestr(name, content)
    return path


def huge_png(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds hardly anything."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"x")) + chunk(b"IEND", b"")


@hostile("data", "images must lie at <class>/<name>, got")
def image_at_the_root(place: Place) -> Path:
    return zip_with(place, {"/etc/2.png": png()})


@hostile("data", "images must lie at <class>/<name>, got")
def image_on_a_drive(place: Place) -> Path:
    return zip_with(place, {"C:\\a\\2.png": png()})


@hostile("data", "a/2.png: not a readable JPEG or PNG")
def link_among_images(place: Place) -> Path:
    path = zip_with(place, {})
    link = zipfile.ZipInfo("a/2.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(link, str(place.secret))
    return path


@hostile("data", "a/0.png: not a readable JPEG or PNG (Image size (144000000 pixels) exceeds limit")
def absurd_image(place: Place) -> Path:
    return zip_with(place, {"a/0.png": huge_png(12_000, 12_000)})


@hostile("data", "a/0.png: not a readable JPEG or PNG")
def more_absurd_image(place: Place) -> Path:
    return zip_with(place, {"a/0.png": huge_png(100_000, 100_000)})


@hostile("data", "a/0.png: not a readable JPEG or PNG")
def broken_image(place: Place) -> Path:
    return zip_with(place, {"a/0.png": huge_png(4, 4)})


@hostile("data", "a/0.jpg: not a readable JPEG or PNG")
def image_of_another_form(place: Place) -> Path:
    return zip_with(place, {"a/0.jpg": b"GIF89a\x01\x00\x01\x00\x00\xff\x00,"})


@hostile("data", "a/0.png: not a readable JPEG or PNG")
def postscript_as_png(place: Place) -> Path:
    return zip_with(place, {"a/0.png": b"%!PS-Adobe-3.0 EPSF-3.0\n(" + str(place.canary).encode() + b") (w) file\n"})


@hostile("data", "not an intact .zip file (File 'a/1.png' is encrypted")
def locked_zip(place: Place) -> Path:
    path = zip_with(place, {})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    content[6] |= 1
    path.write_bytes(content)
    return path


@hostile("data", "not an intact .zip file")
def torn_zip(place: Place) -> Path:
    path = zip_with(place, {})
    path.write_bytes(path.read_bytes()[:50])
    return path


@hostile("data", "not an intact .zip file")
def zip_with_a_wrong_checksum(place: Place) -> Path:
    path = zip_with(place, {})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 16] ^= 1
    path.write_bytes(content)
    return path


@hostile("data", "a link to another place; copy them")
def link_out_of_the_image_folder(place: Place) -> Path:
    path = place.folder / "images"
    (path / "a").mkdir(parents=True)
    (path / "a" / "1.png").symlink_to(place.secret)
    return path


_OTHER_ARCHIVE = "lab3 reads the one CIFAR-10 archive, cifar-10-python.tar.gz, and the folder it unpacks to"


@hostile("data", _OTHER_ARCHIVE)
def link_out_of_the_cifar_folder(place: Place) -> Path:
    path = place.folder / "cifar"
    path.mkdir()
    (path / "test_batch").symlink_to(place.secret)
    return path


def tar_with(place: Place, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    path = place.folder / "cifar.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tar_link(place: Place, kind: bytes) -> Path:
    link = tarfile.TarInfo("cifar-10-batches-py/test_batch")
    link.type, link.linkname = kind, str(place.secret)
    return tar_with(place, (link, b""))


@hostile("data", _OTHER_ARCHIVE)
def soft_link_in_tar(place: Place) -> Path:
    return tar_link(place, tarfile.SYMTYPE)


@hostile("data", _OTHER_ARCHIVE)
def hard_link_in_tar(place: Place) -> Path:
    return tar_link(place, tarfile.LNKTYPE)


@hostile("data", _OTHER_ARCHIVE)
def device_in_tar(place: Place) -> Path:
    return tar_link(place, tarfile.CHRTYPE)


@hostile("data", _OTHER_ARCHIVE)
def tar_above_the_folder(place: Place) -> Path:
    return tar_with(place, (tarfile.TarInfo("../../canary"), b"x"))


@hostile("data", _OTHER_ARCHIVE)
def tar_at_the_root(place: Place) -> Path:
    return tar_with(place, (tarfile.TarInfo(str(place.canary)), b"x"))


@hostile("data", _OTHER_ARCHIVE)
def torn_tar(place: Place) -> Path:
    path = tar_with(place, (tarfile.TarInfo("readme"), np.random.default_rng(0).bytes(9_000)))
    path.write_bytes(path.read_bytes()[:4_000])
    return path


def batch(place: Place, content: bytes) -> Path:
    return tar_with(place, (tarfile.TarInfo("cifar-10-batches-py/test_batch"), content))


def pickle_that_touches(place: Place) -> bytes:
    return pickle.dumps({b"data": Touch(place.canary), b"labels": []}, protocol=2)


@hostile("data", _OTHER_ARCHIVE)
def pickle_that_runs_code(place: Place) -> Path:
    return batch(place, pickle_that_touches(place))


@hostile("data", _OTHER_ARCHIVE)
def pickle_in_a_folder_that_runs_code(place: Place) -> Path:
    path = place.folder / "cifar"
    path.mkdir()
    (path / "test_batch").write_bytes(pickle_that_touches(place))
    return path


@hostile("data", _OTHER_ARCHIVE)
def pickle_that_runs_a_command(place: Place) -> Path:
    return batch(place, b"cos\nsystem\n(S'touch " + str(place.canary).encode() + b"'\ntR.")


@hostile("data", _OTHER_ARCHIVE)
def pickle_that_evaluates(place: Place) -> Path:
    return batch(place, b"cbuiltins\neval\n(S'open(" + str(place.canary).encode() + b")'\ntR.")


# More archives and folders


@hostile("data", "x_test must be uint8 or float (N, H, W, C), got |S5 ()")
def npz_of_raw_bytes(place: Place) -> Path:
    path = place.folder / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_test", b"hello")
        archive.writestr("y_test", b"xx")
    return path


@hostile("data", "must hold the arrays x_test and y_test (Keras layout), got x_test, y_test, y_test")
def npz_with_raw_bytes_beside_an_array(place: Place) -> Path:
    path = npz_with(place)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("y_test", b"hello")
    return path


@hostile("data", "cannot be read: [Errno 40]")
def image_that_links_to_itself(place: Place) -> Path:
    path = place.folder / "images"
    (path / "a").mkdir(parents=True)
    (path / "a" / "loop.png").symlink_to("loop.png")
    return path


# Experiments


def experiment(text: str | bytes, message: str, name: str) -> None:
    def make(place: Place) -> Path:
        path = place.folder / "experiment.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    CORPUS.append(Hostile(name, "config", make, message))


experiment("a: !!python/object/apply:os.system [touch canary]\n", "not valid YAML: could not determine", "yaml_object")
experiment("!!python/name:os.system ''\n", "not valid YAML: could not determine", "yaml_name")
experiment("&a [*a]\n", "must hold `key: value` lines, got [[...]]", "list_in_itself")
experiment("[" * 20_000, "a value cannot be read (maximum recursion depth exceeded", "deep_yaml")
experiment("seed: " + "[" * 300 + "]" * 300, "seed: must be an integer", "deep_setting")
experiment(
    f"seed: {'9' * 10_000}\n",
    "not valid YAML: a value cannot be read (Exceeds the limit",
    "endless_number",
)
experiment(
    "seed: !!timestamp 2020-99-99\n",
    "not valid YAML: a value cannot be read (month must be in",
    "impossible_date",
)
experiment("seed: !!int\n", "a value cannot be read (string index", "no_number_at_all")
experiment("seed: !!int abc\n", "a value cannot be read (invalid literal for int() with base 10: 'abc')", "no_number")
experiment("? [a, b]\n: 1\n", "not valid YAML: found unhashable key", "list_as_key")
experiment("1: 2\nnull: 3\n", "1: Keys should be strings, got 1", "keys_that_are_no_text")
experiment("seed: !!binary 'abc'\n", "not valid YAML: failed to decode base64", "broken_base64")
experiment(b"seed: \xff\xfe\n", "cannot be read as a text file", "no_utf8")
experiment("seed: \x00\n", "not valid YAML", "null_character")
experiment("model: {path: a.h5, sha256: XYZ}\n", "model.sha256: must be 64 digits 0-9 a-f", "hash_that_is_none")
experiment(f"model: {{sha256: {'0a' * 32}}}\n", "must be null where model.path is null", "hash_of_no_file")
_HEX = "0x" + "f" * 5_000
for _where, _text in {
    "seed": f"seed: {_HEX}",
    "scale": f"data: {{scale: {_HEX}}}",
    "mean": f"data: {{mean: [{_HEX}]}}",
    "epochs": f"train: {{epochs: {_HEX}}}",
    "layer": f"prune: {{layer: {_HEX}}}",
    "schedule": f"sweep: {{schedule: [{_HEX}]}}",
    "feature_maps_k": f"sweep: {{feature_maps_k: [{_HEX}]}}",
    "everything": _HEX,
}.items():
    experiment(_text, "a value cannot be read (Exceeds the limit", f"endless_{_where}")
experiment(f"seed: {2**64}", "seed: must be less than 4294967296", "number_of_65_bits")
experiment("seed: 1" + ":10" * 80_000, "a value cannot be read (Exceeds the limit", "endless_time")
experiment(f"? {_HEX}\n: 1", "a value cannot be read (Exceeds the limit", "endless_key")
experiment("seed: !!bool maybe", "a value cannot be read ('maybe')", "no_truth")
experiment("name: !!timestamp x", "a value cannot be read (", "no_date")
for _stop in ("200000000", "9999999999", "1" + "0" * 40):
    experiment(
        f"sweep: {{schedule: '0:{_stop}:1'}}", "sweep.schedule: must hold integers of at most 1,000,000, got '0:",
        f"schedule_to_{len(_stop)}_digits",
    )  # fmt: skip


# Journals

HEADER = encode_row({"journal": 1})
POINT: dict[str, Any] = {
    "k": 0, "pruned_channels": [], "correct": 1, "total": 2, "loss": 0.5, "top5_correct": 2, "class_correct": [1, 0],
    "n_changed": 0, "n_tied": 0, "n_run": 2, "class_total": [1, 1], "class_lost": [0, 0], "class_gained": [0, 0],
    "turned_wrong": [1], "turned_right": [],
}  # fmt: skip


def signed(body: bytes) -> bytes:
    """A line with a right checksum, whatever it holds."""
    return body[:-1] + f',"crc32":"{zlib.crc32(body):08x}"}}\n'.encode()


def journal(content: bytes, message: str, name: str) -> None:
    def make(place: Place) -> Path:
        path = place.folder / "journal.jsonl"
        path.write_bytes(content)
        return path

    CORPUS.append(Hostile(name, "journal", make, message))


_LAST = encode_row(POINT | {"k": 1})
journal(HEADER + signed(b"{not json}") + _LAST, "line 2 of 3 is damaged", "signed_line_that_is_no_json")
journal(HEADER + signed(b'{"a":"\xff"}') + _LAST, "line 2 of 3 is damaged", "signed_line_that_is_no_utf8")
journal(HEADER + signed(b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}") + _LAST, "line 2 of 3 is damaged", "deep_line")
journal(HEADER + b"\x00" * 1_000 + b"\n" + _LAST, "line 2 of 3 is damaged", "line_of_zeros")
journal(HEADER + encode_row({"k": 0}), "journal.jsonl cannot be read (", "line_without_numbers")
for _name, _value in (
    ("k", "0"),
    ("k", -1),
    ("total", 0),
    ("loss", None),
    ("pruned_channels", 3),
    ("class_correct", [[]]),
    ("class_lost", [-1, 0]),
    ("turned_wrong", ["1"]),
):
    journal(HEADER + encode_row(POINT | {_name: _value}), "journal.jsonl cannot be read (", f"{_name}_is_{_value}")
journal(HEADER + encode_row(POINT | {"more": 1}), "journal.jsonl cannot be read (", "unknown_number")
journal(HEADER + encode_row(POINT | {"confusion": 1}), "journal.jsonl cannot be read (", "confusion_that_is_none")
