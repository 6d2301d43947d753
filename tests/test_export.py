"""`lab3 export`: what it writes, what it compares, what it refuses."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from lab3.app.pipeline import compact_folder, exporting, runtimes
from lab3.base.files import sha256_file
from lab3.inputs.data import load_dataset
from tests.conftest import MakeOnce, run_lab3, shared_file

FORMATS = {"onnx": "model.onnx", "litert": "model.tflite"}


@pytest.fixture(scope="session")
def compact_digits(make_once: MakeOnce, digits_folder: Path) -> Path:
    """A folder to copy from: `run`, that of the digits with its compact model at K = 8."""

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compact_folder, "TIMING_S", 0.0)
            shutil.copytree(digits_folder / "run", folder / "run", symlinks=True)
            run_lab3("compact", folder / "run", "--k", "8")

    return make_once("compact", make)


@pytest.fixture
def run(compact_digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compact_digits / "run", tmp_path / "run", symlinks=True))


def digits() -> tuple[np.ndarray, np.ndarray]:
    images = load_dataset("digits", "test")
    return images.images_nhwc.astype(np.float32) / 16, images.labels_n


def run_as_keras(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Any]:
    """In place of a runtime: the Keras model itself, its scores changed."""
    model = keras.saving.load_model(folder / "compact" / "model.keras", compile=False)
    return lambda *_: lambda inputs: change(keras.ops.convert_to_numpy(model(inputs, training=False)))


@pytest.fixture
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_folder, "TIMING_S", 0.0)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "check_packages", lambda format: {"runtime": "1.0"})


@pytest.mark.usefixtures("no_packages")
def test_a_run_gets_an_exported_model_with_a_record(
    run: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "open_exported", run_as_keras(run, lambda scores_nl: scores_nl))
    result = invoke("export", run, "--format", "litert")
    assert result.exit_code == 0, result.output
    file = run / "compact" / "model.tflite"
    assert result.stdout.splitlines()[-1] == str(file)
    assert f"{file.stat().st_size:,} bytes; takes float32 images Nx8x8x1, pixels divided by 16\n" in result.stdout
    record = json.loads((run / "compact" / "export-litert.json").read_text())
    proof = json.loads((run / "compact" / "proof.json").read_text())
    assert (record["n_images"], record["n_equal"], record["n_tied"]) == (445, 445, 0)
    assert record["correct"] == proof["proof"]["correct"] and record["largest_difference"] <= 1e-6
    assert (record["source"], record["sha256_of_file"]) == (proof["files"]["model.keras"], sha256_file(file))
    intact = invoke("verify", run)
    assert intact.exit_code == 0 and "not of the run" not in intact.stdout
    file.write_bytes(b"another")
    assert "compact/model.tflite is not what the run wrote" in invoke("verify", run).stdout


@pytest.mark.usefixtures("no_packages")
@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda scores_nl: np.roll(scores_nl, 1, axis=1), "445 of 445 images are predicted otherwise"),
        (lambda scores_nl: scores_nl * 1.01, "0 of 445 images are predicted otherwise, and scores differ by 0.01 of"),
        (lambda scores_nl: scores_nl * np.nan, "scores differ by nan of the largest"),
    ],
)
def test_a_model_that_predicts_otherwise_is_not_written(
    change: Callable[[np.ndarray], np.ndarray],
    text: str,
    run: Path,
    invoke: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporting, "open_exported", run_as_keras(run, change))
    result = invoke("export", run, "--format", "litert")
    assert result.exit_code == 65 and text in " ".join(result.output.split())
    assert sorted(path.name for path in (run / "compact").iterdir()) == ["model.h5", "model.keras", "proof.json"]
    assert not list(run.glob(".export*"))


@pytest.mark.usefixtures("no_packages")
def test_what_is_missing_is_named(
    own: Path, run: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    none = invoke("export", own, "--format", "onnx")
    assert none.exit_code == 78 and f"`lab3 compact {own}` makes it" in " ".join(none.output.split())
    (run / "compact" / "model.keras").write_bytes(b"another")
    changed = invoke("export", run, "--format", "onnx")
    assert changed.exit_code == 78 and "must be the file that was proven" in changed.output
    monkeypatch.undo()
    monkeypatch.setattr(runtimes, "find_spec", lambda module: None)
    result = invoke("export", run, "--format", "onnx")
    assert result.exit_code == 78
    assert "got no tf2onnx and no onnxruntime; pip install 'lab3[onnx]'" in " ".join(result.output.split())


@pytest.mark.usefixtures("no_packages", "_quick_timing")
def test_images_of_a_folder_must_be_those_of_the_run(invoke: Callable[..., Result], tmp_path: Path) -> None:
    # Their hash is known only once they are read.
    for number in range(8):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 30 * number, np.uint8)).save(path)
    layers = keras.layers
    stack = [layers.Conv2D(4, 3, activation="relu"), layers.Flatten(), layers.Dense(2, activation="softmax")]
    keras.Sequential([keras.Input((4, 4, 3)), *stack]).save(tmp_path / "m.keras")
    sweep = invoke("sweep", tmp_path / "m.keras", "--data", tmp_path / "photos", "--run-id", "r", "--mode", "disabled")
    assert sweep.exit_code == 0, sweep.output
    assert invoke("compact", tmp_path / "runs" / "r", "--k", "1").exit_code == 0
    Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(tmp_path / "photos" / "a" / "0.png")
    result = invoke("export", tmp_path / "runs" / "r", "--format", "litert")
    assert result.exit_code == 78 and "the test data must be what the run was started with" in result.output
    assert not (tmp_path / "runs" / "r" / "compact" / "model.tflite").exists()


@pytest.mark.parametrize("format", FORMATS)
def test_the_runtimes_themselves_predict_what_keras_does(format: str, run: Path, invoke: Callable[..., Result]) -> None:
    pytest.importorskip("tf2onnx" if format == "onnx" else "ai_edge_litert")
    result = invoke("export", run, "--format", format, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["n_equal"] == 445
    inputs, labels_n = digits()
    file, model = run / "compact" / FORMATS[format], keras.saving.load_model(run / "compact" / "model.keras")
    runtime = runtimes.open_exported(format, file)  # type: ignore[arg-type]
    expected_nl = keras.ops.convert_to_numpy(model(inputs, training=False))
    found_nl = np.concatenate([runtime(inputs[:100]), runtime(inputs[100:])])
    np.testing.assert_allclose(found_nl, expected_nl, atol=1e-5)
    assert (found_nl.argmax(axis=1) == labels_n).sum() == json.loads(result.stdout)["correct"]


@pytest.mark.shared
@pytest.mark.parametrize("format", FORMATS)
def test_the_compact_vgg_is_exported(format: str, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    pytest.importorskip("tf2onnx" if format == "onnx" else "ai_edge_litert")
    model, data = shared_file("models/vgg16_cifar10_keras2.h5"), shared_file("data/cifar10-test.zip")
    settings = ("--set", "prune.measured=output", "--set", "sweep.schedule=[0,230]", "--run-id", "v")
    assert invoke("sweep", model, "--data", data, *settings).exit_code == 0
    assert invoke("compact", tmp_path / "runs" / "v", "--k", "230").exit_code == 0
    result = invoke("export", tmp_path / "runs" / "v", "--format", format, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    print(format, found["n_equal"], found["n_tied"], found["largest_difference"], found["correct"], found["n_bytes"])
    assert (found["n_images"], found["n_equal"], found["correct"]) == (10_000, 10_000, 8045)
