"""Groups: several criteria or layers of one model, compared."""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from click.testing import Result

from lab3.inputs.model_files import save_model
from lab3.pruning.capture import capture_layers
from lab3.record.manifest import ModelFile
from lab3.record.rundir import RunDir
from tests.folders import DIGITS, files_of, read_csv, unfinish


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
        "group.json", "report.html", "report.json", "report.md",
    ]  # fmt: skip
    rows = read_csv(group / "comparison.csv")
    assert [(row["run"], row["layer"], row["k"], row["correct"]) for row in rows[:4]] == [
        ("mean_activation", "conv", str(k), correct) for k, correct in enumerate("4432")
    ]
    assert {row["criterion"] for row in rows} == {"mean_activation", "oracle"} and len(rows) == 8
    config = yaml.safe_load((group / "g-oracle" / "config.yaml").read_text())
    assert (config["tracking"]["group"], config["prune"]["criterion"]) == ("g", "oracle")
    again = invoke(*common, "--criterion", "mean_activation", "--criterion", "oracle", "--run-id", "g")
    assert again.exit_code == 78
    assert again.stderr == (
        "Error: run runs/g is finished already; start it over beside it with "
        "`lab3 resume runs/g --new`, or choose another --run-id\n"
    )
    alone = invoke(*common, "--criterion", "oracle", "--run-id", "alone")
    assert alone.exit_code == 0
    for name in ("results.csv", "channels.csv"):
        assert (tmp_path / "runs/alone" / name).read_bytes() == (group / "g-oracle" / name).read_bytes()


def test_all_layers_of_a_network_trained_once(
    few_digits: tuple[str, ...], invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_layers_of_passes = []

    def count_layers(splits: Any, *args: Any, **settings: Any) -> Any:
        n_layers_of_passes.append((len(splits), settings["keep_features"]))
        return capture_layers(splits, *args, **settings)

    monkeypatch.setattr("lab3.app.pipeline.sweeping.capture_layers", count_layers)
    args = ("--set", "train.epochs=1", "--set", "sweep.schedule=0:C:8", "--set", "sweep.feature_maps_k=[24]")
    result = invoke("run", DIGITS, *args, *few_digits, "--layer", "all", "--run-id", "g")
    assert result.exit_code == 0, result.output
    group = tmp_path / "runs" / "g"
    assert (group / "g-train" / "model.h5").exists()
    assert n_layers_of_passes == [(3, True), (3, False)], "one pass over test and one over training images"
    channels = {row["layer"]: int(row["n_channels"]) for row in read_csv(group / "comparison.csv")}
    assert list(channels.values()) == [16, 32, 64]
    assert [len(list(group.glob(f"g-{name}/figures/feature_maps_k24.png"))) for name in channels] == [0, 1, 1]
    baselines = {row["correct"] for row in read_csv(group / "comparison.csv") if row["k"] == "0"}
    assert len(baselines) == 1, "every run starts from the same network"
    wrong = invoke("run", DIGITS, "--layer", "0", "--layer", "nothing", "--run-id", "h")
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
        name
        for name in whole
        if Path(name).suffix in (".csv", ".h5", ".jsonl")
        and Path(name).name != "attempts.jsonl"
        and again[name] != whole[name]
    ] == []


def test_all_layers_of_a_network_that_has_one_make_a_run_of_its_name(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--layer", "all", "--run-id", "g").exit_code == 0
    assert [row["run"] for row in read_csv(tmp_path / "runs/g/comparison.csv")] == ["conv"] * 4
    assert (tmp_path / "runs" / "g" / "g-conv" / "results.csv").exists()


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
