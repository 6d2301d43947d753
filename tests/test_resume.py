"""Runs that go on: from any point, with what they were started with, once at a time."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import Result

from lab3.inputs.model_files import save_model
from lab3.record.journal import read_journal
from lab3.record.rundir import RunDir
from tests.conftest import MakeOnce, run_lab3
from tests.folders import own_copy, unfinish


@pytest.fixture(scope="session")
def plain_folder(toy_folder: Path, make_once: MakeOnce) -> Path:
    """`toy.h5`, `toy.npz`, and in `runs/whole` a finished sweep of them with the defaults."""

    def make(folder: Path) -> None:
        model, data = (shutil.copy(toy_folder / name, folder) for name in ("toy.h5", "toy.npz"))
        run_lab3("sweep", model, "--data", data, "--run-id", "whole")

    return make_once("plain", make)


@pytest.fixture
def whole(plain_folder: Path, tmp_path: Path) -> Path:
    """A finished run of 4 points with `toy.h5` and `toy.npz` in the current folder."""
    return own_copy(plain_folder / "runs" / "whole", tmp_path / "runs" / "whole")


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


def test_two_processes_never_work_on_one_run(whole: Path, invoke: Callable[..., Result]) -> None:
    with RunDir(whole).lock():
        result = invoke("resume", "runs/whole")
    assert result.exit_code == 75 and "runs/whole is in use by another process" in result.stderr


def test_resuming_after_any_point_gives_the_same_bytes(whole: Path, invoke: Callable[..., Result]) -> None:
    for n_points in range(5):
        copy = unfinish(whole, n_points)
        result = invoke("resume", copy)
        assert result.exit_code == 0, result.output
        for name in ("results.csv", "channels.csv", "journal.jsonl"):
            assert (copy / name).read_bytes() == (whole / name).read_bytes()


def test_predictions_are_kept_on_demand_also_after_a_resume(toy: Path, invoke: Callable[..., Result]) -> None:
    copy = unfinish(toy, 2)
    (copy / "predictions.npz").unlink()
    assert invoke("resume", copy).exit_code == 0
    for run in (toy, copy):
        with np.load(run / "predictions.npz") as saved:
            assert saved["k"].tolist() == [0, 1, 2, 3] and saved["predicted"].dtype == np.uint8
            # Worked out in toy_images: K = 2 gives up image 1, K = 3 images 0 and 1.
            assert saved["predicted"].tolist() == [[0, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [1, 0, 1, 1]]
            assert saved["label"].tolist() == [0, 1, 1, 1]
        assert len(read_journal(run / "journal.jsonl")) == 4


def test_resuming_with_another_model_or_other_data_is_refused(whole: Path, invoke: Callable[..., Result]) -> None:
    copy = unfinish(whole, 2)
    model, data = (whole.parents[1] / name for name in ("toy.h5", "toy.npz"))
    original = data.read_bytes()
    np.savez(data, x_test=np.ones((4, 2, 2, 4)), y_test=[0, 0, 1, 1])
    result = invoke("resume", copy)
    assert (
        result.exit_code == 78
        and "the test data must be what " in result.stderr
        and "the run was started with (SHA-256 " in result.stderr
    )
    data.write_bytes(original)
    network = keras.saving.load_model(model, compile=False)
    network.set_weights([weight + 1 for weight in network.get_weights()])
    save_model(network, model)
    result = invoke("resume", copy)
    assert result.exit_code == 78 and "the model must be what " in result.stderr


def test_resuming_with_edited_settings_is_refused(whole: Path, invoke: Callable[..., Result]) -> None:
    copy = unfinish(whole, 2)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("bias: zero", "bias: keep"))
    result = invoke("resume", copy)
    assert (
        result.exit_code == 78
        and "was started with other settings: prune.bias was 'zero', now 'keep'; put" in result.stderr
    )


def test_a_finished_run_is_named_as_finished(whole: Path, invoke: Callable[..., Result]) -> None:
    again = invoke("sweep", "toy.h5", "--data", "toy.npz", "--run-id", "whole")
    assert again.exit_code == 78
    assert again.stderr == (
        "Error: run runs/whole is finished already; start it over beside it with "
        "`lab3 resume runs/whole --new`, or choose another --run-id\n"
    )
    resumed = invoke("resume", "runs/whole")
    assert (resumed.exit_code, resumed.stderr) == (0, "run runs/whole is finished; nothing is left to do\n")


def test_attempts_are_counted_and_may_be_limited(whole: Path, invoke: Callable[..., Result]) -> None:
    copy = unfinish(whole, 2)
    manifest = json.loads((copy / "manifest.json").read_text())
    assert len(manifest["attempts"]) == 1
    refused = invoke("resume", copy, "--max-attempts", "1")
    assert refused.exit_code == 78 and "has been started 1 times and may be 1 times" in refused.stderr
    assert invoke("resume", copy, "--max-attempts", "2").exit_code == 0
    assert len(json.loads((copy / "manifest.json").read_text())["attempts"]) == 2


def test_other_versions_are_refused_and_the_run_can_be_started_over(whole: Path, invoke: Callable[..., Result]) -> None:
    copy = unfinish(whole, 2)
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
        assert (copy.with_name(f"{copy.name}-2") / name).read_bytes() == (whole / name).read_bytes()
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
