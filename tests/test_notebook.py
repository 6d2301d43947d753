import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from rich.console import Console

import lab3
from lab3 import notebook
from lab3.arguments import Arguments
from lab3.base import bars
from lab3.config import Config
from lab3.errors import ConfigError, DataError, Lab3Error, ModelError
from lab3.vocabulary import Criterion

CRITERIA = ", ".join(f"'{name}'" for name in Criterion.__args__)  # type: ignore[attr-defined]
LABELS = "lab3.sweep: labels must be integers (N,) or (N, 1), or one-hot rows (N, 2)"


def test_load_sweep_plot(toy_model: Any, toy_images: Any) -> None:
    images_nhwc, labels_n = toy_images
    result = lab3.sweep(toy_model, images_nhwc, labels_n)
    assert (result.layer_name, result.n_channels) == ("conv", 4)
    assert [point.correct for point in result.points.values()] == [4, 4, 3, 2]
    assert [stats.channel for stats in result.channels] == [0, 1, 2, 3]
    assert (result.self_check.n_images, result.self_check.ks, result.self_check.n_tied) == (4, (0, 2, 3), 0)
    figure = result.plot()
    (axes,) = figure.axes
    curve = axes.get_lines()[0]
    assert curve.get_xdata().tolist() == [0, 1, 2, 3] and curve.get_ydata().tolist() == [1.0, 1.0, 0.75, 0.5]
    assert axes.get_title() == (
        "Accuracy as channels of conv are pruned\ncriterion mean_activation, effect remove, 4 images"
    )


def test_settings_reach_the_sweep(toy_model: Any, toy_images: Any) -> None:
    result = lab3.sweep(
        toy_model, *toy_images, layer=0, schedule="0:C:2", effect="zero_weights", bias="keep", batch_size=3
    )
    assert [(k, point.k, point.pruned_channels) for k, point in result.points.items()] == [(0, 0, ()), (2, 2, (0, 1))]


def test_the_defaults_are_those_of_the_settings() -> None:
    parameters = inspect.signature(lab3.sweep).parameters
    sections = (Config().prune, Config().sweep, Config())
    for name in list(parameters)[3:-1]:
        (section,) = [section for section in sections if name in type(section).model_fields]
        assert parameters[name].default == getattr(section, name), name
    assert parameters["progress"].default is Arguments().progress is True
    assert set(Arguments.model_fields) >= set(parameters) - {"model", "images", "labels"}


