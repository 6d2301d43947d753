"""Models, images and runs that tests share."""

import fcntl
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
for name in [name for name in os.environ if name.startswith("WANDB_")]:
    del os.environ[name]
os.environ["WANDB_ERROR_REPORTING"] = "false"  # the client's own, which has no server here

import numpy as np
import pytest
from click.testing import CliRunner, Result

from lab3.app.cli import main
from lab3.base.backend import load_backend
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import save_model
from tests.pictures import draw_no_figures
from tests.wandb_server import WandbServer

SHARED = Path(__file__).parents[2] / "shared"


class MakeOnce(Protocol):
    def __call__(self, name: str, make: Callable[[Path], object], *, renders: bool = False) -> Path: ...


def pytest_sessionstart(session: pytest.Session) -> None:
    """Load what is slow to load, but not in the process that only hands out tests to parallel workers."""
    # A home of each test's own would have every process look for all fonts again.
    os.environ.setdefault("MPLCONFIGDIR", str(session.config.cache.mkdir("matplotlib")))
    if hasattr(session.config, "workerinput") or not session.config.getoption("tx", None):
        # While modules are loaded there is no garbage, and what they hold never is.
        gc.disable()
        load_backend("cpu")
        _load_hypothesis()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int | None:
    """One more than there are cores, as tests that wait for processes leave theirs idle; or what the variable says."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else len(os.sched_getaffinity(0)) + 1


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def _load_hypothesis() -> None:
    """The same examples every time, but for `make fuzz`, which sets how many there are."""
    from hypothesis import settings

    n_examples = os.environ.get("LAB3_FUZZ_EXAMPLES")
    settings.register_profile(
        "lab3", derandomize=n_examples is None, max_examples=int(n_examples or 100), database=None, deadline=None
    )
    settings.load_profile("lab3")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that fork processes come first, all to one of several workers: what they fork from is slow to start."""
    items.sort(key=lambda item: "forks" not in item.keywords)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture(autouse=True)
