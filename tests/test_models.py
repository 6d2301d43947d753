"""Architectures, training, and model files."""

import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import Result

from lab3.errors import ModelError, RunStateError
from lab3.inputs.architectures import build_model
from lab3.inputs.checkpoints import Checkpoints
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import load_model, save_model
from lab3.inputs.training import Augmentation, Epoch, best_epoch, epoch_order, train_model
from lab3.pruning.layers import describe_layers
from tests.conftest import shared_file


def test_vgg16_is_the_first_reports_network() -> None:
    model = build_model("vgg16")
    rows = describe_layers(model)
    assert (len(rows), model.count_params()) == (42, 21_557_322)
    (pruned,) = [row for row in rows if row.is_pruned]
    assert (pruned.index - 42, pruned.output_shape) == (-12, (None, 2, 2, 512))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [64, 64, 128, 128, 256, 256, 256] + [512] * 6
    penalised = [i for i, layer in enumerate(convolutions) if layer.kernel_regularizer is not None]
    assert penalised == [1, 3, 6, 7, 9, 10, 12]
    assert convolutions[1].kernel_regularizer.l2 == pytest.approx(0.001)
    rates = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert rates == [0.05, 0.10, 0.15, 0.20, 0.25, 0.3, 0.5, 0.4]
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [(d.units, d.kernel_regularizer is not None) for d in dense] == [
        (4096, False), (1024, False), (512, True), (10, False),
    ]  # fmt: skip


@pytest.mark.shared
def test_vgg16_has_the_layers_of_the_file_the_report_describes() -> None:
    theirs = load_model(shared_file("models/vgg16_cifar10_keras2.h5"))
    ours = build_model("vgg16")
    for mine, other in zip(ours.layers, theirs.layers, strict=True):
        assert type(mine) is type(other)
        assert [weight.shape for weight in mine.weights] == [weight.shape for weight in other.weights]
        for setting in ("filters", "units", "rate", "padding", "pool_size", "activation", "epsilon", "momentum"):
            assert mine.get_config().get(setting) == other.get_config().get(setting)


def test_simplecnn_starts_as_pytorch_does() -> None:
    keras.utils.set_random_seed(0)
    model = build_model("simplecnn")
    assert model.count_params() == 16 * 28 + 32 * 145 + 256 * 2049 + 10 * 257
    for layer, fan_in in zip([0, 2, 5, 6], [27, 144, 2048, 256], strict=True):
        bound = 1 / np.sqrt(fan_in)
        for values in model.layers[layer].get_weights():
            assert np.abs(values).max() <= bound
        kernel = model.layers[layer].get_weights()[0]
        # The standard deviation of a uniform distribution on (-b, b) is b / sqrt(3).
        assert kernel.std() == pytest.approx(bound / np.sqrt(3), rel=0.1)


def one_layer() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Dropout(0.2), layers.Flatten(), layers.Dense(10, activation="softmax")]
    )


