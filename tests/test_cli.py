"""The command line: whole runs on the digits, every kind of bad input, kill -9 and resume."""

import csv
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image

from lab3.app.pipeline.stopping import what_is_kept
from lab3.inputs.model_files import save_model
from lab3.pruning.capture import capture_layers
from lab3.record.journal import read_journal
from lab3.record.manifest import ModelFile
from lab3.record.rundir import RunDir
from tests.conftest import shared_file

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
QUICK = ("--set", "train.epochs=2", "--set", "sweep.feature_maps_k=[2]")


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_sweep_of_a_model_file_writes_the_run_known_on_paper(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    model, data = toy_files
    result = invoke("sweep", model, "--data", data, "--set", "data.scale=1.0", "--run-id", "r1")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "runs/r1"
    # The loss is the mean of ln(1 + exp(-margin)) for margins 4, 2, 3 and 7.
    assert result.stdout.splitlines()[1].split() == [
        "0",
        "0",
        "4",
        "1.0000",
        "0.0486",
    ]
    run = tmp_path / "runs" / "r1"
    assert [
        (r["k"], r["n_pruned"], r["correct"], r["total"], r["accuracy"]) for r in read_csv(run / "results.csv")
    ] == [
        ("0", "0", "4", "4", "1.000000"),
        ("1", "1", "4", "4", "1.000000"),
        ("2", "2", "3", "4", "0.750000"),
        ("3", "3", "2", "4", "0.500000"),
    ]
    assert (run / "channels.csv").read_text().splitlines() == [
        "channel,importance,rank,pruned_at_k",
        "0,1.0,0,1",
        "1,2.0,1,2",
        "2,3.0,2,3",
        "3,4.0,3,",
    ]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["baseline"] == {"k": 0, "n_pruned": 0, "correct": 4, "accuracy": 1.0}
    assert summary["observed"] == {"k": 1, "n_pruned": 1, "correct": 4, "accuracy": 1.0, "share": 0.25}
    assert summary["certified"]["reason"].startswith("a tolerance of 0.01 needs at least 299 images, got 4; give more")
    assert result.stdout.splitlines()[-2] == summary["sentence"]
    assert (run / "scores.csv").read_text().splitlines() == [
        "channel,mean_activation,mean_absolute,maximum,standard_deviation,apoz,filter_l1,filter_l2",
        f"0,1.0,1.0,2.0,{0.5**0.5},0.75,1.0,1.0",
        "1,2.0,2.0,4.0,2.0,0.5,1.0,1.0",
        f"2,3.0,3.0,10.0,{16.5**0.5},0.75,1.0,1.0",
        f"3,4.0,4.0,8.0,{8**0.5},0.75,1.0,1.0",
    ]
    assert (summary["best"]["k"], summary["layer"], summary["layer_index"], summary["n_channels"]) == (1, "conv", 0, 4)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["model"]["path"] == str(model) and len(manifest["model"]["sha256"]) == 64
    assert manifest["data"]["test"]["n_images"] == 4 and manifest["device"] == "cpu"
    assert set(manifest["elapsed_s"]) == {"capture_s", "score_s", "self_check_s", "sweep_s"} and manifest["finished_at"]
    assert manifest["environment"]["CUDA_VISIBLE_DEVICES"] == "-1" and "HOME" not in manifest["environment"]
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert (config["model"]["path"], config["data"]["test"], config["data"]["scale"]) == (str(model), str(data), 1.0)
    rows = read_journal(run / "journal.jsonl")
    assert [row["pruned_channels"] for row in rows] == [[], [0], [0, 1], [0, 1, 2]]


def test_run_trains_sweeps_and_draws(invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("run", EXPERIMENTS / "digits.yaml", *QUICK, "--run-id", "d", "--mode", "offline")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "d"
    assert "W&B offline: chosen by --mode" in result.stderr and "training digits_cnn on 1,352 images" in result.stderr
    assert sorted(path.name for path in run.iterdir()) == [
        "capture.npz", "certificate.csv", "channels.csv", "config.yaml", "epochs.csv", "epochs.jsonl", "figures",
        "journal.jsonl",
        "lost.npz", "manifest.json", "metrics.csv", "model.h5", "results.csv", "scores.csv", "summary.json", "wandb",
    ]  # fmt: skip
    assert len(read_csv(run / "results.csv")) == 32 and len(read_csv(run / "epochs.csv")) == 2
    pictures = {path.stem: Image.open(path) for path in (run / "figures").iterdir()}
    assert set(pictures) == {
        "accuracy_curve", "class_accuracy", "confusion_k0", "confusion_k2", "feature_map_0", "feature_maps",
        "feature_maps_k2", "flips", "learning_curves",
    }  # fmt: skip
    for name, picture in pictures.items():
        assert min(picture.size) > 300 and len(np.unique(np.asarray(picture))) > 20, f"{name} is blank"

    rows = read_journal(run / "journal.jsonl")
    matrices = {row["k"]: np.array(row["confusion"]) for row in rows if "confusion" in row}
    assert set(matrices) == {0, 2}
    for k, confusion in matrices.items():
        assert np.trace(confusion) == rows[k]["correct"] and np.diag(confusion).tolist() == rows[k]["class_correct"]
        assert confusion.sum() == 445
    # K = 0 is the model itself.
    from lab3.inputs.data import load_dataset

    digits = load_dataset("digits", "test")
    scores_nl = keras.saving.load_model(run / "model.h5", compile=False).predict(digits.images_nhwc / 16, verbose=0)
    assert int(read_csv(run / "results.csv")[0]["correct"]) == (scores_nl.argmax(axis=1) == digits.labels_n).sum()

    again = invoke("resume", run)
    assert again.exit_code == 0 and "is finished; nothing is left to do" in again.stderr


def test_several_criteria_are_compared(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    common = ("sweep", toy_files[0], "--data", toy_files[1], "--set", "data.scale=1.0")
    result = invoke(*common, "--criterion", "mean_activation", "--criterion", "oracle", "--run-id", "g")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "runs/g"
    group = tmp_path / "runs" / "g"
    assert sorted(path.name for path in group.iterdir()) == [
        "certificates.csv", "comparison.csv", "comparison.png", "experiment.yaml", "g-mean_activation", "g-oracle",
        "group.json",
    ]  # fmt: skip
    rows = read_csv(group / "comparison.csv")
    assert [(row["run"], row["layer"], row["k"], row["correct"]) for row in rows[:4]] == [
        ("mean_activation", "conv", str(k), correct) for k, correct in enumerate("4432")
    ]
    assert {row["criterion"] for row in rows} == {"mean_activation", "oracle"} and len(rows) == 8
    config = yaml.safe_load((group / "g-oracle" / "config.yaml").read_text())
    assert (config["tracking"]["group"], config["prune"]["criterion"]) == ("g", "oracle")
    alone = invoke(*common, "--criterion", "oracle", "--run-id", "alone")
    assert alone.exit_code == 0
    for name in ("results.csv", "channels.csv"):
        assert (tmp_path / "runs/alone" / name).read_bytes() == (group / "g-oracle" / name).read_bytes()


def test_all_layers_of_a_network_trained_once(
    invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_layers_of_passes = []

    def count_layers(splits: Any, *args: Any, **settings: Any) -> Any:
        n_layers_of_passes.append((len(splits), settings["keep_features"]))
        return capture_layers(splits, *args, **settings)

    monkeypatch.setattr("lab3.app.pipeline.sweeping.capture_layers", count_layers)
    args = ("--set", "train.epochs=1", "--set", "sweep.schedule=0:C:8", "--set", "sweep.feature_maps_k=[24]")
    result = invoke("run", EXPERIMENTS / "digits.yaml", *args, "--layer", "all", "--run-id", "g")
    assert result.exit_code == 0, result.output
    group = tmp_path / "runs" / "g"
    assert (group / "g-train" / "model.h5").exists()
    assert n_layers_of_passes == [(3, True), (3, False)], "one pass over test and one over training images"
    channels = {row["layer"]: int(row["n_channels"]) for row in read_csv(group / "comparison.csv")}
    assert list(channels.values()) == [16, 32, 64]
    assert [len(list(group.glob(f"g-{name}/figures/feature_maps_k24.png"))) for name in channels] == [0, 1, 1]
    baselines = {row["correct"] for row in read_csv(group / "comparison.csv") if row["k"] == "0"}
    assert len(baselines) == 1, "every run starts from the same network"
    wrong = invoke("run", EXPERIMENTS / "digits.yaml", "--layer", "0", "--layer", "nothing", "--run-id", "h")
    assert wrong.exit_code == 78 and not (tmp_path / "runs" / "h").exists()

    # As a kill in the first epoch leaves it.
    whole = files_of(group)
    trained = RunDir(group / "g-train")
    trained.write_manifest(replace(trained.read_manifest(), model=ModelFile(None, None, None)))
    for name in channels:
        shutil.rmtree(group / f"g-{name}")
    for name in (
        "g-train/model.h5",
        "g-train/epochs.csv",
        "g-train/epochs.jsonl",
        "g-train/summary.json",
        "comparison.csv",
    ):
        (group / name).unlink()
    assert invoke("resume", group).exit_code == 0
    again = files_of(group)
    assert again.keys() == whole.keys()
    assert [
        name for name in whole if Path(name).suffix in (".csv", ".h5", ".jsonl") and again[name] != whole[name]
    ] == []


def test_all_layers_of_a_network_that_has_one_make_a_run_of_its_name(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--layer", "all", "--run-id", "g").exit_code == 0
    assert [row["run"] for row in read_csv(tmp_path / "runs/g/comparison.csv")] == ["conv"] * 4
    assert (tmp_path / "runs" / "g" / "g-conv" / "results.csv").exists()


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "wandb" not in path.parts
    }


def test_a_group_that_was_stopped_goes_on(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("mean_activation", "filter_l1", "maximum")
    criteria = [part for name in names for part in ("--criterion", name)]
    command = ("sweep", toy_files[0], "--data", toy_files[1], *criteria, "--mode", "disabled")
    group = tmp_path / "runs" / "g"
    assert invoke(*command, "--run-id", "g").exit_code == 0
    whole = files_of(group)

    def stop(group: Path) -> None:
        """The first run is done, the second has two points, the third was not started."""
        run = group / f"{group.name}-filter_l1"
        unfinish(run, 2)
        shutil.rmtree(run)
        run.with_name(f"{run.name}-2").rename(run)
        shutil.rmtree(group / f"{group.name}-maximum")
        (group / "comparison.csv").unlink()

    def check_same(group: Path, prefix: str = "g") -> None:
        found = files_of(group)
        assert {name.replace(prefix, "g", 1) for name in found} == whole.keys()
        for name in whole:
            if name.endswith(("results.csv", "channels.csv", "journal.jsonl")):
                assert found[name.replace("g-", f"{prefix}-", 1)] == whole[name], name

    stop(group)
    again = invoke(*command, "--run-id", "g")
    assert again.exit_code == 78 and "exists already; continue it with `lab3 resume" in again.stderr
    resumed = invoke("resume", group, "--mode", "disabled")
    assert resumed.exit_code == 0 and resumed.stdout.splitlines()[-1] == str(group), resumed.output
    check_same(group)
    assert (group / "comparison.csv").read_bytes() == whole["comparison.csv"]

    stop(group)
    monkeypatch.setenv("WANDB_RUN_ID", "g")
    refused = invoke(*command, "--max-attempts", "1")
    assert refused.exit_code == 78 and "g-filter_l1 has been started 2 times and may be 1 times" in refused.stderr
    assert invoke(*command).exit_code == 0
    check_same(group)
    monkeypatch.delenv("WANDB_RUN_ID")

    over = invoke("resume", group, "--new", "--mode", "disabled")
    assert over.exit_code == 0, over.output
    check_same(tmp_path / "runs" / "g-2", "g-2")

    stop(group)
    shutil.rmtree(group / "g-filter_l1")
    # The same images under other names of classes.
    images, labels = (np.load(toy_files[1])[name] for name in ("x_test", "y_test"))
    np.savez_compressed(toy_files[1], x_test=images, y_test=labels)
    changed = invoke("resume", group, "--mode", "disabled")
    assert changed.exit_code == 78 and "the test data must be what " in changed.stderr
    assert not (group / "g-filter_l1").exists()
    for text, reason in (
        ("{", "Expecting property name"),
        ('{"layers": [0], "criteria": ["best"]}', "criteria.0: Input should be"),
    ):
        (group / "group.json").write_text(text)
        damaged = invoke("resume", group)
        assert damaged.exit_code == 78 and "group.json cannot be read (" in damaged.stderr and reason in damaged.stderr


def test_scores_come_from_the_training_images_where_there_are_some(
    toy_model: Any, toy_images: Any, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    images_nhwc, labels_n = toy_images
    save_model(toy_model, tmp_path / "toy.h5")
    np.savez(tmp_path / "test.npz", x_test=images_nhwc, y_test=labels_n)
    # Channel means 4, 3, 2, 1: the opposite order.
    np.savez(tmp_path / "train.npz", x_train=images_nhwc[..., ::-1], y_train=labels_n)
    args = ("sweep", "toy.h5", "--data", "test.npz", "--train-data", "train.npz", "--set", "data.scale=1.0")
    for score_on, order in (("auto", "3210"), ("train", "3210"), ("test", "0123")):
        result = invoke(*args, "--set", f"prune.score_on={score_on}", "--run-id", score_on)
        assert result.exit_code == 0, result.output
        assert [row["channel"] for row in read_csv(tmp_path / "runs" / score_on / "channels.csv")] == list(order)
        summary = json.loads((tmp_path / "runs" / score_on / "summary.json").read_text())
        assert summary["scored_on"].endswith("test.npz" if score_on == "test" else "train.npz")


def test_one_file_with_both_splits_scores_on_the_training_images(
    toy_model: Any, toy_images: Any, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    images_nhwc, labels_n = toy_images
    save_model(toy_model, tmp_path / "toy.h5")
    train = {"x_train": images_nhwc[::-1, :, :, ::-1], "y_train": labels_n}
    np.savez(tmp_path / "both.npz", x_test=images_nhwc, y_test=labels_n, **train)
    np.savez(tmp_path / "test.npz", x_test=images_nhwc, y_test=labels_n)
    np.savez(tmp_path / "train.npz", **train)
    args = ("--set", "data.scale=1.0", "--criterion", "oracle", "--set", "prune.score_on=train")
    for test, training, run_id in (("both.npz", "both.npz", "one"), ("test.npz", "train.npz", "two")):
        result = invoke("sweep", "toy.h5", "--data", test, "--train-data", training, *args, "--run-id", run_id)
        assert result.exit_code == 0, result.output
    one, two = (read_csv(tmp_path / "runs" / run_id / "channels.csv") for run_id in ("one", "two"))
    assert one == two and len({row["importance"] for row in one}) > 1


def test_a_run_that_wandb_starts_again_is_resumed(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "agent-1")
    args = ("sweep", *toy_files[:1], "--data", toy_files[1], "--set", "data.scale=1.0")
    assert invoke(*args).exit_code == 0
    (tmp_path / "runs" / "agent-1" / "summary.json").unlink()
    again = invoke(*args)
    assert again.exit_code == 0 and again.stdout.splitlines()[-1] == "runs/agent-1", again.output
    assert (tmp_path / "runs" / "agent-1" / "summary.json").exists()
    (tmp_path / "runs" / "agent-1" / "manifest.json").unlink()
    other = invoke(*args)
    assert other.exit_code == 78 and "runs/agent-1 exists already and is no run" in other.stderr


def test_train_saves_a_model_and_its_accuracy(invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke(
        "train", EXPERIMENTS / "digits.yaml", *QUICK, "--set", "train.format=keras", "--set", "sweep.batch_size=100",
        "--run-id", "t",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "runs/t/summary.json").read_text())
    model = keras.saving.load_model(summary["model"], compile=False)
    from lab3.inputs.data import load_dataset

    digits = load_dataset("digits", "test")
    predictions_n = model.predict(digits.images_nhwc / 16, verbose=0).argmax(axis=1)
    assert summary["correct"] == (predictions_n == digits.labels_n).sum() and summary["n_images"] == 445
    assert not (tmp_path / "runs/t/results.csv").exists()


@pytest.fixture
def broken(tmp_path: Path, toy_files: tuple[Path, Path]) -> dict[str, str]:
    """Paths by name: a good model and data, and files that are wrong in one way each."""
    model, data = toy_files
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "torn.h5").write_bytes(model.read_bytes()[:3000])
    no_conv = keras.Sequential([keras.Input((2, 2, 4)), keras.layers.Flatten(), keras.layers.Dense(2)])
    save_model(no_conv, tmp_path / "no_conv.h5")
    nan = keras.models.clone_model(keras.saving.load_model(model, compile=False))
    nan.set_weights([np.full(weight.shape, np.nan) for weight in nan.get_weights()])
    save_model(nan, tmp_path / "nan.h5")
    images, labels = np.zeros((3, 2, 2, 4), np.float32), np.array([0, 1, 1])
    np.savez(tmp_path / "empty.npz", x_test=images[:0], y_test=labels[:0])
    np.savez(tmp_path / "shape.npz", x_test=np.zeros((3, 5, 5, 4)), y_test=labels)
    np.savez(tmp_path / "labels.npz", x_test=images, y_test=labels + 1)
    np.savez(tmp_path / "nan.npz", x_test=images + np.nan, y_test=labels)
    for name in ("a", "b", "c"):
        (tmp_path / "three" / name).mkdir(parents=True)
        Image.new("RGBA", (2, 2)).save(tmp_path / "three" / name / "1.png")
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "manifest.json").write_text("{}")
    (tmp_path / "runs" / "group").mkdir()
    (tmp_path / "runs" / "group" / "comparison.csv").touch()
    (tmp_path / "a_file").write_text("")
    return {"model": str(model), "data": str(data)}


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
    args: list[str], exit_code: int, message: str, broken: dict[str, str], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    if args[0] == "sweep" and len(args) == 2:
        args = [*args, "--data", broken["data"]]
    elif args[0].startswith("--"):
        data = [] if "--data" in args else ["--data", broken["data"]]
        args = ["sweep", broken["model"], *data, *args]
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
    result = invoke("run", EXPERIMENTS / "digits.yaml", "--data", tmp_path / "both.npz")
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


def test_a_baseline_at_chance_is_pointed_out(toy_files: tuple[Path, Path], invoke: Callable[..., Result]) -> None:
    # Shifted below zero, every image gives the same scores after the ReLU.
    result = invoke("sweep", toy_files[0], "--data", toy_files[1], "--set", "data.mean=1000.0")
    assert result.exit_code == 0
    assert "the baseline accuracy is 0.2500, about chance for 2 classes: check data.scale" in result.stderr


def test_validate_prints_the_resolved_experiment(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "wandb_config.yaml").write_text("project: mine\n")
    result = invoke("validate", EXPERIMENTS / "digits.yaml", "--set", "train.epochs=3")
    assert result.exit_code == 0 and "digits.yaml is valid" in result.stderr
    resolved = yaml.safe_load(result.stdout)
    assert (resolved["train"]["epochs"], resolved["tracking"]["project"]) == (3, "mine")


def test_two_processes_never_work_on_one_run(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    from lab3.record.rundir import RunDir

    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "r").exit_code == 0
    with RunDir(tmp_path / "runs" / "r").lock():
        result = invoke("resume", "runs/r")
    assert result.exit_code == 75 and "runs/r is in use by another process" in result.stderr


def unfinish(run: Path, n_points: int) -> Path:
    """What a kill after `n_points` points leaves: the journal so far and a torn line."""
    copy = run.with_name(f"{run.name}-{n_points}")
    shutil.copytree(run, copy)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    torn = lines[n_points + 1][:7] if n_points + 1 < len(lines) else b""
    (copy / "journal.jsonl").write_bytes(b"".join(lines[: n_points + 1]) + torn)
    for name in ("results.csv", "summary.json"):
        (copy / name).unlink()
    return copy


def test_resuming_after_any_point_gives_the_same_bytes(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "whole").exit_code == 0
    whole = tmp_path / "runs" / "whole"
    for n_points in range(5):
        copy = unfinish(whole, n_points)
        result = invoke("resume", copy)
        assert result.exit_code == 0, result.output
        for name in ("results.csv", "channels.csv", "journal.jsonl"):
            assert (copy / name).read_bytes() == (whole / name).read_bytes()


def test_predictions_are_kept_on_demand_also_after_a_resume(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    args = ("sweep", toy_files[0], "--data", toy_files[1], "--set", "data.scale=1.0", "--run-id", "whole")
    assert invoke(*args, "--set", "sweep.save_predictions=true").exit_code == 0
    copy = unfinish(tmp_path / "runs" / "whole", 2)
    (copy / "predictions.npz").unlink()
    assert invoke("resume", copy).exit_code == 0
    for run in (tmp_path / "runs" / "whole", copy):
        with np.load(run / "predictions.npz") as saved:
            assert saved["k"].tolist() == [0, 1, 2, 3] and saved["predicted"].dtype == np.uint8
            # Worked out in toy_images: K = 2 gives up image 1, K = 3 images 0 and 1.
            assert saved["predicted"].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1]]
            assert saved["label"].tolist() == [0, 1, 1, 1]
        assert len(read_journal(run / "journal.jsonl")) == 4


def test_resuming_with_another_model_or_other_data_is_refused(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "whole").exit_code == 0
    copy = unfinish(tmp_path / "runs" / "whole", 2)
    original = toy_files[1].read_bytes()
    np.savez(toy_files[1], x_test=np.ones((4, 2, 2, 4)), y_test=[0, 0, 1, 1])
    result = invoke("resume", copy)
    assert (
        result.exit_code == 78
        and "the test data must be what " in result.stderr
        and "the run was started with (SHA-256 " in result.stderr
    )
    toy_files[1].write_bytes(original)
    model = keras.saving.load_model(toy_files[0], compile=False)
    model.set_weights([weight + 1 for weight in model.get_weights()])
    save_model(model, toy_files[0])
    result = invoke("resume", copy)
    assert result.exit_code == 78 and "the model must be what " in result.stderr


def test_resuming_with_edited_settings_is_refused(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "whole").exit_code == 0
    copy = unfinish(tmp_path / "runs" / "whole", 2)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("bias: zero", "bias: keep"))
    result = invoke("resume", copy)
    assert (
        result.exit_code == 78
        and "was started with other settings: prune.bias was 'zero', now 'keep'; put" in result.stderr
    )


def start(*args: str | Path) -> subprocess.Popen[str]:
    """A real start: signals reach the handlers that the program itself has set."""
    command = [sys.executable, "-m", "lab3", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_kill_9_in_the_sweep_loses_no_point(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    quick = ("--mode", "offline", "--set", "train.epochs=1", "--set", "sweep.batch_size=10")
    process = start("run", EXPERIMENTS / "digits.yaml", *quick, "--run-id", "killed")
    journal = tmp_path / "runs" / "killed" / "journal.jsonl"
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("sweep: "):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    n_kept = len(read_journal(journal))
    assert 0 < n_kept < 32
    assert invoke("resume", tmp_path / "runs" / "killed", "--mode", "offline").exit_code == 0
    rows = read_journal(journal)
    assert [row["k"] for row in rows] == list(range(32))

    model = tmp_path / "runs" / "killed" / "model.h5"
    same = ("--set", "data.scale=16.0", "--set", "sweep.batch_size=10", "--run-id", "whole")
    assert invoke("sweep", model, "--data", "digits", *same).exit_code == 0
    for name in ("results.csv", "channels.csv"):
        assert (tmp_path / "runs" / "killed" / name).read_bytes() == (tmp_path / "runs" / "whole" / name).read_bytes()


@pytest.mark.parametrize(
    ("number", "phase", "exit_code", "kept"),
    [
        (signal.SIGINT, "train: ", 130, r"\d+ epochs? of its training"),
        (signal.SIGTERM, "sweep: ", 75, r"\d+ points? of its sweep"),
    ],
)
def test_signals_wait_for_the_current_block_and_saywhat_is_kept_and_how_to_go_on(
    tmp_path: Path, invoke: Callable[..., Result], number: signal.Signals, phase: str, exit_code: int, kept: str
) -> None:
    quick = ("--set", "train.epochs=2", "--set", "sweep.batch_size=10")
    process = start("run", EXPERIMENTS / "digits.yaml", "--run-id", "stopped", *quick)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(phase) and (phase == "sweep: " or "epoch 1/2" in line):
            break
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == exit_code
    run = tmp_path / "runs" / "stopped"
    journal = run / ("epochs.jsonl" if phase == "train: " else "journal.jsonl")
    said = re.fullmatch(
        rf"Error: stopped by {number.name}; run runs/stopped keeps ({kept}); go on with `lab3 resume runs/stopped`",
        errors.splitlines()[-1],
    )
    assert said and int(said[1].split()[0]) == len(read_journal(journal)) > 0
    assert "Traceback" not in errors
    assert not (run / "summary.json").exists()
    assert invoke("resume", run).exit_code == 0
    assert len(read_csv(run / "results.csv")) == 32


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_loading_says_that_nothing_was_written(
    toy_files: tuple[Path, Path], tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    process = start("sweep", "toy.h5", "--data", "toy.npz", "--run-id", "r", "--set", "data.mean=[1, 1, 1, 1]")
    assert process.stderr is not None
    # The run's id comes first.
    assert process.stderr.readline() == "run runs/r\n"
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == exit_code
    assert errors.splitlines()[-1] == (
        f"Error: stopped by {number.name} while run runs/r was loading; nothing of it was written; start it again with "
        "`lab3 sweep toy.h5 --data toy.npz --run-id r --set 'data.mean=[1, 1, 1, 1]'`"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("n_signals", "reason", "exit_code"),
    [(1, "stopped by SIGTERM", 75), (2, "stopped at once by a second signal", 130)],
)
def test_a_signal_in_the_capture_says_that_it_starts_again(
    n_signals: int,
    reason: str,
    exit_code: int,
    toy_files: tuple[Path, Path],
    invoke: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*args: Any, **settings: Any) -> Any:
        for _ in range(n_signals):
            os.kill(os.getpid(), signal.SIGTERM)
        return capture_layers(*args, **settings)

    arguments = ("sweep", toy_files[0], "--data", toy_files[1])
    with monkeypatch.context() as patch:
        patch.setattr("lab3.app.pipeline.sweeping.capture_layers", stop)
        alone = invoke(*arguments, "--run-id", "r")
        group = invoke(*arguments, "--criterion", "maximum", "--criterion", "apoz", "--run-id", "g")
    kept = "its settings only: capture starts again"
    assert (alone.exit_code, group.exit_code) == (exit_code, exit_code)
    assert alone.stderr.splitlines()[-1] == f"Error: {reason}; run runs/r keeps {kept}; go on with `lab3 resume runs/r`"
    assert group.stderr.splitlines()[-1] == (
        f"Error: {reason}; run runs/g/g-maximum keeps {kept}; go on with `lab3 resume runs/g`"
    )
    for path in ("runs/r", "runs/g"):
        assert invoke("resume", path).exit_code == 0


def test_what_stands_before_a_trained_network_is_told_too(invoke: Callable[..., Result], tmp_path: Path) -> None:
    args = ("train", EXPERIMENTS / "digits.yaml", "--set", "train.epochs=1", "--run-id", "t")
    assert invoke(*args).exit_code == 0
    run = RunDir(tmp_path / "runs" / "t")
    assert what_is_kept(run) == "its trained network"
    (run.path / "model.h5").unlink()
    assert what_is_kept(run) == "1 epoch of its training"
    run.epochs_jsonl.unlink()
    assert what_is_kept(run) == "its settings only: training starts again"


def test_an_interrupt_of_a_command_without_a_run_says_how_to_start_it_again(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab3.record.rundir.runs_in", interrupt)
    monkeypatch.setattr(sys, "argv", ["lab3", "verify", "my runs"])
    result = invoke("verify", "my runs")
    assert result.exit_code == 130
    assert result.stderr == "Error: interrupted; nothing is lost; start it again with `lab3 verify 'my runs'`\n"


def test_a_finished_run_is_named_as_finished(toy_files: tuple[Path, Path], invoke: Callable[..., Result]) -> None:
    arguments = ("sweep", toy_files[0], "--data", toy_files[1])
    several = ("--criterion", "maximum", "--criterion", "apoz")
    for given in ((*arguments, "--run-id", "r"), (*arguments, *several, "--run-id", "g")):
        assert invoke(*given).exit_code == 0
        again = invoke(*given)
        assert again.exit_code == 78
        assert again.stderr == (
            f"Error: run runs/{given[-1]} is finished already; start it over beside it with "
            f"`lab3 resume runs/{given[-1]} --new`, or choose another --run-id\n"
        )
    resumed = invoke("resume", "runs/r")
    assert (resumed.exit_code, resumed.stderr) == (0, "run runs/r is finished; nothing is left to do\n")


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


def test_a_group_says_what_it_reads_once_and_tensorflow_does_not_warn(
    invoke: Callable[..., Result], tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Conv2D(4, 1, activation="relu", name=f"conv{number}") for number in range(7)]
    network = keras.Sequential([keras.Input((2, 2, 4)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)])
    save_model(network, tmp_path / "deep.h5")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "d.npz", x_test=rng.integers(0, 256, (40, 2, 2, 4)).astype(np.uint8), y_test=rng.integers(0, 2, 40)
    )
    # TensorFlow's logger does not hand on its records otherwise.
    monkeypatch.setattr(logging.getLogger("tensorflow"), "propagate", True)
    result = invoke("sweep", "deep.h5", "--data", "d.npz", "--layer", "all", "--run-id", "g")
    assert result.exit_code == 0, result.output
    lines = result.stderr.splitlines()
    assert lines[:4] == [
        "group runs/g", "W&B disabled: chosen by WANDB_MODE", f"reading {tmp_path / 'd.npz'}", "run runs/g/g-conv0",
    ]  # fmt: skip
    assert sum(line.startswith(("W&B", "reading")) for line in lines) == 2
    assert [line for line in lines if line.startswith("run ")] == [f"run runs/g/g-conv{number}" for number in range(7)]
    assert [record.getMessage() for record in caplog.records if "retracing" in record.getMessage()] == []


@pytest.mark.shared
def test_the_trained_vgg16_gives_the_counts_of_the_reports_loop(invoke: Callable[..., Result], tmp_path: Path) -> None:
    model, data = shared_file("models/vgg16_cifar10_keras2.h5"), shared_file("data/cifar10-test.zip")
    schedule = ("--set", "sweep.schedule=[0, 100, 200, 300, 400, 511]", "--set", "sweep.feature_maps_k=[]")
    args = ("run", EXPERIMENTS / "vgg16_cifar10.yaml", "--model", model, "--data", data, "--run-id", "v", *schedule)
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    rows = read_csv(tmp_path / "runs" / "v" / "results.csv")
    # Counted by TensorFlow 2.12 with the weights zeroed and the whole network run at each K.
    assert [int(row["correct"]) for row in rows] == [8119, 8092, 8020, 7613, 6132, 1000]
    channels = read_csv(tmp_path / "runs" / "v" / "channels.csv")
    assert [(row["channel"], f"{float(row['importance']):.3f}") for row in channels[:3]] == [
        ("175", "0.565"),
        ("458", "0.579"),
        ("217", "0.581"),
    ]


def test_every_command_has_help_with_an_example() -> None:
    from lab3.app.cli import main

    for name, command in main.commands.items():
        assert command.help is not None and f"lab3 {name} " in command.help, f"{name} has no example"
        options = [param for param in command.params if isinstance(param, click.Option)]
        assert all(option.help for option in options), f"an option of {name} has no help"


def test_threads_are_limited_before_the_backend_starts(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "NPROC")
    for name in names:
        monkeypatch.setenv(name, "9")
    assert invoke("sweep", "missing.h5", "--data", "digits", "--threads", "3").exit_code == 65
    assert [os.environ[name] for name in names] == ["3", "3", "3"]
    assert invoke("sweep", "missing.h5", "--data", "digits", "--threads", "0").exit_code == 2


def test_attempts_are_counted_and_may_be_limited(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "whole").exit_code == 0
    copy = unfinish(tmp_path / "runs" / "whole", 2)
    manifest = json.loads((copy / "manifest.json").read_text())
    assert len(manifest["attempts"]) == 1
    refused = invoke("resume", copy, "--max-attempts", "1")
    assert refused.exit_code == 78 and "has been started 1 times and may be 1 times" in refused.stderr
    assert invoke("resume", copy, "--max-attempts", "2").exit_code == 0
    assert len(json.loads((copy / "manifest.json").read_text())["attempts"]) == 2


def test_other_versions_are_refused_and_the_run_can_be_started_over(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "whole").exit_code == 0
    copy = unfinish(tmp_path / "runs" / "whole", 2)
    manifest = RunDir(copy).read_manifest()
    there = manifest.versions["keras"]
    RunDir(copy).write_manifest(replace(manifest, versions=manifest.versions | {"keras": "3.0.0"}))
    refused = invoke("resume", copy)
    assert refused.exit_code == 78
    assert (
        f"was started with other versions, and its points would not be comparable: keras was '3.0.0', now '{there}'"
        in (refused.stderr)
    )
    over = invoke("resume", copy, "--new")
    assert over.exit_code == 0 and over.stdout.splitlines()[-1] == f"{copy}-2"
    for name in ("results.csv", "journal.jsonl"):
        assert (copy.with_name(f"{copy.name}-2") / name).read_bytes() == (
            tmp_path / "runs" / "whole" / name
        ).read_bytes()
    assert len(read_journal(copy / "journal.jsonl")) == 2, "what was there is left alone"


def test_a_start_that_was_killed_before_the_manifest_is_started_again(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    folder = tmp_path / "runs" / "r"
    (folder / "figures").mkdir(parents=True)
    (folder / "config.yaml").write_text("name: half")
    (folder / ".1.tmp.manifest.json").write_text("{")
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "r").exit_code == 0
    assert len(read_journal(folder / "journal.jsonl")) == 4


def test_a_reader_that_has_enough_of_the_output_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run(
        [sys.executable, "-m", "lab3", "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert (process.returncode, process.stderr) == (1, "")


@pytest.mark.parametrize(("name", "code"), [("x" * 5000, 78), ("journal.jsonl/r", 78)])
def test_a_name_that_cannot_be_a_run_is_told(name: str, code: int, invoke: Callable[..., Result]) -> None:
    Path("journal.jsonl").touch()
    for command in ("resume", "verify"):
        result = invoke(command, name)
        assert result.exit_code in (code, 65 if command == "verify" else code) and "Error: " in result.stderr
        assert result.exception is None or isinstance(result.exception, SystemExit)