MISTAKES: dict[str, tuple[dict[str, Any], type[Lab3Error], str]] = {
    "part of a name": (
        {"criterion": "l1"},
        ConfigError,
        f"criterion: must be one of {CRITERIA} (did you mean filter_l1?), got 'l1'",
    ),
    "two near names": (
        {"criterion": "mean"},
        ConfigError,
        f"criterion: must be one of {CRITERIA} (did you mean mean_activation or mean_absolute?), got 'mean'",
    ),
    "no such criterion": (
        {"criterion": "nonsense"}, ConfigError, f"criterion: must be one of {CRITERIA}, got 'nonsense'"
    ),
    "ranking": ({"ranking": "twice"}, ConfigError, "ranking: must be one of 'once', 'iterative', got 'twice'"),
    "effect": (
        {"effect": "removed"},
        ConfigError,
        "effect: must be one of 'remove', 'zero_weights' (did you mean remove?), got 'removed'",
    ),
    "measured": (
        {"measured": "before"},
        ConfigError,
        "measured: must be one of 'activation', 'output', 'before_activation' (did you mean before_activation?), "
        "got 'before'",
    ),
    "bias": ({"bias": True}, ConfigError, "bias: must be one of 'zero', 'keep', got True"),
    "average": ({"average": None}, ConfigError, "average: must be one of 'images', 'batches', got null"),
    "average_batch_size": (
        {"average_batch_size": 0}, ConfigError, "average_batch_size: must be at least 1, got 0"
    ),
    "shortcut": (
        {"shortcut": "margins"},
        ConfigError,
        "shortcut: must be one of 'none', 'unchanged', 'inferred', got 'margins'",
    ),
    "schedule": (
        {"schedule": "0:C:0"},
        ConfigError,
        "schedule: must be 'start:stop:step' with integers, a positive step and C for the number of channels, or "
        "a list of K, got '0:C:0'",
    ),
    "schedule of parts": ({"schedule": [0, 1.5]}, ConfigError, "schedule.1: must be an integer, got 1.5"),
    "seed": ({"seed": -1}, ConfigError, "seed: must be at least 0, got -1"),
    "batch_size": ({"batch_size": 2000.0}, ConfigError, "batch_size: must be an integer, got 2000.0"),
    "layer": ({"layer": 1.0}, ConfigError, "layer: must be text or an integer, got 1.0"),
    "progress": ({"progress": "no"}, ConfigError, "progress: must be true or false, got 'no'"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_wrong_settings_are_told(name: str, toy_model: Any, toy_images: Any) -> None:
    settings, error, message = MISTAKES[name]
    with pytest.raises(error) as caught:
        lab3.sweep(toy_model, *toy_images, **settings)
    assert str(caught.value) == f"lab3.sweep: 1 problem\n  {message}"


def test_all_wrong_settings_are_told_at_once(toy_model: Any, toy_images: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        lab3.sweep(toy_model, *toy_images, ranking="twice", seed=True)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "lab3.sweep: 2 problems\n  ranking: must be one of 'once', 'iterative', got 'twice'\n"
        "  seed: must be an integer, got True"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "con"}, "layer must name a layer of the model, got 'con'; did you mean conv?"),
        ({"layer": 7}, "layer must be in -3..2 (the model has 3 layers), got 7; `model.summary()` lists them"),
        (
            {"schedule": [0, 4]},
            "schedule must stay in 0..C-1 = 0..3 (one channel is always left), got [0, 4], which holds K=4; '0:C:1' is "
            "every K",
        ),
        (
            {"bias": "keep"},
            "bias must be zero where effect is remove, got keep: a removed channel has no bias; set "
            "effect=zero_weights to keep it",
        ),
    ],
)
def test_settings_that_do_not_fit_the_model(settings: Any, message: str, toy_model: Any, toy_images: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        lab3.sweep(toy_model, *toy_images, **settings)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Path("my.h5"),
            "lab3.sweep: model must be a Keras model, got the path 'my.h5'; load it first with "
            "lab3.load_model('my.h5')",
        ),
        (
            {"conv": 1},
            "lab3.sweep: model must be a Keras 3 model, got a dict; save it as .h5 or .keras and load that with "
            "lab3.load_model",
        ),
        (
            keras.Sequential([keras.layers.Dense(2)], name="unbuilt"),
            "the model must be Sequential or Functional with a known input shape, got Sequential 'unbuilt'; rebuild it "
            "with keras.Input(shape) first",
        ),
    ],
)
def test_what_is_no_model(model: Any, message: str, toy_images: Any) -> None:
    with pytest.raises(ModelError) as caught:
        lab3.sweep(model, *toy_images)
    assert str(caught.value) == message


