"""`--finetune`: what training a smaller model on gives, what is certified of it, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result

from lab3.analysis.tango import exact_level, tango_p
from lab3.app.pipeline import compact_folder
from lab3.base.csv_text import read_csv
from lab3.inputs.data import load_dataset
from tests.conftest import MakeOnce, run_lab3

SWEEP = ("sweep.schedule=0:C:4", "sweep.tolerance=0.05", "train.learning_rate=0.1")


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_folder, "TIMING_S", 0.0)


@pytest.fixture(scope="session")
def few_folder(make_once: MakeOnce, fitted_model: Path, few_digits: tuple[str, ...]) -> Path:
    """A folder to copy from: `runs/few`, a sweep of K = 0, 4, 8 and 12."""

    def make(folder: Path) -> None:
        changes = [f"--set={setting}" for setting in ("data.scale=16", *SWEEP)]
        run_lab3("sweep", fitted_model, *few_digits, *changes, "--run-id", "few")

    return make_once("few", make)


@pytest.fixture
def few(few_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few_folder / "runs" / "few", tmp_path / "few"))


def right_of(model_file: Path) -> np.ndarray:
    images = load_dataset("digits", "test")
    images = replace(images, images_nhwc=images.images_nhwc[:100], labels_n=images.labels_n[:100])
    model = keras.saving.load_model(model_file, compile=False)
    scores_nl = keras.ops.convert_to_numpy(model(images.images_nhwc.astype(np.float32) / 16, training=False))
    return np.asarray(scores_nl.argmax(axis=1) == images.labels_n)


def weights_of(model_file: Path) -> list[np.ndarray]:
    weights: list[np.ndarray] = keras.saving.load_model(model_file, compile=False).get_weights()
    return weights


def test_a_finetuned_model_is_judged_as_keras_and_the_test_say(
    few: Path, fitted_model: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("compact", few, "--k", "12", "--finetune", "2", "--json")
    assert result.exit_code == 0, result.output
    folder, found = few / "compact", json.loads(result.stdout)
    tuned = found["finetuned"]
    before_n, pruned_n, after_n = map(right_of, (fitted_model, folder / "model.keras", folder / "finetuned.keras"))
    assert (tuned["accuracy_unpruned"], tuned["accuracy_pruned"]) == (before_n.mean(), pruned_n.mean())
    assert tuned["accuracy"] == after_n.mean() > pruned_n.mean()
    n_lost, n_gained = (before_n & ~after_n).sum(), (after_n & ~before_n).sum()
    assert (tuned["n_lost"], tuned["n_gained"]) == (n_lost, n_gained)
    level = exact_level(100, 0.05, 0.05)
    p = float(tango_p(n_lost, n_gained, 100, 0.05))
    assert (tuned["tolerance"], tuned["level"], tuned["p"]) == (0.05, level, p)
    assert tuned["is_certified"] == (p <= level)
    least = tuned["least_tolerance"]
    assert tango_p(n_lost, n_gained, 100, least) <= exact_level(100, least, 0.05)
    assert tango_p(n_lost, n_gained, 100, least - 0.001) > exact_level(100, least - 0.001, 0.05)
    assert tuned["learning_rate"] == pytest.approx(0.1 * found_rate(few)) and len(tuned["epochs"]) == 2

    for name in ("model", "finetuned"):
        for one, other in zip(*(weights_of(folder / f"{name}.{ending}") for ending in ("keras", "h5")), strict=True):
            np.testing.assert_array_equal(one, other)
    assert set(found["files"]) == {"model.keras", "model.h5", "finetuned.keras", "finetuned.h5"}
    assert invoke("verify", few).exit_code == 0


def found_rate(run: Path) -> float:
    rate: float = json.loads((run / "manifest.json").read_text())["config"]["train"]["learning_rate"]
    return rate


def test_finetuning_leaves_the_exact_model_and_repeats_bit_for_bit(few: Path, invoke: Callable[..., Result]) -> None:
    assert invoke("compact", few, "--k", "12").exit_code == 0
    exact = weights_of(few / "compact" / "model.keras")
    tuned = []
    for _ in range(2):
        result = invoke("compact", few, "--k", "12", "--finetune", "1")
        assert result.exit_code == 0, result.output
        tuned.append(weights_of(few / "compact" / "finetuned.keras"))
    for one, other in zip(weights_of(few / "compact" / "model.keras"), exact, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(*tuned, strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(tuned[0], exact, strict=True))
    *_, said, folder = result.stdout.splitlines()
    assert said.startswith("fine-tuned, accuracy falls by at most ") and folder == str(few / "compact")
    assert "if K was not chosen on the test images" in said


def test_a_target_accuracy_is_reached_by_the_largest_k_on_validation_images(
    few: Path, invoke: Callable[..., Result]
) -> None:
    result = invoke("compact", few, "--finetune", "1", "--target-accuracy", "0.87", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    trials = {each["k"]: each["val_accuracy"] for each in found["finetuned"]["trials"]}
    assert found["chosen_by"] == "target_accuracy" and len(trials) <= 2
    reached = [k for k, value in trials.items() if value >= 0.87]
    missed = [k for k in trials if k not in reached]
    assert found["k"] == max(reached) and found["k"] + 4 == min([*missed, 16])
    # The model that is written is the one that was tried.
    assert trials[found["k"]] == max(epoch["val_accuracy"] for epoch in found["finetuned"]["epochs"])


BAD: dict[str, tuple[list[str], int, str]] = {
    "out of reach": (
        ["--finetune", "1", "--target-accuracy", "1.0"],
        78,
        "--target-accuracy must be reached at some K",
    ),
    "no epochs": (["--target-accuracy", "0.9"], 2, "need --finetune EPOCHS"),
    "two choices": (["--finetune", "1", "--target-accuracy", "0.9", "--k", "8"], 2, "chooses K; leave --k out"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_writes_nothing(name: str, few: Path, invoke: Callable[..., Result]) -> None:
    options, code, text = BAD[name]
    result = invoke("compact", few, *options)
    assert result.exit_code == code and text in " ".join(result.output.split()), result.output
    assert not (few / "compact").exists() and not list(few.glob(".compact*"))


def test_channels_that_were_ranked_by_test_labels_certify_nothing(
    fitted_model: Path, few_digits: tuple[str, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    settings = ("data.scale=16", *SWEEP, "sweep.tolerance=0.9", "prune.criterion=taylor", "prune.score_on=test")
    changes = [f"--set={setting}" for setting in settings]
    run_lab3("sweep", fitted_model, *few_digits, *changes, "--run-id", "t")
    run = tmp_path / "runs" / "t"
    # Training images that are given now did not rank them.
    result = invoke("compact", run, "--k", "4", "--finetune", "1", "--train-data", few_digits[-1])
    assert result.exit_code == 0, result.output
    tuned = json.loads((run / "compact" / "proof.json").read_text())["finetuned"]
    assert (tuned["is_certified"], tuned["level"], tuned["least_tolerance"]) == (False, 0.0, 1.0)
    assert tuned["reason"].startswith("criterion taylor ranked the channels by the labels of the images that measure")
    assert f"how far accuracy falls is not certified: {tuned['reason']}" in result.stdout.splitlines()


def test_training_images_are_needed(toy: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("compact", toy, "--k", "1", "--finetune", "1")
    assert result.exit_code == 78 and "the run has none; give --train-data" in " ".join(result.output.split())
    assert not (toy / "compact").exists()


def test_a_compressed_network_is_finetuned_with_half_of_the_error(
    fitted_model: Path, few_digits: tuple[str, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    settings: tuple[Any, ...] = ("--set", "data.scale=16", "--budget", "0.2", "--finetune", "1", "--mode", "disabled")
    result = invoke("compress", fitted_model, *few_digits, *settings, "--run-id", "f", "--json")
    assert result.exit_code == 0, result.output
    summary, run = json.loads(result.stdout), tmp_path / "runs" / "f"
    tuned = json.loads((run / "compact" / "proof.json").read_text())["finetuned"]
    assert tuned["tolerance"] == 0.2 and tuned["level"] == exact_level(100, 0.2, 0.025) == summary["level"]
    assert summary["compact"]["finetuned_accuracy"] == tuned["accuracy"]
    # The last plan that the budget allowed is written, whatever is certified of it untrained.
    rows = (run / "frontier.csv").read_text().splitlines()
    assert summary["n_pruned"] == int(rows[-1].split(",")[1])
    assert (run / "compact" / "finetuned.keras").exists() and "fine-tuned, accuracy falls by" in summary["sentence"]
    assert invoke("verify", run).exit_code == 0


def test_the_smallest_network_that_reaches_a_target_is_taken(
    fitted_model: Path, few_digits: tuple[str, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    rate = ("--set", "data.scale=16", "--set", "train.learning_rate=0.1")
    settings: tuple[Any, ...] = (*rate, "--budget", "0.5", "--finetune", "1", "--mode", "disabled", "--json")
    result = invoke("compress", fitted_model, *few_digits, *settings, "--target-accuracy", "0.8", "--run-id", "t")
    assert result.exit_code == 0, result.output
    summary, run = json.loads(result.stdout), tmp_path / "runs" / "t"
    proof = json.loads((run / "compact" / "proof.json").read_text())
    tuned = proof["finetuned"]
    trials = {each["k"]: each["val_accuracy"] for each in tuned["trials"]}
    rows = read_csv(run / "frontier.csv")
    plans = [int(row["n_pruned"]) for row in rows]
    reached, missed = [k for k in trials if trials[k] >= 0.8], [k for k in trials if trials[k] < 0.8]
    assert reached and missed and proof["chosen_by"] == "target_accuracy"
    assert summary["n_pruned"] == max(reached) and plans.index(max(reached)) + 1 == plans.index(min(missed))
    # Later plans are certified too: this one is, as it is part of the frontier.
    assert summary["is_certified"] and rows[plans.index(max(reached))]["is_certified"] == "True"
    assert rows[plans.index(min(missed))]["is_certified"] == "True"
    assert (run / "report.html").read_text().count("the one that was taken") == 1
    # The network that is written is the one that was tried.
    assert trials[max(reached)] == max(epoch["val_accuracy"] for epoch in tuned["epochs"])
    least = 100 * tuned["least_tolerance"]
    assert (
        f"fine-tuned to {trials[max(reached)]:.4f} on validation images, accuracy falls by at most {least:g} points"
        in summary["sentence"]
    )
    assert invoke("verify", run).exit_code == 0

    result = invoke("compress", fitted_model, *few_digits, *settings, "--target-accuracy", "1", "--run-id", "u")
    summary = json.loads(result.stdout)
    assert result.exit_code == 0 and not (tmp_path / "runs" / "u" / "compact").exists() and summary["n_pruned"] == 0
    assert (
        "was found that fine-tuning brings to an accuracy of 1 on validation images; the best reached"
        in summary["sentence"]
    )
    assert invoke("verify", tmp_path / "runs" / "u").exit_code == 0
    result = invoke("compress", fitted_model, *few_digits, *rate, "--target-accuracy", "0.8", "--run-id", "v")
    assert result.exit_code == 78 and "needs epochs of training, got compress.finetune 0" in result.output
