"""Files of Keras 2 load with the weights and outputs that Keras 2 gives them, or are refused with the reason."""

import io
import json
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from lab3.errors import ModelError
from lab3.inputs.model_files import load_model
from tests.conftest import shared_file
from tests.hostile_files import set_config
from tests.keras2_files import save_as_keras_2

layers = keras.layers
GOLDEN = """
    attention_vit_tf215.h5 keras_v3fmt_mnv2_tf212.keras keras_v3fmt_tf215.keras logit1_tf215.h5 mixed_precision_tf215.h5
    mlp_2d_tf215.h5 pooled_base_tf215.h5 preproc_inside_tf215.h5 separable_named_tf215.h5 seq_batchinput_tf215.h5
    teachable_machine_waste.h5 transpose_named_tf215.h5 unicode_names_tf215.h5
""".split()


@pytest.mark.shared
@pytest.mark.parametrize("name", GOLDEN)
def test_outputs_are_those_of_keras_2(name: str) -> None:
    path = shared_file(f"models/keras2/{name}")
    golden = np.load(shared_file(f"models/keras2/{name}.golden.npz"))
    x = np.random.default_rng(5).random(golden["shape"]).astype("float32") * golden["scale"]
    found = keras.ops.convert_to_numpy(keras.ops.cast(load_model(path)(x, training=False), "float32"))
    np.testing.assert_allclose(found, golden["y"], atol=1e-3 if "mixed" in name else 1e-5)


def randomised(model: Any) -> Any:
    rng = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(
            rng.uniform(0.2, 1.0, weight.shape) if "variance" in weight.name else rng.normal(size=weight.shape)
        )
    return model


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.SeparableConv2D(4, 3, name="separable"),
            layers.BatchNormalization(name="norm"),
            layers.LeakyReLU(negative_slope=0.1),
            layers.SpatialDropout2D(0.5),
            layers.DepthwiseConv2D(3, name="depthwise", depthwise_regularizer="l2"),
            layers.Conv2DTranspose(4, 2, name="transposed"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="scores", kernel_constraint="non_neg"),
        ]
    )


def functional() -> Any:
    """Nested models, one called twice and one whose layers are named as others are; as the output, a nested model."""
    block = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same", name="conv")], name="block")
    inner = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(3, 3, padding="same", name="conv")(inner))
    base = keras.Model(inner, layers.ReLU()(x), name="base")
    head = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(3)], name="head")
    inputs = keras.Input((8, 8, 3))
    x = layers.Add()([block(inputs), base(inputs, training=False)])
    return keras.Model(inputs, head(block(x)))


def attention() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Reshape((16, 12))(inputs)
    y = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    y = layers.LayerNormalization(name="norm")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(y)))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("build", [sequential, functional, attention])
def test_the_words_of_keras_2_are_read(tmp_path: Path, build: Callable[[], Any], suffix: str) -> None:
    model = randomised(build())
    save_as_keras_2(model, tmp_path / f"m{suffix}")
    images_nhwc = np.random.default_rng(1).normal(size=(5, 8, 8, 3)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = load_model(tmp_path / f"m{suffix}")
    np.testing.assert_allclose(loaded(images_nhwc, training=False), model(images_nhwc, training=False), rtol=1e-6)
    assert loaded.output_shape == (None, 3)


def test_an_input_shape_may_stand_on_the_first_layer_and_hdf5_may_be_named_keras(tmp_path: Path) -> None:
    model = randomised(sequential())
    save_as_keras_2(model, tmp_path / "m.h5", has_input=False)
    shutil.copy(tmp_path / "m.h5", tmp_path / "m.keras")
    for suffix in ("h5", "keras"):
        loaded = load_model(tmp_path / f"m.{suffix}")
        assert loaded.input_shape == (None, 8, 8, 3)
        for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_names_may_hold_slashes(tmp_path: Path, suffix: str) -> None:
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(2, 3, name="a_b"),
            layers.Conv2D(2, 3, name="a_b_conv"),
            layers.Flatten(),
        ]
    )
    model.add(layers.Dense(2, name="a"))
    save_as_keras_2(randomised(model), tmp_path / f"m{suffix}", renamed={"a_b": "a/b", "a_b_conv": "a/b/conv"})
    loaded = load_model(tmp_path / f"m{suffix}")
    assert [layer.name for layer in loaded.layers][:2] == ["a_b", "a_b_conv"]
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_is_kept(tmp_path: Path, policy: str) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(2, dtype=policy, name="scores")])
    save_as_keras_2(randomised(model), tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5")
    assert (loaded.layers[-1].compute_dtype, loaded.layers[-1].variable_dtype) == (policy[6:], "float32")
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 1)).astype(np.float32)
    np.testing.assert_array_equal(
        *(keras.ops.convert_to_numpy(keras.ops.cast(each(x), "float32")) for each in (model, loaded))
    )


