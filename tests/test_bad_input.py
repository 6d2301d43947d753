"""Bad input: one message that says what to do, the exit code, and nothing left behind."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from lab3.inputs.model_files import save_model
from tests.folders import DIGITS


@pytest.fixture(scope="module")
def broken_folder(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`toy.h5` and `toy.npz`, and files that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("broken")
    model = Path(shutil.copy(toy_folder / "toy.h5", folder))
    shutil.copy(toy_folder / "toy.npz", folder)
    (folder / "text.h5").write_text("not HDF5")
    (folder / "torn.h5").write_bytes(model.read_bytes()[:3000])
    no_conv = keras.Sequential([keras.Input((2, 2, 4)), keras.layers.Flatten(), keras.layers.Dense(2)])
    save_model(no_conv, folder / "no_conv.h5")
    nan = keras.models.clone_model(keras.saving.load_model(model, compile=False))
    nan.set_weights([np.full(weight.shape, np.nan) for weight in nan.get_weights()])
    save_model(nan, folder / "nan.h5")
    images, labels = np.zeros((3, 2, 2, 4), np.float32), np.array([0, 1, 1])
    np.savez(folder / "empty.npz", x_test=images[:0], y_test=labels[:0])
    np.savez(folder / "shape.npz", x_test=np.zeros((3, 5, 5, 4)), y_test=labels)
    np.savez(folder / "labels.npz", x_test=images, y_test=labels + 1)
    np.savez(folder / "nan.npz", x_test=images + np.nan, y_test=labels)
    for name in ("a", "b", "c"):
        (folder / "three" / name).mkdir(parents=True)
        Image.new("RGBA", (2, 2)).save(folder / "three" / name / "1.png")
    (folder / "runs" / "taken").mkdir(parents=True)
    (folder / "runs" / "taken" / "manifest.json").write_text("{}")
    (folder / "runs" / "group").mkdir()
    (folder / "runs" / "group" / "comparison.csv").touch()
    (folder / "a_file").write_text("")
    return folder


@pytest.fixture
def broken(broken_folder: Path, tmp_path: Path) -> None:
    """All of them in the current folder."""
    shutil.copytree(broken_folder, tmp_path, dirs_exist_ok=True)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize(
    ("args", "exit_code", "message"),
    [
        (["sweep", "none.h5"], 65, "none.h5: no such model file; give an .h5 or .keras file"),
        (["sweep", "text.h5"], 65, "text.h5: must be an intact model that Keras can load, got"),
        (["sweep", "torn.h5"], 65, "torn.h5: must be an intact model that Keras can load, got"),
        (["sweep", "nan.h5"], 65, "nan.h5: weights must be finite, got 16 NaN or infinite values in conv/kernel"),
        (["sweep", "no_conv.h5"], 65, "must have a Conv2D on the way to its output, got none; name a Dense layer"),
        (["--layer", "konv"], 78, "prune.layer must name a layer of the model, got 'konv'; did you mean conv?"),
        (["--layer", "-9"], 78, "prune.layer must be in -3..2 (the model has 3 layers), got -9"),
        (["--data", "none.zip"], 65, "none.zip: no such file or folder; data must be digits, cifar10, or the path"),
        (["--data", "empty.npz"], 65, "empty.npz: there must be at least one image, got none"),
        (["--data", "shape.npz"], 65, "shape.npz: the model takes images of 2x2x4, got 5x5x4; resize the images"),
        (["--data", "digits"], 65, "digits (test split): the model takes images of 2x2x4, got 8x8x1"),
        (
            ["--data", "labels.npz"],
            65,
            "labels.npz: labels must be in 0..1 (the model has 2 classes), got 2 for image",
        ),
        (["--data", "nan.npz"], 65, "nan.npz: pixels must be finite numbers, got NaN or infinity in 3 images"),
        (["--data", "three"], 65, "three: the model takes images of 2x2x4, got 2x2x3"),
        (["--set", "sweep.schedule=0:9"], 78, "sweep.schedule must stay in 0..C-1 = 0..3"),
        (["--set", "sweep.schedule=[0,4]"], 78, "which holds K=4"),
        (["--set", "sweep.feature_maps_k=[7]"], 78, "sweep.feature_maps_k must be K of the schedule '0:C:1', got 7"),
        (["--set", "sweep.shedule=0:C:1"], 78, "sweep.shedule: unknown key, did you mean sweep.schedule?"),
        (["--set", "data.mean=[1, 2]"], 78, "data.mean must be one number or one per channel (4), got 2 numbers"),
        (["--run-id", "taken"], 78, "run runs/taken exists already; continue it with `lab3 resume runs/taken`"),
        (["--run-id", "group"], 78, "runs/group exists already and is no run; choose another --run-id"),
        (["--run-id", "../up"], 78, "a run id must be 1 to 128 letters, digits"),
        (["--out", "a_file"], 78, "the run folder a_file/"),
        (["--device", "gpu"], 78, "--device gpu: tensorflow sees no GPU on this machine; use --device cpu or auto"),
        (
            ["run", "none.yaml"],
            78,
            "none.yaml: no such file; give the path of an experiment, or the name of one that lab3 ships: digits, "
            "simplecnn_cifar10, vgg16_cifar10",
        ),
        (["resume", "nowhere"], 78, "nowhere: no such run folder"),
        (["resume", "three"], 78, "three is not a run folder: config.yaml and manifest.json missing"),
        (["sweep"], 2, "Missing argument 'MODEL'"),
        (["--mode", "sometimes"], 2, "'sometimes' is not one of 'online', 'offline', 'disabled'"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(
    args: list[str], exit_code: int, message: str, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    if args[0] == "sweep" and len(args) == 2:
        args = [*args, "--data", "toy.npz"]
    elif args[0].startswith("--"):
        data = [] if "--data" in args else ["--data", "toy.npz"]
        args = ["sweep", "toy.h5", *data, *args]
    before = sorted(tmp_path.rglob("*"))
    result = invoke(*args)
    assert message in result.stderr
    assert result.exit_code == exit_code
    assert "Traceback" not in result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_training_on_the_test_images_is_refused(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    images = np.zeros((30, 8, 8, 1), np.uint8) + np.arange(30, dtype=np.uint8)[:, None, None, None]
    labels = np.arange(30) % 10
    np.savez(tmp_path / "both.npz", x_test=images, y_test=labels, x_train=images, y_train=labels)
    result = invoke("run", DIGITS, "--data", tmp_path / "both.npz")
    assert result.exit_code == 65 and "must be tested on other images than it was trained on" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_a_bug_keeps_its_traceback(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("lab3.app.pipeline.sweeping.plan_pruning", bug)
    result = invoke("sweep", toy_files[0], "--data", toy_files[1])
    assert result.exit_code == 1 and isinstance(result.exception, ZeroDivisionError)


def test_values_of_the_command_line_are_not_blamed_on_the_file(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("seed: x\nsweep: {batch_size: 8}\n")
    result = invoke("run", "bad.yaml", "--set", "sweep.shedule=3", "sweep.batch_size=-1", "--data", "digits")
    assert result.exit_code == 78
    assert result.stderr == (
        "Error: bad.yaml: 1 problem\n"
        "  seed: must be an integer, got 'x'\n"
        "the command line: 2 problems\n"
        "  sweep.batch_size: must be at least 1, got -1\n"
        "  --set sweep.shedule: unknown key, did you mean sweep.schedule?\n"
    )
    nested = invoke("validate", "bad.yaml", "--set", "seed=1", "--set", "sweep={batch_size: 0}")
    assert nested.stderr == (
        "Error: the command line: 1 problem\n  --set sweep.batch_size: must be at least 1, got 0\n"
    )
    assert "Error: a setting must be key=value with a dotted key, got 'seed'; example: train.epochs=3\n" == (
        invoke("run", "bad.yaml", "seed").stderr
    )


@pytest.mark.parametrize(("name", "code"), [("x" * 5000, 78), ("journal.jsonl/r", 78)])
def test_a_name_that_cannot_be_a_run_is_told(name: str, code: int, invoke: Callable[..., Result]) -> None:
    Path("journal.jsonl").touch()
    for command in ("resume", "verify"):
        result = invoke(command, name)
        assert result.exit_code in (code, 65 if command == "verify" else code) and "Error: " in result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
