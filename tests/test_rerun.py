"""Runs repeated from their folders and compared point by point."""

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lab3.app.pipeline.compare import compare_runs
from lab3.inputs.training import Epoch
from lab3.pruning.engine import SweepPoint
from lab3.record.journal import open_journal, read_journal
from lab3.record.rundir import RunDir
from lab3.record.tables import row_of_epoch
from tests.folders import edit_json, edit_point, own_copy

OTHER: dict[str, tuple[dict[str, Any], str]] = {
    "pruned_channels": ({"pruned_channels": [0, 3]}, "pruned channels 1 -> 3"),
    "correct": ({"correct": 1}, "correct 3 -> 1 (-2)"),
    "total": ({"total": 5}, "total 4 -> 5 (+1)"),
    "loss": ({"loss": 0.25}, "loss 0."),
    "top5_correct": ({"top5_correct": 3}, "top5_correct 4 -> 3 (-1)"),
    "class_correct": ({"class_correct": [0, 3]}, "class_correct in 2 places"),
    "n_changed": ({"n_changed": 3}, "n_changed 1 -> 3 (+2)"),
    "n_tied": ({"n_tied": 2}, "n_tied 0 -> 2 (+2)"),
    "class_lost": ({"class_lost": [0, 2]}, "class_lost in 1 places"),
    "class_gained": ({"class_gained": [1, 1]}, "class_gained in 2 places"),
    "class_total": ({"class_total": [1, 4]}, "class_total in 1 places"),
    "turned_wrong": ({"turned_wrong": [2]}, "turned_wrong in 1 places"),
    "turned_right": ({"turned_right": [1, 2]}, "turned_right in 2 places"),
    "n_inferred": ({"n_inferred": 2, "n_audited": 0, "loss_se": 0.0}, "n_inferred 1 -> 2 (+1)"),
    "n_audited": ({"n_inferred": 1, "n_audited": 2, "loss_se": 0.0}, "n_audited 0 -> 2 (+2)"),
    "loss_se": ({"n_inferred": 1, "n_audited": 0, "loss_se": 0.5}, "loss_se 0.0 -> 0.5"),
    "confusion": ({"confusion": [[1, 0], [2, 1]]}, "confusion in 2 places"),
}


@pytest.fixture
def toy(toy_folder: Path, tmp_path: Path) -> Path:
    """A finished run of 4 points with model and data of its own."""
    return own_copy(toy_folder / "runs" / "toy", tmp_path / "archive" / "toy")


