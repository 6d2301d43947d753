"""The command line: whole runs of a model file and of the digits, and what each command prints."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import pytest
import yaml
from click.testing import Result
from PIL import Image
from rich.text import Text

from lab3.app.cli.printed import new_table, print_table
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import save_model
from lab3.record.journal import read_journal
from tests.conftest import shared_file
from tests.folders import DIGITS, EXPERIMENTS, read_csv


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


def test_run_trains_sweeps_and_draws(digits_folder: Path, own: Path, invoke: Callable[..., Result]) -> None:
    output = (digits_folder / "output").read_text()
    assert "W&B offline: no W&B key is configured" in output and "training digits_cnn on 1,352 images" in output
    assert sorted(path.name for path in own.iterdir()) == [
        "attempts.jsonl",
        "capture.npz", "certificate.csv", "channels.csv", "config.yaml", "epochs.csv", "epochs.jsonl", "figures",
        "journal.jsonl", "lost.npz", "manifest.json", "metrics.csv", "model.h5", "report.html", "report.json",
        "report.md", "results.csv", "scores.csv", "summary.json", "wandb",
    ]  # fmt: skip
    assert len(read_csv(own / "results.csv")) == 32 and len(read_csv(own / "epochs.csv")) == 2
    pictures = {path.stem: Image.open(path) for path in (own / "figures").iterdir()}
    assert set(pictures) == {
        "accuracy_curve", "class_accuracy", "confusion_k0", "confusion_k2", "feature_map_0", "feature_maps",
        "feature_maps_k2", "flips", "learning_curves",
    }  # fmt: skip
    for name, picture in pictures.items():
        assert min(picture.size) > 300 and len(np.unique(np.asarray(picture))) > 20, f"{name} is blank"

    rows = read_journal(own / "journal.jsonl")
    matrices = {row["k"]: np.array(row["confusion"]) for row in rows if "confusion" in row}
    assert set(matrices) == {0, 2}
    for k, confusion in matrices.items():
        assert np.trace(confusion) == rows[k]["correct"] and np.diag(confusion).tolist() == rows[k]["class_correct"]
        assert confusion.sum() == 445
    # K = 0 is the model itself.
    digits = load_dataset("digits", "test")
    scores_nl = keras.saving.load_model(own / "model.h5", compile=False).predict(digits.images_nhwc / 16, verbose=0)
    assert int(read_csv(own / "results.csv")[0]["correct"]) == (scores_nl.argmax(axis=1) == digits.labels_n).sum()

    again = invoke("resume", own)
    assert again.exit_code == 0 and "is finished; nothing is left to do" in again.stderr


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


def test_train_saves_a_model_and_its_accuracy(invoke: Callable[..., Result], tmp_path: Path) -> None:
    settings = ("train.epochs=2", "train.format=keras", "sweep.batch_size=100")
    result = invoke("train", DIGITS, *(f"--set={setting}" for setting in settings), "--run-id", "t")
    assert result.exit_code == 0, result.output
    summary = json.loads((tmp_path / "runs/t/summary.json").read_text())
    model = keras.saving.load_model(summary["model"], compile=False)
    digits = load_dataset("digits", "test")
    predictions_n = model.predict(digits.images_nhwc / 16, verbose=0).argmax(axis=1)
    assert summary["correct"] == (predictions_n == digits.labels_n).sum() and summary["n_images"] == 445
    assert not (tmp_path / "runs/t/results.csv").exists()


def test_a_baseline_at_chance_is_pointed_out(toy_files: tuple[Path, Path], invoke: Callable[..., Result]) -> None:
    # Shifted below zero, every image gives the same scores after the ReLU.
    result = invoke("sweep", toy_files[0], "--data", toy_files[1], "--set", "data.mean=1000.0")
    assert result.exit_code == 0
    assert "the baseline accuracy is 0.2500, about chance for 2 classes: check data.scale" in result.stderr


def test_validate_prints_the_resolved_experiment(invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "wandb_config.yaml").write_text("project: mine\n")
    result = invoke("validate", DIGITS, "--set", "train.epochs=3")
    assert result.exit_code == 0 and "digits.yaml is valid" in result.stderr
    resolved = yaml.safe_load(result.stdout)
    assert (resolved["train"]["epochs"], resolved["tracking"]["project"]) == (3, "mine")


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
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "NPROC")
    for name in names:
        monkeypatch.setenv(name, "9")
    assert invoke("sweep", "missing.h5", "--data", "digits", "--threads", "3").exit_code == 65
    assert [os.environ[name] for name in names] == ["3"] * 4
    assert invoke("sweep", "missing.h5", "--data", "digits", "--threads", "0").exit_code == 2


def test_names_and_not_numbers_give_way_on_a_narrow_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    table = new_table("run", "state", "accuracy")
    table.add_row("a-name-of-forty-characters-that-is-longer", "finished", "0.9910")
    print_table(table)
    head, first, *more = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert head.split() == ["run", "state", "accuracy"] and first.split()[1:] == ["finished", "0.9910"]
    assert len(first) <= 40
    assert first.split()[0] + "".join(map(str.strip, more)) == "a-name-of-forty-characters-that-is-longer"
    # Where not even that fits, the terminal breaks lines, and nothing is missing.
    monkeypatch.setenv("COLUMNS", "20")
    print_table(table)
    head, *_ = Text.from_ansi(capsys.readouterr().out).plain.splitlines()
    assert head.split() == ["run", "state", "accuracy"]