def test_hdf5_inside_a_zip_is_not_taken_for_the_file_itself(tmp_path: Path) -> None:
    model = randomised(sequential())
    save_as_keras_2(model, tmp_path / "m.keras")
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    # HDF5 looks for its signature at 0, 512, 1,024, ...
    name = "model.weights.h5"
    content = {name: content[name], **content}
    info = zipfile.ZipInfo(name)
    info.extra = struct.pack("<HH", 0x7075, 512 - 30 - len(name) - 4) + bytes(512 - 30 - len(name) - 4)
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr(info, content.pop(name))
        for other, value in content.items():
            archive.writestr(other, value)
    assert h5py.is_hdf5(tmp_path / "m.keras")
    assert load_model(tmp_path / "m.keras").count_params() == model.count_params()


def nested(*, is_trainable: bool) -> Any:
    parts = [keras.Input((6, 6, 2)), *(layers.Conv2D(2, 3, padding="same", name=f"c{i}") for i in range(3))]
    base = keras.Sequential(parts, name="base")
    base.get_layer("c0").trainable = is_trainable
    return keras.Sequential([keras.Input((6, 6, 2)), base, layers.Flatten(), layers.Dense(2, name="scores")])


def test_weights_go_by_their_names_where_lists_stand_in_another_order(tmp_path: Path) -> None:
    model = randomised(nested(is_trainable=True))
    save_as_keras_2(model, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        group = file["model_weights/base"]
        group.attrs["weight_names"] = list(reversed(group.attrs["weight_names"]))
    for one, other in zip(model.get_weights(), load_model(tmp_path / "m.h5").get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("is_trainable", [True, False])
def test_weights_go_by_keras_order_where_names_do_not_tell(tmp_path: Path, is_trainable: bool) -> None:
    model = randomised(nested(is_trainable=is_trainable))
    save_as_keras_2(model, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        group = file["model_weights/base"]
        names = [f"layer_{i}/{str(name).split('/')[-1]}" for i, name in enumerate(group.attrs["weight_names"])]
        for old, new in zip(group.attrs["weight_names"], names, strict=True):
            group.move(old, new)
        group.attrs["weight_names"] = names
    loaded = load_model(tmp_path / "m.h5")
    assert loaded.layers[0].get_layer("c0").trainable is is_trainable
    for name in ("c0", "c1", "c2"):
        np.testing.assert_array_equal(*(each.layers[0].get_layer(name).kernel for each in (model, loaded)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_name": "Activation", "config": {"name": "x", "activation": "hard_sigmoid"}},
            "hard_sigmoid of Keras 2",
        ),
        ({"class_name": "RandomCrop", "config": {"name": "x", "height": 4, "width": 4}}, "RandomCrop of Keras 2 crops"),
        ({"class_name": "ThresholdedReLU", "config": {"name": "x"}}, "ThresholdedReLU is a layer of Keras 2"),
        ({"class_name": "Conv2D", "config": {"name": "x", "filters": 1, "kernel_size": 1, "odd": 2}}, "{'odd': 2}"),
        ({"class_name": "DepthwiseConv2D", "config": {"name": "x", "kernel_size": 1, "groups": 2}}, "{'groups': 2}"),
        ({"class_name": "BatchNormalization", "config": {"name": "x", "virtual_batch_size": 4}}, "virtual_batch_size"),
    ],
)
def test_what_keras_3_does_not_have_or_computes_otherwise_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    save_as_keras_2(sequential(), tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        config = json.loads(file.attrs["model_config"])
        config["config"]["layers"].insert(1, change)
        set_config(file, config)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "m.h5")
    assert message in str(caught.value) and len(str(caught.value)) < 500


def test_keras_3_files_of_layers_with_inner_layers_load(tmp_path: Path) -> None:
    inner = keras.Sequential([keras.Input((8, 3)), layers.Conv1D(2, 3), layers.BatchNormalization()])
    inputs = keras.Input((8, 8, 3))
    x = layers.TimeDistributed(inner)(layers.SpectralNormalization(layers.Conv2D(3, 3, padding="same"))(inputs))
    x = layers.Reshape((16, 6))(x)
    x = layers.GroupQueryAttention(2, 4, 2)(x, x)
    x = keras.ops.relu(layers.Dropout(0.5)(x) * 2 + 1)
    model = randomised(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))))
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    # The kernel is stored twice.
    with zipfile.ZipFile(tmp_path / "m.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with h5py.File(whole := io.BytesIO(content["model.weights.h5"]), "r+") as file:
        file["layers/spectral_normalization/layer/vars/0"][0, 0, 0, 0] += 1
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        for name, value in {**content, "model.weights.h5": whole.getvalue()}.items():
            archive.writestr(name, value)
    with pytest.raises(ModelError, match=r"each weight must be stored once, got other values"):
        load_model(tmp_path / "m.keras")


def test_a_file_of_keras_3_with_the_same_word_loads(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Activation("hard_sigmoid"), layers.Flatten()])
    for suffix in ("h5", "keras"):
        model.save(tmp_path / f"m.{suffix}")
        assert load_model(tmp_path / f"m.{suffix}").output_shape == (None, 16)