IMAGES, NUMBERS = np.zeros((4, 2, 2, 4), np.float32), np.array([0, 1, 1, 1])
BAD_DATA: dict[str, tuple[Any, Any, str]] = {
    "a list": (
        list(IMAGES),
        NUMBERS,
        "images must be an array (N, 2, 2, 4), got a list; make one with numpy.stack(images)",
    ),
    "no numbers": (
        IMAGES.astype(object),
        NUMBERS,
        "images must hold numbers, got an array of object; make one array of equal images with "
        "numpy.stack(images).astype('float32')",
    ),
    "one image": (
        IMAGES[0],
        NUMBERS[:1],
        "images must be an array (N, 2, 2, 4), got (2, 2, 4); that is one image: give images[numpy.newaxis]",
    ),
    "flat images": (
        IMAGES.reshape(4, 16),
        NUMBERS,
        "images must be an array (N, 2, 2, 4), got (4, 16); give them the shape with images.reshape",
    ),
    "another size": (
        IMAGES[:, :1],
        NUMBERS,
        "the model takes images of 2x2x4, got 1x2x4; resize the images, or use the data the model was trained for",
    ),
    "channels first": (
        IMAGES.transpose(0, 3, 1, 2),
        NUMBERS,
        "the model takes images of 2x2x4, got 4x2x2; they look channels-first; lab3 wants (N, H, W, C): transpose them "
        "with images.transpose(0, 2, 3, 1)",
    ),
    "too few labels": (IMAGES, NUMBERS[:3], "there must be one label per image, got 4 and 3"),
    "no such class": (
        IMAGES,
        NUMBERS + 1,
        "labels must be in 0..1 (the model has 2 classes), got 2 for image 1 and 3 such labels in all",
    ),
    "parts of a class": (
        IMAGES,
        NUMBERS + 0.5,
        LABELS.removeprefix("lab3.sweep: ")
        + f", got float64, such as {np.float64(0.5)!r}; round them with labels.astype(int) if they are integers",
    ),
    "names": (
        IMAGES,
        ["cat", "dog", "dog", "dog"],
        LABELS.removeprefix("lab3.sweep: ")
        + f", got <U3, such as {np.str_('cat')!r}; give each class its number, in the order of the model's outputs",
    ),
    "soft rows": (
        IMAGES,
        np.full((4, 2), 0.5),
        LABELS.removeprefix("lab3.sweep: ")
        + ", got rows that are not one 1 among 0; take labels.argmax(axis=1) if the best counts",
    ),
    "rows of other classes": (
        IMAGES,
        np.eye(4, dtype=int),
        LABELS.removeprefix("lab3.sweep: ") + ", got (4, 4); the model has 2 classes",
    ),
    "no labels": (
        IMAGES,
        None,
        LABELS.removeprefix("lab3.sweep: ") + ", got a NoneType; make an array of class numbers of them",
    ),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_wrong_images_and_labels_are_told(name: str, toy_model: Any) -> None:
    images, labels, message = BAD_DATA[name]
    with pytest.raises(DataError) as caught:
        lab3.sweep(toy_model, images, labels)
    assert str(caught.value) == f"lab3.sweep: {message}"


@pytest.mark.parametrize(
    "given",
    [
        lambda labels_n: labels_n[:, np.newaxis],
        lambda labels_n: np.eye(2)[labels_n],
        lambda labels_n: labels_n.tolist(),
        lambda labels_n: labels_n == 1,
        lambda labels_n: keras.ops.convert_to_tensor(labels_n),
    ],
    ids=["column", "one-hot", "list", "bool", "tensor"],
)
def test_forms_of_labels(given: Any, toy_model: Any, toy_images: Any) -> None:
    images_nhwc, labels_n = toy_images
    of_numpy: dict[str, Any] = {"schedule": np.arange(0, 4, 2), "seed": np.int64(1)}
    result = lab3.sweep(toy_model, images_nhwc, given(labels_n), **of_numpy)
    assert {k: point.correct for k, point in result.points.items()} == {0: 4, 2: 3}


@pytest.mark.parametrize("input_shape", [(4, 3, 1), (4, 3)])
@pytest.mark.parametrize("has_channel", [True, False])
def test_images_of_one_channel(input_shape: tuple[int, ...], has_channel: bool) -> None:
    inputs = keras.Input(input_shape)
    x = keras.layers.Conv2D(3, 2, activation="relu")(keras.layers.Reshape((4, 3, 1))(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    images_nhw = np.random.default_rng(0).normal(size=(20, 4, 3)).astype(np.float32)
    labels_n = model.predict(images_nhw.reshape(-1, *input_shape), verbose=0).argmax(axis=1)
    result = lab3.sweep(model, images_nhw[..., np.newaxis] if has_channel else images_nhw, labels_n)
    assert result.at(0).correct == 20 and len(result.points) == 3


@pytest.mark.parametrize(
    ("images", "middle"),
    [
        (np.full((4, 2, 2, 4), 255, np.uint8), "pixels go up to 255 and may have to be scaled as in training, such as "
         "images / 255; "),
        (np.ones((4, 2, 2, 4)), ""),
    ],
)  # fmt: skip
def test_an_accuracy_about_chance_warns(images: Any, middle: str, toy_model: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        lab3.sweep(toy_model, images, [0, 1, 1, 0])
    (warned,) = [each for each in caught if each.category is UserWarning]
    assert str(warned.message) == (
        f"the accuracy at K = 0 is 0.5000, about chance for 2 classes: {middle}check the scaling of the images and the "
        "order of the classes"
    )
    assert warned.filename == __file__


def test_a_point_by_its_k(toy_model: Any, toy_images: Any) -> None:
    with warnings.catch_warnings(action="error", category=UserWarning):
        result = lab3.sweep(toy_model, *toy_images, schedule="0:C:2")
    assert result.at(2) is result.points[2] and result.at(2).pruned_channels == (0, 1)
    with pytest.raises(ConfigError) as caught:
        result.at(3)
    assert str(caught.value) == "at(K) must be given a K of the schedule (0, 2), got 3; the nearest is at(2)"
    with pytest.raises(ConfigError, match=r"\(0, 2\), got '2'; give an integer"):
        result.at("2")  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        result.points[3]


def test_a_compact_model_of_a_point(toy_model: Any, toy_images: Any) -> None:
    images_nhwc, labels_n = toy_images
    result = lab3.sweep(toy_model, images_nhwc, labels_n)
    compact = result.compact(2)
    # Channels 2 and 3 are left: class 0 gets the one, class 1 the other.
    assert keras.ops.convert_to_numpy(compact(images_nhwc)).tolist() == [[10, 8], [1, 0], [0, 4], [1, 4]]
    assert compact.get_layer("conv").filters == 2
    with pytest.raises(ConfigError, match=r"at\(K\) must be given a K of the schedule"):
        result.compact(9)
    toy_model.get_layer("scores").bias.assign([9, 0])
    with pytest.raises(ModelError, match="the model must have the weights that were swept, got 1 right of 4 at K=2"):
        result.compact(2)


def test_what_is_shown_is_short(toy_model: Any, toy_images: Any) -> None:
    result = lab3.sweep(toy_model, *toy_images)
    assert repr(result) == (
        "<Sweep of conv: 4 channels by mean_activation, effect remove, 4 images, 4 K; accuracy 1.0000 at K=0, 0.5000 "
        "at K=3>"
    )
    assert repr(result.points) == "<4 points, K = 0, 1, 2, 3>"
    assert repr(notebook.Points.fromkeys(range(0, 512, 2))) == "<256 points, K = 0, 2, 4, ..., 510>"
    assert repr(result.at(2)).startswith("SweepPoint(k=2, n_pruned=2, correct=3, total=4, loss=")


def test_to_pandas(toy_model: Any, toy_images: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    result = lab3.sweep(toy_model, *toy_images)
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ConfigError) as caught:
        result.to_pandas()
    assert str(caught.value) == "to_pandas must have pandas, which is not installed; run: pip install pandas"
    monkeypatch.undo()
    pandas = pytest.importorskip("pandas")
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table["k"]) == [0, 1, 2, 3] and list(table["correct"]) == [4, 4, 3, 2]
    assert list(table.columns[:6]) == ["k", "n_pruned", "correct", "total", "accuracy", "loss"]


@pytest.mark.parametrize("kind", ["terminal", "notebook"])
def test_progress_shows_where_a_person_looks(
    kind: str, toy_model: Any, toy_images: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab3.sweep(toy_model, *toy_images)
    assert capsys.readouterr() == ("", "")
    displayed: list[str] = []
    if kind == "terminal":
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
    else:
        monkeypatch.setattr(bars, "Console", lambda **settings: Console(force_jupyter=True, **settings))
        monkeypatch.setattr("rich.jupyter.display", lambda _segments, text: displayed.append(text))
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lab3.sweep(toy_model, *toy_images, progress=False)
    assert (*capsys.readouterr(), displayed) == ("", "", [])
    lab3.sweep(toy_model, *toy_images)
    if kind == "terminal":
        shown = capsys.readouterr().err
        assert "capture" in shown and "4/4" in shown and "K=3 accuracy 0.5000" in shown
    else:
        # Without ipywidgets lines are written, as to a log file.
        assert displayed[0] == "capture: 4 of 4 images\n" and displayed[-1] == "sweep: 4 of 4 K, K=3 accuracy 0.5000\n"


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'lab3' has no attribute 'sweeep'"):
        _ = lab3.sweeep


def test_certify(toy_model: Any, toy_images: Any) -> None:
    images_nhwc, labels_n = (each.repeat(100, axis=0) for each in toy_images)
    result = lab3.sweep(toy_model, images_nhwc, labels_n)
    certificate = result.certify(tolerance=0.02)
    assert (certificate.k, certificate.failed_k, certificate.n_images) == (1, 2, 400)
    assert str(certificate) == (
        "1 of 4 channels of conv can be removed: accuracy falls by at most 2 points (95 % confidence, 400 images). "
        "No class lost accuracy."
    )
    assert result.certify(np.float64(0.02), n_compared=3).level < certificate.level
    assert "is not certified: a tolerance of 0.005 needs at least 598 images" in str(result.certify(tolerance=0.005))
    labels = [text.get_text() for text in result.plot(certificate=certificate).axes[0].get_legend().get_texts()]
    assert labels[-2].startswith("certified: K = 1,") and labels[-1].startswith("observed: K = 1,")
    taylor = lab3.sweep(toy_model, images_nhwc, labels_n, criterion="taylor", schedule=[0, 1])
    assert "criterion taylor ranked the channels by the labels" in str(taylor.certify(0.02))
    with pytest.raises(ConfigError, match="tolerance: must be less than 1"):
        result.certify(tolerance=5)
