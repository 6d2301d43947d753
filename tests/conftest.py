"""Models, images and runs that tests share."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lab3.app.cli import main
from lab3.base.backend import load_backend
from lab3.inputs.model_files import save_model
from tests.wandb_server import WandbServer

load_backend("cpu")

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home folder and a current folder of the test's own, no W&B key and no network."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home" / ".keras"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fresh_client() -> Iterator[None]:
    """W&B's client reads the environment once a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def server() -> Iterator[WandbServer]:
    """W&B's server on loopback; it must have known all that it was asked."""
    with WandbServer() as running:
        yield running
        assert running.errors == []


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def make_toy_model() -> Any:
    """A 1x1 convolution to 4 channels that copies the image's 4 channels, and a head whose answers are known on paper.

    Class 0 gets the sum of the even channels, class 1 that of the odd ones.
    """
    import keras

    model = keras.Sequential(
        [
            keras.Input((2, 2, 4)),
            keras.layers.Conv2D(4, 1, activation="relu", name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="scores"),
        ]
    )
    model.get_layer("conv").set_weights([np.eye(4, dtype=np.float32)[np.newaxis, np.newaxis], np.zeros(4, np.float32)])
    model.get_layer("scores").set_weights(
        [np.array([[1, 0], [0, 1], [1, 0], [0, 1]], np.float32), np.zeros(2, np.float32)]
    )
    return model


def make_toy_images() -> tuple[np.ndarray, np.ndarray]:
    """Four constant images for `toy_model`. Channel means are 1, 2, 3, 4.

    Sums of even and odd channels at K = 0: 12:8, 2:4, 1:4, 1:8, all right. K = 1 takes channel 0: 10:8, 1:4, 0:4, 1:8,
    all right. K = 2: 10:8, 1:0, 0:4, 1:4, three right. K = 3: 0:8, 0:0, 0:4, 0:4, two right.
    """
    values_nc = np.array([[2, 0, 10, 8], [1, 4, 1, 0], [1, 0, 0, 4], [0, 4, 1, 4]], np.float32)
    return np.broadcast_to(values_nc[:, np.newaxis, np.newaxis, :], (4, 2, 2, 4)).copy(), np.array([0, 1, 1, 1])


@pytest.fixture
def toy_model() -> Any:
    """See `make_toy_model`."""
    return make_toy_model()


@pytest.fixture
def toy_images() -> tuple[np.ndarray, np.ndarray]:
    """See `make_toy_images`."""
    return make_toy_images()


@pytest.fixture(scope="session")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs for tests to copy: `toy` of a model file, `own` of a network it trained."""
    folder = tmp_path_factory.mktemp("finished")
    images_nhwc, labels_n = make_toy_images()
    save_model(make_toy_model(), folder / "toy.h5")
    np.savez(folder / "toy.npz", x_test=images_nhwc, y_test=labels_n)
    common = ["--mode", "disabled", "--out", str(folder / "runs")]
    settings = ["data.scale=1.0", "sweep.save_predictions=true", "sweep.feature_maps_k=[2]"]
    toy = ["sweep", folder / "toy.h5", "--data", folder / "toy.npz", "--run-id", "toy"]
    digits = Path(__file__).parents[1] / "experiments" / "digits.yaml"
    own = [
        "run",
        digits,
        "train.epochs=1",
        "sweep.schedule=0:C:8",
        "--set",
        "sweep.feature_maps_k=[]",
        "--run-id",
        "own",
    ]
    for args in ([*toy, *(f"--set={setting}" for setting in settings)], own):
        result = CliRunner().invoke(main, [str(arg) for arg in [*args, *common]])
        assert result.exit_code == 0, result.output
    return folder / "runs"


@pytest.fixture
def toy_files(tmp_path: Path, toy_model: Any, toy_images: Any) -> tuple[Path, Path]:
    """`toy_model` as .h5 and its images as .npz."""
    images_nhwc, labels_n = toy_images
    save_model(toy_model, tmp_path / "toy.h5")
    np.savez(tmp_path / "toy.npz", x_test=images_nhwc, y_test=labels_n)
    return tmp_path / "toy.h5", tmp_path / "toy.npz"


@pytest.fixture
def invoke() -> Callable[..., Result]:
    """The command line in this process."""
    return lambda *args: CliRunner().invoke(main, [str(arg) for arg in args])


def shared_file(name: str) -> Path:
    """A file of the CIFAR-10 and VGG-16 material beside the checkout; skips the test where it is absent."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path