def test_a_repeated_run_is_identical(toy: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("rerun", toy)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["identical: 4 points", "runs/toy-rerun"]
    assert "W&B disabled: chosen by --mode" in result.stderr and "warning" not in result.stderr
    again = tmp_path / "runs" / "toy-rerun"
    for name in ("journal.jsonl", "results.csv", "metrics.csv", "channels.csv", "predictions.npz"):
        assert (again / name).read_bytes() == (toy / name).read_bytes()
    assert invoke("verify", again).exit_code == 0
    second = invoke("rerun", toy, "--out", "runs")
    assert second.stdout.splitlines()[-1] == "runs/toy-rerun2"
    taken = invoke("rerun", toy, "--run-id", "toy-rerun")
    assert taken.exit_code == 78 and "run runs/toy-rerun is finished already" in taken.stderr


def test_a_trained_network_is_taken_from_the_folder_or_trained_again(
    own: Path, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke("rerun", own)
    assert result.exit_code == 0 and result.stdout.startswith("identical: 32 points\n"), result.output
    assert "training" not in result.stderr and not (tmp_path / "runs" / "own-rerun" / "model.h5").exists()
    result = invoke("rerun", own, "--train", "--run-id", "again")
    assert "training digits_cnn on 1,352 images" in result.stderr
    assert (tmp_path / "runs" / "again" / "model.h5").exists()
    # Training need not give the same bits on every machine; what it gave is what counts.
    journals = [(run / "journal.jsonl").read_bytes().split(b"\n")[1:] for run in (own, tmp_path / "runs" / "again")]
    assert result.exit_code == (0 if journals[0] == journals[1] else 65)


def test_changed_files_are_refused_with_both_hashes(toy: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    for path, what in ((tmp_path / "toy.npz", "test data"), (tmp_path / "toy.h5", "model")):
        content = path.read_bytes()
        path.write_bytes(content + b"x")
        result = invoke("rerun", toy)
        assert result.exit_code == 78 and f"the {what} must be what the run was started with" in result.stderr
        assert sha256(content).hexdigest() in result.stderr
        assert sha256(content + b"x").hexdigest() in result.stderr
        path.unlink()
        gone = invoke("rerun", toy)
        assert gone.exit_code == 65 and f"{path}: no such" in gone.stderr
        moved = tmp_path / f"moved{path.suffix}"
        moved.write_bytes(content)
        found = invoke("rerun", toy, "--model" if what == "model" else "--data", moved, "--run-id", f"found-{what[0]}")
        assert found.exit_code == 0 and found.stdout.startswith("identical: 4 points\n"), found.output
        path.write_bytes(content)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["found-m", "found-t"]


def test_data_that_is_no_file_is_compared_too(own: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    edit_json(own / "manifest.json", lambda manifest: manifest["data"]["test"].update(sha256="0" * 64))
    result = invoke("rerun", own)
    assert result.exit_code == 78 and not (tmp_path / "runs").exists()
    assert f"the test data must be what the run was started with (SHA-256 {'0' * 64})" in result.stderr


def test_what_differs_is_reported_by_k_and_number_of_images(
    toy: Path, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit_point(toy, 2, correct=2, n_run=9)
    result = invoke("rerun", toy, "--run-id", "one")
    assert result.exit_code == 65 and result.stdout.splitlines() == [
        "K=2: correct 2 -> 3 (+1)",
        "note: at 1 K another number of images was run",
        "runs/one",
    ]
    assert f"runs/one must repeat {toy}, but 1 of 4 points differ, see above" in result.stderr
    edit_point(toy, 1, k=7)
    edit_point(toy, 3, correct=4)
    monkeypatch.setattr("lab3.app.cli.records._SHOWN_DIFFERENCES", 3)
    result = invoke("rerun", toy, "--run-id", "two")
    assert result.exit_code == 65 and result.stdout.splitlines()[:4] == [
        "K=1: only in runs/two",
        "K=2: correct 2 -> 3 (+1)",
        "K=3: correct 4 -> 2 (-2)",
        "and 1 more",
    ]


def test_every_field_of_a_point_is_compared(toy: Path, tmp_path: Path) -> None:
    assert set(OTHER) | {"k", "n_run"} == {field.name for field in fields(SweepPoint)}
    edit_point(toy, 2, n_inferred=1, n_audited=0, loss_se=0.0)
    for name, (values, message) in OTHER.items():
        other = Path(shutil.copytree(toy, tmp_path / name))
        edit_point(other, 2, **values)
        [difference] = compare_runs(RunDir(toy), RunDir(other), "sweep").differences
        assert difference.startswith(f"K=2: {message}")
    assert compare_runs(RunDir(toy), RunDir(toy), "sweep").differences == []


def test_runs_that_only_trained_are_compared_by_epochs(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    for folder, epochs in (
        (before, [Epoch(1, 0.5, 0.75, None, None), Epoch(2, 0.25, 1.0, None, None)]),
        (after, [Epoch(1, 0.5, 0.8, None, None)]),
    ):
        folder.mkdir()
        with open_journal(folder / "epochs.jsonl", {"journal": 1}) as journal:
            for epoch in epochs:
                journal.append(row_of_epoch(epoch, "0" * 64))
    comparison = compare_runs(RunDir(before), RunDir(after), "train")
    assert (comparison.n_compared, comparison.unit) == (2, "epochs")
    assert comparison.differences == ["epoch 1: accuracy 0.75 -> 0.8 (+0.05)", f"epoch 2: only in {before}"]


def test_other_versions_are_reported_before_the_work(toy: Path, invoke: Callable[..., Result]) -> None:
    edit_json(
        toy / "manifest.json", lambda manifest: (manifest.update(lab3="0.0.1"), manifest["versions"].update(keras="2"))
    )
    result = invoke("rerun", toy)
    assert result.exit_code == 0
    assert "so the last bits may differ: lab3 was '0.0.1', now '0.1.0'; keras was '2', now '3." in result.stderr


def test_what_cannot_be_repeated_is_refused(
    toy: Path, own: Path, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    cases = [
        (("rerun", toy, "--train"), 78, "--train is for runs that trained their network"),
        (("rerun", own, "--model", "toy.h5"), 78, "--model is for runs that loaded a model file"),
        (("rerun", "nowhere"), 78, "nowhere: no such run folder"),
    ]
    for args, exit_code, message in cases:
        result = invoke(*args)
        assert result.exit_code == exit_code and message in result.stderr
    edit_json(own / "manifest.json", lambda manifest: manifest.update(kind="train"))
    result = invoke("rerun", own)
    assert result.exit_code == 78 and "only trained a network and has no points; give --train" in result.stderr
    (toy / "journal.jsonl").unlink()
    result = invoke("rerun", toy)
    assert result.exit_code == 78 and "journal.jsonl cannot be read (" in result.stderr
    (toy / "summary.json").unlink()
    result = invoke("rerun", toy)
    assert result.exit_code == 75 and f"go on with `lab3 resume {toy}`" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_the_new_run_has_the_settings_of_the_old_one(toy: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    assert invoke("rerun", toy, "--out", "elsewhere", "--run-id", "r").exit_code == 0
    again = tmp_path / "elsewhere" / "r"
    assert (again / "config.yaml").read_bytes() == (toy / "config.yaml").read_bytes()
    before, after = (json.loads((run / "manifest.json").read_text()) for run in (toy, again))
    assert before["data"]["test"]["sha256"] == after["data"]["test"]["sha256"]
    assert read_journal(again / "journal.jsonl") == read_journal(toy / "journal.jsonl")
