"""Small model files in the words of Keras 2, made from models of Keras 3 with the same weights."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras

_NEW = ("module", "registered_name", "build_config", "optional", "quantization_config", "build_input_shape")
_OF_KERAS_2 = {
    "DepthwiseConv2D": {"groups": 1, "kernel_initializer": "he_normal", "kernel_constraint": None},
    "SeparableConv2D": {"groups": 1, "kernel_initializer": "he_normal", "kernel_regularizer": None},
    "Conv2DTranspose": {"groups": 1},
    "SpatialDropout2D": {"trainable": True, "noise_shape": None},
    "MultiHeadAttention": {"query_shape": [None, 4, 6], "key_shape": [None, 4, 6], "value_shape": [None, 4, 6]},
}
Item = dict[str, Any]


def save_as_keras_2(model: Any, path: Path, *, renamed: dict[str, str] | None = None, has_input: bool = True) -> None:
    """Write `model` as Keras 2.15 would: `.h5`, or `.keras` as its zip.

    `renamed`: names of layers of the model that are others in the file, such as those with a `/`. `has_input`: an
    `InputLayer` at the start of a Sequential model; without, its first layer says the shape, as before Keras 2.4.
    """
    config = _old(json.loads(model.to_json()), path.suffix == ".keras", has_input)
    text = json.dumps(config)
    for new, old in (renamed or {}).items():
        text = text.replace(json.dumps(new), json.dumps(old))
    if path.suffix == ".keras":
        _write_zip(model, text, path)
        return
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": text.encode(), "keras_version": b"2.15.0", "backend": b"tensorflow"})
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [(renamed or {}).get(layer.name, layer.name).encode() for layer in model.layers]
        for layer in model.layers:
            name = (renamed or {}).get(layer.name, layer.name)
            inner = group.require_group(name)
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [_weight_name(variable, layer, name) for variable in variables]
            inner.attrs["weight_names"] = [each.encode() for each in names]
            for each, variable in zip(names, variables, strict=True):
                inner[each] = keras.ops.convert_to_numpy(variable)


def _weight_name(variable: Any, layer: Any, name: str) -> str:
    *_, owner, leaf = variable.path.split("/")
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        leaf = leaf.replace("kernel", "depthwise_kernel")
    if isinstance(layer, keras.layers.MultiHeadAttention):
        return f"{name}/{owner}/{leaf}:0"
    return f"{owner if isinstance(layer, keras.Model) else name}/{leaf}:0"


def _old(value: Any, has_modules: bool, has_input: bool, models: tuple[str, ...] = ()) -> Any:
    if isinstance(value, list | tuple):
        return [_old(item, has_modules, has_input, models) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("class_name") == "DTypePolicy":
        name = value["config"]["name"]
        return {"class_name": "Policy", "config": {"name": name}} if name.startswith("mixed") else name
    if "layers" in value:
        models = tuple(each["config"]["name"] for each in value["layers"] if "layers" in each["config"])
    item = {
        key: _old_nodes(each, models) if key == "inbound_nodes" else _old(each, has_modules, has_input, models)
        for key, each in value.items()
        if key not in _NEW
    }
    if "batch_shape" in item:
        item["batch_input_shape"] = item.pop("batch_shape")
        item |= {"sparse": False, "ragged": False}
    for key in ("input_layers", "output_layers"):
        if key in item:
            place = item[key][0] if isinstance(item[key][0], list) else item[key]
            # Keras 3 counts a model's calls from 1 here if the model is Functional.
            sequential = {each["config"]["name"] for each in value["layers"] if each["class_name"] == "Sequential"}
            item[key] = [[place[0], place[1] + (place[0] in sequential), place[2]]]
    if "class_name" in item and isinstance(item.get("config"), dict):
        _old_settings(item, has_input)
        if has_modules and value.get("module", "").startswith("keras"):
            module = "keras.src.engine.functional" if item["class_name"] == "Functional" else value["module"]
            item |= {"module": module, "registered_name": value.get("registered_name")}
    return item


def _old_settings(item: Item, has_input: bool) -> None:
    name, settings = item["class_name"], item["config"]
    settings.update(_OF_KERAS_2.get(name, {}))
    if name == "LeakyReLU":
        settings["alpha"] = settings.pop("negative_slope")
    if name == "BatchNormalization":
        settings["axis"] = [3]
    if name in ("Sequential", "Functional"):
        settings.pop("dtype", None)
    if name == "Sequential" and not has_input:
        first = settings["layers"].pop(0)
        settings["layers"][0]["config"]["batch_input_shape"] = first["config"]["batch_input_shape"]


def _old_nodes(nodes: list[Item], models: tuple[str, ...]) -> list[Any]:
    def place(tensor: Item) -> list[Any]:
        name, call, output = tensor["config"]["keras_history"]
        return [name, call + (name in models), output]

    old = []
    for node in nodes:
        (tensors,) = node["args"][:1]
        further = {key: place(each) if isinstance(each, dict) else each for key, each in node["kwargs"].items()}
        further |= {key: place(each) for key, each in zip(("value", "key"), node["args"][1:], strict=False)}
        further = {key: each for key, each in further.items() if each is not None}
        each_of = tensors if isinstance(tensors, list) else [tensors]
        old.append([[*place(tensor), further] for tensor in each_of])
    return old


def _write_zip(model: Any, text: str, path: Path) -> None:
    whole = io.BytesIO()
    new = path.with_name("new.keras")
    model.save(new)
    with zipfile.ZipFile(new) as archive:
        whole.write(archive.read("model.weights.h5"))
    new.unlink()
    with h5py.File(whole, "r+") as file:
        for attention in [group for name, group in file["layers"].items() if name.startswith("multi_head")]:
            for part in ("query_dense", "key_dense", "value_dense", "output_dense"):
                attention.move(part, f"_{part}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", text)
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
        archive.writestr("model.weights.h5", whole.getvalue())
