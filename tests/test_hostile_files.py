"""Files from strangers: refused in one line, run nothing, read nothing else, and stay small."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from click.testing import Result

from lab3.base.files import sha256_file
from lab3.config import load_config
from lab3.errors import ConfigError, DataError, Lab3Error, ModelError
from lab3.inputs.data import load_dataset
from lab3.inputs.model_classes import NEVER_ALLOWED, problem_of_class
from lab3.inputs.model_files import load_model
from lab3.record.journal import read_journal
from lab3.record.readers import points_of_rows
from tests.hostile_files import (
    CORPUS,
    HEADER,
    SECRET,
    Hostile,
    Place,
    add_layer,
    h5_config,
    h5_with,
    keras_config,
    make_place,
    png,
    zip_with,
)

READ: dict[str, Callable[[Path], Any]] = {
    "model": load_model,
    "data": lambda path: load_dataset(str(path), "test"),
    "config": load_config,
    "journal": lambda path: points_of_rows(read_journal(path), path),
}
EXIT_CODES = {"model": 65, "data": 65, "config": 78, "journal": 78}
GIGABYTE = 10**9


@pytest.fixture(scope="module")
def good_files(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return make_place(tmp_path_factory.mktemp("good"))


@pytest.fixture
def place(good_files: Place, tmp_path: Path) -> Place:
    """A folder and a bait of the test's own, beside the same good files."""
    own = Place(
        tmp_path / "files", good_files.h5, good_files.keras, good_files.keras2, tmp_path / "bait" / "canary",
        tmp_path / "bait" / "secret",
    )  # fmt: skip
    for folder in (own.folder, own.secret.parent):
        folder.mkdir()
    own.secret.write_text(SECRET)
    return own


def assert_bait_untouched(place: Place) -> None:
    assert [file.name for file in place.secret.parent.iterdir()] == ["secret"], "code of the file ran"
    assert place.secret.read_text() == SECRET


def test_the_corpus_is_large_and_its_names_differ() -> None:
    assert len(CORPUS) >= 40 and len({each.name for each in CORPUS}) == len(CORPUS)
    assert {each.kind for each in CORPUS} == set(READ)


@pytest.mark.parametrize("base", ["h5", "keras", "keras2"])
def test_the_files_they_are_made_of_load(place: Place, base: str) -> None:
    assert load_model(getattr(place, base)).output_shape == (None, 2)
    assert len(load_dataset(str(zip_with(place, {})), "test")) == 1


@pytest.mark.parametrize("each", CORPUS, ids=lambda each: each.name)
def test_hostile_files_are_refused_in_one_line(place: Place, each: Hostile) -> None:
    path = each.make(place)
    before = peak_bytes(reset=True)
    with pytest.raises(Lab3Error) as caught:
        READ[each.kind](path)
    message = str(caught.value)
    assert each.message in message and SECRET not in message
    assert caught.value.exit_code == EXIT_CODES[each.kind]
    # Problems of an experiment stand on lines of their own.
    assert each.kind == "config" or (message.isprintable() and len(message) < 1_000)
    assert_bait_untouched(place)
    assert peak_bytes() - before < GIGABYTE