def test_training_keeps_the_best_epoch_and_repeats_with_the_seed(tmp_path: Path) -> None:
    digits = load_dataset("digits", "train")
    images_nhwc = (digits.images_nhwc[:300] / 16).astype(np.float32)
    labels_n = digits.labels_n[:300]

    def train(seed: int) -> tuple[Any, list[Epoch]]:
        keras.utils.set_random_seed(seed)
        model = one_layer()
        history = train_model(
            model, images_nhwc, labels_n, epochs=4, batch_size=32, learning_rate=0.005, validation_fraction=0.2,
            patience=None, augmentation=Augmentation(True, 0.1, 0.1, 0.1), seed=seed,
            checkpoints=Checkpoints(tmp_path / "c"),
        )  # fmt: skip
        return model, history

    model, history = train(0)
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4]
    assert history[-1].loss < history[0].loss
    from lab3.inputs.data import split_validation

    _, held_out = split_validation(labels_n, 0.2, 0)
    accuracy = (model.predict(images_nhwc[held_out], verbose=0).argmax(axis=1) == labels_n[held_out]).mean()
    assert accuracy == pytest.approx(max(epoch.val_accuracy or 0 for epoch in history))
    assert best_epoch(history).val_accuracy == pytest.approx(accuracy)
    again, history_again = train(0)
    assert history_again == history
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(model.layers) == 3, "augmentation stays outside the model"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="sees the batches through TensorFlow")
def test_every_epoch_is_trained_in_an_order_of_its_own(tmp_path: Path) -> None:
    class Recorder(keras.layers.Layer):
        def call(self, x: Any, training: bool = False) -> Any:
            return tf.ensure_shape(tf.py_function(self.record, [x], tf.float32), x.shape) if training else x

        def record(self, x: Any) -> Any:
            seen.extend(x.numpy()[:, 0, 0, 0].astype(int).tolist())
            return x

    seen: list[int] = []
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(Recorder()(inputs))))
    images_nhwc = np.arange(17, dtype=np.float32)[:, np.newaxis, np.newaxis, np.newaxis]
    keras.utils.set_random_seed(0)
    train_model(
        model, images_nhwc, np.arange(17) % 2, epochs=3, batch_size=5, learning_rate=0.1, validation_fraction=0.0,
        patience=None, augmentation=Augmentation(), seed=7, checkpoints=Checkpoints(tmp_path / "c"),
    )  # fmt: skip
    orders = [epoch_order(np.arange(17), 7, epoch).tolist() for epoch in range(3)]
    assert [seen[start : start + 17] for start in (0, 17, 34)] == orders
    assert orders[0] != orders[1] != orders[2] and sorted(orders[1]) == list(range(17))


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts what TensorFlow traces")
def test_a_step_of_training_is_traced_once(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_of, traced = keras.losses.SparseCategoricalCrossentropy.call, []

    def record(loss: Any, *tensors: Any) -> Any:
        traced.append(loss)
        return loss_of(loss, *tensors)

    monkeypatch.setattr(keras.losses.SparseCategoricalCrossentropy, "call", record)
    images_nhwc, labels_n = rng.normal(size=(40, 8, 8, 1)).astype(np.float32), np.arange(40) % 10
    train_model(
        one_layer(), images_nhwc, labels_n, epochs=2, batch_size=8, learning_rate=0.1, validation_fraction=0.25,
        patience=None, augmentation=Augmentation(), seed=0, checkpoints=Checkpoints(tmp_path / "c"),
    )  # fmt: skip
    assert len(traced) == 2, "once to train, once to validate"


def test_training_stops_early_and_without_validation_keeps_the_last_epoch(
    rng: np.random.Generator, tmp_path: Path
) -> None:
    images_nhwc, labels_n = rng.normal(size=(40, 8, 8, 1)).astype(np.float32), np.arange(40) % 10
    settings: dict[str, Any] = {"batch_size": 20, "augmentation": Augmentation(), "seed": 0}
    settings["checkpoints"] = Checkpoints(tmp_path / "c")
    # Nothing is learnt at this rate, so no later epoch is better than the first.
    history = train_model(
        one_layer(), images_nhwc, labels_n, epochs=9, learning_rate=1e-30, validation_fraction=0.25,
        patience=2, **settings,
    )  # fmt: skip
    assert len(history) == best_epoch(history).epoch + 2 < 9
    last = train_model(
        one_layer(), images_nhwc, labels_n, epochs=2, learning_rate=0.01, validation_fraction=0.0,
        patience=None, **settings,
    )  # fmt: skip
    assert best_epoch(last) is last[-1] and last[-1].val_accuracy is None


def train_small(checkpoints: Checkpoints, history: list[Epoch], **more: Any) -> tuple[list[np.ndarray], list[Epoch]]:
    """Weights and epochs of a small network with dropout, trained for 4 epochs of augmented digits."""
    digits = load_dataset("digits", "train")
    images_nhwc = (digits.images_nhwc[:200] / 16).astype(np.float32)
    keras.utils.set_random_seed(0)
    model = one_layer()
    found = train_model(
        model, images_nhwc, digits.labels_n[:200], epochs=4, batch_size=32, learning_rate=0.005,
        validation_fraction=0.2, patience=None, augmentation=Augmentation(True, 0.1, 0.1, 0.1), seed=0,
        checkpoints=checkpoints, history=history, **more,
    )  # fmt: skip
    return model.get_weights(), found


def test_training_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    whole_weights, whole = train_small(Checkpoints(tmp_path / "whole"), [])
    assert len(list((tmp_path / "whole").iterdir())) <= 2
    reported: list[Epoch] = []

    def stop(n_done: int, epoch: Epoch) -> None:
        reported.append(epoch)
        if epoch.epoch == n_done:
            raise Killed

    checkpoints = Checkpoints(tmp_path / "stopped")
    # The last time only the best epoch is still to be taken.
    for n_done in (1, 3, 4):
        with pytest.raises(Killed):
            train_small(checkpoints, list(reported), on_epoch=partial(stop, n_done))
        checkpoints = Checkpoints(tmp_path / "stopped", checkpoints.sha256s)
    weights, history = train_small(checkpoints, reported)
    assert history == whole
    for one, other in zip(whole_weights, weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_damaged_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    model = build_model("digits_cnn")
    model.compile()
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(model, 1)
    (path,) = (tmp_path / "c").iterdir()
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(RunStateError, match=r"epoch-0001.npz cannot be read .*; start a new run instead"):
        checkpoints.load(model, 1)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_saved_models_load_with_the_same_weights(tmp_path: Path, suffix: str, toy_model: Any) -> None:
    path = tmp_path / f"model{suffix}"
    save_model(toy_model, path)
    loaded = load_model(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    for one, other in zip(toy_model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_model_files_that_cannot_be_used_say_why(tmp_path: Path, toy_model: Any) -> None:
    def error_of(name: str, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError) as caught:
            load_model(tmp_path / name)
        return str(caught.value)

    assert "no such model file; give an .h5 or .keras file" in error_of("none.h5")
    assert "must be an intact model that Keras can load, got" in error_of("text.h5", b"hello")
    assert "must be an intact model that Keras can load, got" in error_of("x.keras", b"x")
    save_model(toy_model, tmp_path / "whole.h5")
    whole = (tmp_path / "whole.h5").read_bytes()
    assert "must be an intact model that Keras can load, got" in error_of("torn.h5", whole[: len(whole) // 2])
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["a"] = [1.0]
    assert "must hold a model with its layers, got weights or other data" in error_of("weights.h5")
    assert "load the weights into the model in the program that made it" in error_of("weights.h5")
    toy_model.save_weights(tmp_path / "toy.weights.h5")
    assert "must hold a model with its layers, got weights or other data" in error_of("toy.weights.h5")
    weights = toy_model.get_weights()
    weights[2][0, 0] = np.nan
    toy_model.set_weights(weights)
    save_model(toy_model, tmp_path / "nan.h5")
    assert "weights must be finite, got 1 NaN or infinite values in scores/kernel" in error_of("nan.h5")


TORCH = "a PyTorch model; build the network in Keras, copy the weights into it and save it with model.save()"
ONNX = "an ONNX model; give the Keras model that it was exported from"
TFLITE = "a TensorFlow Lite model; give the Keras model that it was converted from"
LOAD_OLD = "load it with tf.keras.models.load_model of TensorFlow 2.15 or before, and save it as model.h5"


def torch_file() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    return content.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.h5", b"", "must be a Keras model, got an empty file; copy or download the file again"),
        ("m.h5", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer to it; run `git lfs pull`"),
        ("m.keras", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer to it; run `git lfs pull`"),
        ("m.h5", b"\n<!DOCTYPE html><html>", "got a web page; download the file that the page is about"),
        ("m.h5", torch_file(), f"must be a Keras model, got {TORCH}"),
        ("m.keras", torch_file(), f"must be a Keras model, got {TORCH}"),
        ("m.h5", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", f"must be a Keras model, got {TORCH}"),
        ("m.pth", torch_file(), f"a model file must end in .h5 or .keras, got '.pth', {TORCH}"),
        ("m.pt", b"x", f"a model file must end in .h5 or .keras, got '.pt', {TORCH}"),
        ("m.onnx", b"\x08\x07\x12\x07pytorch", f"a model file must end in .h5 or .keras, got '.onnx', {ONNX}"),
        ("m.h5", b"\x08\x07\x12\x07tf2onnx", f"must be a Keras model, got {ONNX}"),
        ("m.tflite", b"\x20\0\0\0TFL3", f"a model file must end in .h5 or .keras, got '.tflite', {TFLITE}"),
        ("m.h5", b"\x20\0\0\0TFL3", f"must be a Keras model, got {TFLITE}"),
        ("m.pb", b"\x08\x01", f"a model file must end in .h5 or .keras, got '.pb', a TensorFlow graph; {LOAD_OLD}"),
        ("m.zip", b"x", "a model file must end in .h5 or .keras, got '.zip'"),
        ("m", b"x", "a model file must end in .h5 or .keras, got 'no ending'"),
    ],
)  # fmt: skip
def test_other_files_are_named_with_what_to_do(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name}: ") and message in str(caught.value)


def test_folders_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"must be an .h5 or .keras file, got a folder; give the file itself"):
        load_model(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    assert f"must be an .h5 or .keras file, got a SavedModel folder; {LOAD_OLD}" in str(caught.value)


def test_the_reason_is_told_behind_any_configuration(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(2, 1, name="c" * 400)])
    model.save(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        text = file.attrs["model_config"]
        text = text if isinstance(text, str) else text.decode()
        file.attrs["model_config"] = text.replace('"filters": 2', '"filters": -2, "strange": 5')
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path / "m.h5")
    assert "Unrecognized keyword arguments passed to Conv2D: {'strange': 5}" in str(caught.value)


def test_models_with_code_in_them_are_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Lambda(lambda x: x), keras.layers.Flatten()])
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(ModelError, match="Lambda layers hold code and are never loaded"):
        load_model(tmp_path / "lambda.keras")


def test_inspect_lists_layers_and_marks_the_pruned_one(
    tmp_path: Path, toy_model: Any, invoke: Callable[..., Result]
) -> None:
    save_model(toy_model, tmp_path / "toy.h5")
    result = invoke("inspect", tmp_path / "toy.h5")
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[1] == ["0", "conv", "Conv2D", "Nx2x2x4", "20", "<-", "pruned"]
    assert lines[-1] == ["3", "layers,", "30", "parameters"]
    as_json = invoke("inspect", tmp_path / "toy.h5", "--json", "--layer", "conv")
    assert '"name": "conv",\n    "class_name": "Conv2D",\n    "output_shape": [\n      null,' in as_json.stdout
    wrong = invoke("inspect", tmp_path / "toy.h5", "--layer", "7")
    assert (wrong.exit_code, "must be in -3..2" in wrong.output) == (78, True)


@pytest.mark.parametrize("name", ["a b", "ünï", r"$\x$", "-x", "_x", "a\x1b[31mb", "[bold]"])
def test_layers_may_have_any_name(tmp_path: Path, name: str, invoke: Callable[..., Result]) -> None:
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.TimeDistributed(layers.Dense(2, name=name), name=f"{name} again"),
            layers.Conv2D(3, 3, activation="relu", name=name),
            layers.Flatten(name=f"{name} flat"),
            layers.Dense(2, activation="softmax", name=f"{name} scores"),
        ]
    )
    model.save(tmp_path / "m.keras")
    shown = invoke("inspect", tmp_path / "m.keras")
    assert (shown.exit_code, "\x1b" in shown.stdout) == (0, False), shown.output
    assert name.replace("\x1b", r"\x1b") in shown.stdout
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x_test=rng.normal(size=(6, 4, 4, 1)).astype(np.float32), y_test=np.arange(6) % 2)
    arguments = ["--data", tmp_path / "d.npz", "--out", tmp_path, "--mode", "disabled", "--run-id", "r"]
    result = invoke("sweep", tmp_path / "m.keras", *arguments)
    assert result.exit_code == 0 and "\x1b" not in result.output
    assert (tmp_path / "r" / "figures" / "feature_maps.png").exists()


def test_an_output_can_be_named_where_there_is_one(
    tmp_path: Path, toy_model: Any, invoke: Callable[..., Result]
) -> None:
    for suffix in ("h5", "keras"):
        save_model(toy_model, tmp_path / f"toy.{suffix}")
        for output in ("0", toy_model.layers[-1].name):
            assert invoke("inspect", tmp_path / f"toy.{suffix}", "--output", output).exit_code == 0
        wrong = invoke("inspect", tmp_path / f"toy.{suffix}", "--output", "1")
        assert (wrong.exit_code, "must name an output of the model" in wrong.output) == (78, True)


@pytest.mark.parametrize(
    ("axis", "given"),
    [
        (-1, {}),
        ((1, 2, 3), {}),
        (None, {}),
        (-1, {"mean": 0.5, "variance": 2.0}),
        (None, {"mean": 0.5, "variance": 2.0}),
    ],
)
def test_normalization_loads(tmp_path: Path, axis: Any, given: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    images_nhwc = rng.normal(size=(5, 4, 4, 3)).astype(np.float32)
    layer = keras.layers.Normalization(axis, **given)
    if not given:
        layer.adapt(images_nhwc)
    model = keras.Sequential([keras.Input((4, 4, 3)), layer, keras.layers.Flatten(), keras.layers.Dense(2)])
    model.save(tmp_path / "m.keras")
    loaded = load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(loaded(images_nhwc), model(images_nhwc), rtol=1e-6)


def test_initial_values_are_not_drawn_again(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, kernel_initializer="orthogonal")]
    )
    for suffix in ("h5", "keras"):
        model.save(tmp_path / f"m.{suffix}")
        loaded = load_model(tmp_path / f"m.{suffix}")
        assert type(loaded.layers[-1].kernel_initializer).__name__ == "Zeros"
        for one, other in zip(model.get_weights(), loaded.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