def _quick_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of one grey stand for the figures of a run, which take as long as a small sweep, but for `renders`."""
    if request.node.get_closest_marker("renders") is None:
        draw_no_figures(monkeypatch.setattr)


def leave_alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """A home folder and a current folder of one's own, no W&B key and no network."""
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.setenv("NETRC", str(folder / "home" / ".netrc"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setenv("KERAS_HOME", str(folder / "home" / ".keras"))
    monkeypatch.chdir(folder)


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
def make_once(tmp_path_factory: pytest.TempPathFactory) -> MakeOnce:
    """`make_once(name, make)`: a folder that `make` has filled, for whichever of the parallel workers asks first.

    Only where `renders` is given are its figures drawn.
    """
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place

    def made(name: str, make: Callable[[Path], object], *, renders: bool = False) -> Path:
        folder, done = place / name, place / f"{name}.done"
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                with pytest.MonkeyPatch.context() as patch:
                    leave_alone(patch, folder)
                    if not renders:
                        draw_no_figures(patch.setattr)
                    make(folder)
                done.touch()
        return folder

    return made


def run_lab3(*args: object) -> Result:
    """The command line in this process, which must succeed."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="session")
def toy_folder(make_once: MakeOnce) -> Path:
    """A folder to copy from: `toy.h5`, `toy.npz` and in `runs/toy` a finished sweep of them, with predictions."""

    def make(folder: Path) -> None:
        images_nhwc, labels_n = make_toy_images()
        save_model(make_toy_model(), folder / "toy.h5")
        np.savez(folder / "toy.npz", x_test=images_nhwc, y_test=labels_n)
        settings = ("data.scale=1.0", "sweep.save_predictions=true", "sweep.feature_maps_k=[2]")
        changes = [f"--set={setting}" for setting in settings]
        run_lab3("sweep", folder / "toy.h5", "--data", folder / "toy.npz", "--run-id", "toy", *changes)

    return make_once("toy", make)


@pytest.fixture(scope="session")
def digits_folder(make_once: MakeOnce) -> Path:
    """A folder to copy from: `run`, the quick start of two epochs, tracked offline, and `output`, what it printed."""

    def make(folder: Path) -> None:
        import wandb

        wandb.teardown()
        with pytest.MonkeyPatch.context() as patch:
            patch.delenv("WANDB_MODE")
            result = run_lab3("run", "digits", "train.epochs=2", "sweep.feature_maps_k=[2]")
        wandb.teardown()
        (folder / "output").write_text(result.output)
        (folder / "run").symlink_to(folder / result.stdout.splitlines()[-1])

    return make_once("digits", make, renders=True)


def fit_digits() -> Any:
    """8 and 16 random filters, and the scores that fit 100 of the digits by least squares: made without training."""
    import keras

    keras.utils.set_random_seed(3)
    convolutions = [keras.layers.Conv2D(n, 3, activation="relu", name=name) for n, name in ((8, "first"), (16, "conv"))]
    model = keras.Sequential([keras.Input((8, 8, 1)), *convolutions, keras.layers.Flatten(), keras.layers.Dense(10)])
    train = load_dataset("digits", "train")
    features = keras.Model(model.inputs[0], model.layers[-2].output)
    inputs_nf = keras.ops.convert_to_numpy(features(train.images_nhwc[:100] / np.float32(16)))
    inputs_nf = np.hstack([inputs_nf, np.ones((100, 1), np.float32)])
    # A ridge keeps the scores small, so that training on changes them.
    square_ff = inputs_nf.T @ inputs_nf + 3 * np.eye(inputs_nf.shape[1])
    weights_fl = np.linalg.solve(square_ff, inputs_nf.T @ (8 * np.eye(10)[train.labels_n[:100]]))
    model.layers[-1].set_weights([weights_fl[:-1], weights_fl[-1]])
    model.layers[-1].activation = keras.activations.softmax
    return model


@pytest.fixture(scope="session")
def fitted_model(make_once: MakeOnce) -> Path:
    """See `fit_digits`, as .h5."""
    return make_once("fitted", lambda folder: save_model(fit_digits(), folder / "fitted.h5")) / "fitted.h5"


@pytest.fixture(scope="session")
def compressed_folder(make_once: MakeOnce, fitted_model: Path) -> Path:
    """A folder to copy from: `runs/c`, `fitted_model` compressed, and `output`, what was printed."""

    def make(folder: Path) -> None:
        from lab3.app.pipeline import compact_folder

        data = ("--data", "digits", "--train-data", "digits", "--budget", "0.1")
        settings = ("--set", "data.scale=16", "--set", "compress.n_images=400", "--mode", "disabled", "--run-id", "c")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compact_folder, "TIMING_S", 0.0)
            result = run_lab3("compress", fitted_model, *data, *settings)
        (folder / "output").write_text(result.output)

    return make_once("compressed", make)


@pytest.fixture(scope="session")
def few_digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Arguments that have an experiment of the digits train on 200 of them and test on 100."""
    path = tmp_path_factory.mktemp("digits") / "few.npz"
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    arrays: dict[str, Any] = {"x_train": train.images_nhwc[:200], "y_train": train.labels_n[:200]}
    np.savez(path, **arrays, x_test=test.images_nhwc[:100], y_test=test.labels_n[:100])
    return "--data", str(path), "--train-data", str(path)


@pytest.fixture
def toy(toy_folder: Path, tmp_path: Path) -> Path:
    """A finished run of 4 points; model and data stay where they were."""
    return Path(shutil.copytree(toy_folder / "runs" / "toy", tmp_path / "runs" / "toy"))


@pytest.fixture
def own(digits_folder: Path, tmp_path: Path) -> Path:
    """A finished run of 32 points that trained its network for two epochs."""
    return Path(shutil.copytree(digits_folder / "run", tmp_path / "own", symlinks=True))


@pytest.fixture
def toy_files(toy_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """`toy_model` as .h5 and its images as .npz."""
    model, data = (Path(shutil.copy(toy_folder / name, tmp_path)) for name in ("toy.h5", "toy.npz"))
    return model, data


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