def peak_bytes(reset: bool = False) -> int:
    """Most memory this process has had since the last `reset`; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) * 1024


@pytest.mark.parametrize("name", ["lambda_of_keras_2", "external_link", "one_unit_more_than_stored"])
def test_the_command_line_tells_one_line_of_a_model(place: Place, name: str, invoke: Callable[..., Result]) -> None:
    each = next(each for each in CORPUS if each.name == name)
    result = invoke("inspect", each.make(place))
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (65, "", 1)
    assert result.stderr.startswith("Error: ") and each.message in result.stderr


@pytest.mark.parametrize("name", ["pickle_that_runs_code", "absurd_image", "link_out_of_the_image_folder"])
def test_the_command_line_tells_one_line_of_data(place: Place, name: str, invoke: Callable[..., Result]) -> None:
    each = next(each for each in CORPUS if each.name == name)
    result = invoke("sweep", place.h5, "--data", each.make(place), "--mode", "disabled")
    assert result.exit_code == 65 and "Traceback" not in result.stderr
    assert [line for line in result.stderr.splitlines() if each.message in line]
    assert_bait_untouched(place)


def test_a_process_of_its_own_ends_with_the_code_and_one_line(place: Place) -> None:
    each = next(each for each in CORPUS if each.name == "yaml_object")
    done = run_cli("validate", each.make(place))
    assert (done.returncode, done.stderr.count(b"\n"), b"could not determine" in done.stderr) == (78, 1, True)


def run_cli(*args: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, "-m", "lab3", *map(str, args)], capture_output=True)


def test_what_keras_has_is_told_apart_by_its_packages() -> None:
    def problem(name: str, module: str | None = "keras.layers", **more: Any) -> str:
        return problem_of_class({"class_name": name, "module": module, "config": {}, **more}, ()) or ""

    handled = {name for name in dir(keras.layers) if name[0].isupper() and not problem(name)}
    assert len(handled) > 110 and handled >= {
        "Conv2D",
        "Dense",
        "RandomFlip",
        "SpectralNormalization",
        "TimeDistributed",
    }
    assert not handled & {
        *NEVER_ALLOWED,
        "Layer",
        "LSTM",
        "Bidirectional",
        "StringLookup",
        "TextVectorization",
        "Hashing",
    }
    assert problem("LSTM") == "lab3 does not handle LSTM layers, which Keras has; build the model again without them"
    assert problem("ThresholdedReLU", None).startswith(
        "ThresholdedReLU is a layer of Keras 2 that Keras 3 does not have"
    )
    for module in ("keras.optimizers", "keras.losses", "keras.metrics", "keras.utils", "keras.saving", "keras.ops"):
        assert all(
            "is none of" in problem(name, module) for name in ("Adam", "Hinge", "Mean", "get_file", "load_model")
        )
    assert not problem("Add", "keras.src.ops.numpy") and not problem("Cast", "keras.src.ops.core")
    assert problem("Map", "keras.src.ops.core") and problem("np", "keras.src.ops.numpy")
    functions = {name for name in dir(keras.activations) if not problem("function", None, config=name)}
    assert functions >= {"relu", "softmax", "gelu"} and not functions & {"get", "deserialize", "serialize"}


def test_a_registered_class_loads_once_it_is_allowed(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("hostile_test")
    class Doubling(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            return 2 * x

    model = keras.Sequential([keras.Input((4, 4, 1)), Doubling(), keras.layers.Flatten(), keras.layers.Dense(2)])
    for suffix in ("h5", "keras"):
        model.save(tmp_path / f"m.{suffix}")
        with pytest.raises(ModelError, match=r"set model.allow_classes to \[(hostile_test>)?Doubling\]"):
            load_model(tmp_path / f"m.{suffix}")
        for name in ("Doubling", "hostile_test>Doubling"):
            assert load_model(tmp_path / f"m.{suffix}", allow_classes=[name]).output_shape == (None, 2)


def test_a_class_that_is_allowed_but_unknown_to_keras_says_so(place: Place) -> None:
    path = next(each for each in CORPUS if each.name == "unknown_class").make(place)
    with pytest.raises(ModelError, match=r"must be an intact model that Keras can load, got: .*MyLayer"):
        load_model(path, allow_classes=["MyLayer"])


def test_a_name_registered_for_one_class_lets_no_other_in(place: Place) -> None:
    @keras.saving.register_keras_serializable("hostile_test")
    class Registered(keras.layers.Layer):
        pass

    settings = {"vocabulary": str(place.secret)}
    for registered in ("Registered", "hostile_test>Registered"):
        keys = {"module": "keras.layers", "registered_name": registered}
        path = keras_config(place, partial(add_layer, class_name="StringLookup", settings=settings, **keys))
        with pytest.raises(ModelError, match=r"lab3 does not handle StringLookup layers"):
            load_model(path, allow_classes=["Registered"])


def test_dotted_names_are_refused_even_where_they_are_allowed(place: Place) -> None:
    for name in ("lambda_with_a_dotted_name", "vocabulary_with_a_dotted_name", "function_with_a_dotted_name"):
        path = next(each for each in CORPUS if each.name == name).make(place)
        with pytest.raises(ModelError, match=r"never loaded|without dots"):
            load_model(path, allow_classes=["layers.Lambda", "layers.StringLookup", "utils.get_file", "Lambda"])


def test_lambda_is_refused_even_where_it_is_allowed(place: Place) -> None:
    path = next(each for each in CORPUS if each.name == "lambda_of_keras_3").make(place)
    with pytest.raises(ModelError, match="never loaded"):
        load_model(path, allow_classes=["Lambda", "__lambda__"])
    assert_bait_untouched(place)


def test_hash_and_classes_are_settings(place: Place, invoke: Callable[..., Result]) -> None:
    for setting, message in ((f"model.sha256={'0a' * 32}", "must have the SHA-256 of model.sha256"),):
        result = invoke("inspect", place.h5, "--set", setting)
        assert (result.exit_code, message in result.stderr) == (65, True), result.stderr
    unknown = h5_config(place, lambda config: config["config"]["layers"][1].update(class_name="MyLayer"))
    assert (
        "must be an intact model that Keras can load, got: "
        in invoke("inspect", unknown, "--set", "model.allow_classes=[MyLayer]").stderr
    )


def test_a_model_must_have_the_hash_that_is_asked_for_before_it_is_parsed(place: Place) -> None:
    found = sha256_file(place.h5)
    assert load_model(place.h5, sha256=found).output_shape == (None, 2)
    noise = place.folder / "noise.h5"
    noise.write_bytes(b"no model at all")
    with pytest.raises(ModelError) as caught:
        load_model(noise, sha256=found)
    assert found in str(caught.value) and sha256_file(noise) in str(caught.value)


def test_data_must_have_the_hash_that_is_asked_for(place: Place) -> None:
    path = zip_with(place, {})
    assert len(load_dataset(str(path), "test", sha256=sha256_file(path))) == 1
    digits = load_dataset("digits", "test")
    assert len(load_dataset("digits", "test", sha256=digits.sha256)) == len(digits)
    for source in (str(path), "digits"):
        with pytest.raises(DataError, match=f"SHA-256 of data.test_sha256, {'0' * 64}, got"):
            load_dataset(source, "test", sha256="0" * 64)


def test_an_experiment_says_which_hash_it_needs(place: Place) -> None:
    config = load_config(None, [f"model.path={place.h5}", f"model.sha256={'0a' * 32}", f"data.test_sha256={'1b' * 32}"])
    assert (config.model.sha256, config.data.test_sha256) == ("0a" * 32, "1b" * 32)
    with pytest.raises(ConfigError, match=r"data.max_bytes: unknown key"):
        load_config(None, ["data.max_bytes=0"])


def test_an_object_of_two_names_and_a_group_in_itself_change_nothing(place: Place) -> None:
    def change(file: Any) -> None:
        file["other"] = file["model_weights/scores"]
        file["model_weights/conv/again"] = file["model_weights"]
        file["type"] = np.dtype("f8")

    loaded, original = load_model(h5_with(place, change)), load_model(place.h5)
    for one, other in zip(loaded.get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("form", ["h5", "keras"])
def test_weights_of_two_bytes_and_compressed_weights_load(tmp_path: Path, form: str) -> None:
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, name="scores")]
        # Keras itself cannot read bfloat16 back from an .h5.
        if form == "h5"
        else [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2, dtype="bfloat16")]
    )
    path = tmp_path / f"m.{form}"
    model.save(path)
    loaded = load_model(path)
    assert [weight.shape for weight in loaded.weights] == [(16, 2), (2,)]
    if form == "h5":
        with h5py.File(path, "r+") as file:
            group = file["model_weights/scores"]
            name = group.attrs["weight_names"][0]
            values = group[name][()]
            del group[name]
            group.create_dataset(name, data=values, compression="gzip", shuffle=True, fletcher32=True)
        assert load_model(path).output_shape == (None, 2)


# Slow: every file through the command line, and damage at many places


def command_for(each: Hostile, path: Path, place: Place) -> list[str]:
    if each.kind == "model":
        return ["inspect", str(path)]
    if each.kind == "data":
        return ["sweep", str(place.h5), "--data", str(path), "--mode", "disabled"]
    if each.kind == "config":
        return ["validate", str(path)]
    run = place.folder / "run"
    shutil.copytree(place.h5.parent / "run", run)
    journal = run / "journal.jsonl"
    # The rows are the hostile ones; the settings they were begun with are the run's own.
    header = journal.read_bytes().splitlines(keepends=True)[0]
    journal.write_bytes(path.read_bytes().replace(HEADER, header, 1))
    return ["resume", str(run), "--mode", "disabled"]


def measured(args: list[str], cwd: Path) -> tuple[int, str, float, int]:
    """Exit code, stderr, seconds of computing and most bytes of a process; other processes do not change them."""
    with (cwd / "stderr").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab3", *args], stdout=subprocess.DEVNULL, stderr=errors, cwd=cwd
        )
        _, status, usage = os.wait4(process.pid, 0)
        errors.seek(0)
        process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, errors.read(), usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


@pytest.mark.chaos
@pytest.mark.parametrize("each", CORPUS, ids=lambda each: each.name)
def test_the_command_line_refuses_each_quickly_and_in_little_memory(place: Place, each: Hostile) -> None:
    usual = _usual(each.kind, place)
    code, text, seconds, n_bytes = measured(command_for(each, each.make(place), place), place.folder)
    assert code == EXIT_CODES[each.kind] and "Traceback" not in text and SECRET not in text
    assert each.message in text
    assert seconds < usual[0] + 5 and n_bytes < usual[1] + GIGABYTE
    assert_bait_untouched(place)


_USUAL: dict[str, tuple[float, int]] = {}


def _usual(kind: str, place: Place) -> tuple[float, int]:
    """Seconds and bytes that the same command takes for a good file; for a journal the good run is made by the way."""
    if kind not in _USUAL:
        out = place.h5.parent
        data = zip_with(place, {"b/1.png": png()})
        sweep = ["sweep", str(place.h5), "--data", str(data), "--mode", "disabled", "--set", "data.color=grayscale"]
        commands = {
            "model": ["inspect", str(place.h5)],
            "data": [*sweep, "--out", str(place.folder / "runs")],
            "config": ["validate", str(Path(__file__).parents[1] / "experiments" / "digits.yaml")],
            "journal": [*sweep, "--out", str(out), "--run-id", "run"],
        }
        code, text, seconds, n_bytes = measured(commands[kind], place.folder)
        assert code == 0, text
        if kind == "journal":
            (out / "run" / "summary.json").unlink()
        _USUAL[kind] = (seconds, n_bytes)
    return _USUAL[kind]


@pytest.mark.chaos
@pytest.mark.parametrize("base", ["h5", "keras", "keras2"])
def test_every_flipped_bit_and_every_cut_is_noticed_where_a_hash_is_asked_for(place: Place, base: str) -> None:
    whole = getattr(place, base).read_bytes()
    expected = sha256_file(getattr(place, base))
    rng = np.random.default_rng(0)
    damaged = place.folder / f"damaged{getattr(place, base).suffix}"
    n_loaded = 0
    for number in range(150):
        content = bytearray(whole)
        at = int(rng.integers(len(whole)))
        if number < 100:
            content[at] ^= 1 << int(rng.integers(8))
        else:
            del content[at:]
        damaged.write_bytes(content)
        with pytest.raises(ModelError, match=f"must have the SHA-256 of model.sha256, {expected}"):
            load_model(damaged, sha256=expected)
        try:
            load_model(damaged)
        except ModelError:
            continue
        n_loaded += 1
    # Without a hash, damage to a weight is not seen; that is what the setting is for.
    assert n_loaded < 150
