"""A run's folder against its own record: every kind of damage is reported in words."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from lab3.record.manifest import REPORTS, ModelFile, TrainedModel
from lab3.record.rundir import RunDir, runs_in
from tests.folders import edit_json, edit_point, files_of, replace


def double_a_line(run: Path) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join([*lines, lines[3]]))


def drop_a_line(run: Path) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join([*lines[:2], *lines[3:]]))


def change_a_prediction(run: Path) -> None:
    with np.load(run / "predictions.npz") as saved:
        arrays = dict(saved)
    arrays["predicted"][1, 0] = 1
    np.savez(run / "predictions.npz", **arrays)


def swap_channels_in_capture(run: Path) -> None:
    with np.load(run / "capture.npz") as saved:
        arrays = dict(saved)
    arrays["importance_c"] = arrays["importance_c"][[1, 0, 2, 3]]
    np.savez(run / "capture.npz", **arrays)


def test_an_intact_run_is_intact(toy: Path, own: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("verify", toy, own)
    assert result.exit_code == 0 and result.stdout.splitlines() == [
        "toy: intact, 4 points, 22 files",
        "own: intact, 32 points, 25 files",
    ]
    names = set(json.loads((own / "manifest.json").read_text())["files"])
    written = set(files_of(own))
    assert (
        names == written - {"manifest.json", "attempts.jsonl", *REPORTS}
        and {"model.h5", "summary.json", "figures/accuracy_curve.png"} <= names
    )


def test_a_manifest_that_is_read_is_written_with_the_same_bytes(toy: Path, own: Path) -> None:
    for run, kind in ((RunDir(toy), ModelFile), (RunDir(own), TrainedModel)):
        manifest = run.read_manifest()
        assert type(manifest.model) is kind and manifest.encode() == run.manifest_json.read_bytes()


DAMAGE: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "a digit of results.csv": (
        lambda run: replace(run / "results.csv", "2,2,3,4,", "2,2,2,4,"),
        "results.csv",
        "results.csv line 4 must be '2,2,3,4,0.750000,",
    ),
    "a line of results.csv": (
        lambda run: (run / "results.csv").write_text("".join((run / "results.csv").read_text().splitlines(True)[:-1])),
        "results.csv",
        "got 'no such line'",
    ),
    "metrics.csv": (
        lambda run: replace(run / "metrics.csv", "\n2,4,1,", "\n2,4,2,"),
        "metrics.csv",
        "metrics.csv line 4 must be '2,4,1,",
    ),
    "channels.csv": (
        lambda run: replace(run / "channels.csv", "1,2.0,1,2", "1,2.5,1,2"),
        "channels.csv",
        "channels.csv line 3 must be '1,2.0,1,2\\n' by the journal, got '1,2.5,1,2\\n'",
    ),
    "a figure": (
        lambda run: (run / "figures" / "accuracy_curve.png").unlink(),
        "figures/accuracy_curve.png",
        None,
    ),
    "a doubled line": (
        double_a_line,
        "journal.jsonl",
        "journal.jsonl has points that its sweep cannot have: K=2 must be there once",
    ),
    "a dropped line": (
        drop_a_line,
        "journal.jsonl",
        "journal.jsonl has points that its sweep cannot have: K=1 must be there",
    ),
    "a wrong checksum": (
        lambda run: replace(run / "journal.jsonl", '"correct":3', '"correct":2'),
        "journal.jsonl",
        "journal.jsonl line 4 of 5 is damaged (its checksum does not fit)",
    ),
    "a torn end": (
        lambda run: (run / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes()[:-9]),
        "journal.jsonl",
        "journal.jsonl has points that its sweep cannot have: K=3 must be there",
    ),
    "another record": (
        lambda run: edit_point(run, 2, correct=2),
        "journal.jsonl",
        "results.csv line 4 must be '2,2,2,4,",
    ),
    "another record that fits itself": (
        lambda run: edit_point(run, 1, correct=3, class_correct=[0, 3]),
        "journal.jsonl",
        "results.csv line 3 must be '1,1,3,4,",
    ),
    "a matrix that does not fit": (
        lambda run: edit_point(run, 0, confusion=[[0, 1], [0, 3]]),
        "journal.jsonl",
        None,
    ),
    "images that changed": (
        lambda run: edit_point(run, 2, n_changed=3),
        "journal.jsonl",
        "metrics.csv line 4 must be '2,4,3,0,2,1,2,1,0,0,1,0,0\\n' by the journal",
    ),
    "other images": (lambda run: edit_point(run, 3, total=5), "journal.jsonl", "results.csv line 5 must be '3,3,2,5,"),
    "no images": (
        lambda run: edit_point(run, 3, total=0),
        "journal.jsonl",
        "K=3 must have images, and no count below 0",
    ),
    "other channels": (
        lambda run: edit_point(run, 3, pruned_channels=[0, 1, 3]),
        "journal.jsonl",
        "K=3 must have the channels pruned that the ranking gives",
    ),
    "a point of another form": (
        lambda run: edit_point(run, 3, accuracy=0.5),
        "journal.jsonl",
        "journal.jsonl cannot be read (accuracy: Unexpected keyword argument, got 0.5)",
    ),
    "other importances": (
        swap_channels_in_capture,
        "capture.npz",
        "K=1 must have the channels pruned that the ranking gives",
    ),
    "a best point": (
        lambda run: edit_json(run / "summary.json", lambda summary: summary["best"].update(k=2)),
        "summary.json",
        "summary.json: best must be {'k': 1, 'n_pruned': 1, 'correct': 4, 'accuracy': 1.0} by the journal, got",
    ),
    "no summary at all": (
        lambda run: (run / "summary.json").write_text("{"),
        "summary.json",
        "summary.json cannot be read (",
    ),
    "a prediction": (
        change_a_prediction,
        "predictions.npz",
        None,
    ),
    "predictions of another form": (
        lambda run: (run / "predictions.npz").write_bytes(b"PK"),
        "predictions.npz",
        None,
    ),
    "settings": (
        lambda run: replace(run / "config.yaml", "bias: zero", "bias: keep"),
        "config.yaml",
        "was started with other settings: prune.bias was 'zero', now 'keep'; put them back",
    ),
    "the seed": (
        lambda run: replace(run / "config.yaml", "seed: 0", "seed: 1"),
        "config.yaml",
        "was started with other settings: seed was 0, now 1; put them back",
    ),
    "no settings": (lambda run: (run / "config.yaml").write_text("name: 3"), "config.yaml", "name: must be"),
}


@pytest.mark.parametrize(("damage", "name", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_seen_by_the_hashes_and_in_tables_by_the_record(
    damage: Callable[[Path], object], name: str, message: str | None, toy: Path, invoke: Callable[..., Result]
) -> None:
    damage(toy)
    result = invoke("verify", toy)
    assert result.exit_code == 65 and "Traceback" not in result.output
    assert re.search(
        rf"  {name} is (not what the run wrote: SHA-256 [0-9a-f]{{12}} recorded, now|missing)", result.stdout
    )
    assert "toy: intact" not in result.stdout
    if message is None:
        return
    assert message in result.stdout
    edit_json(toy / "manifest.json", lambda manifest: manifest.pop("files"))
    result = invoke("verify", toy)
    assert result.exit_code == 65 and message in result.stdout, "without hashes"
    assert "note: the manifest has no hashes of the files" in result.stdout
    assert "1 of 1 runs are not what their record says" in result.stderr


def test_another_model_in_the_run_is_seen(own: Path, invoke: Callable[..., Result]) -> None:
    (own / "model.h5").write_bytes((own / "model.h5").read_bytes() + b"x")
    result = invoke("verify", own)
    assert result.exit_code == 65 and result.stdout.startswith("own: 2 problems, 32 points, 22 files\n")
    assert "  model.h5 is not what the run wrote: SHA-256 " in result.stdout
    assert "  the model must be what the run was started with (SHA-256 " in result.stdout
    (own / "model.h5").unlink()
    assert "  model.h5 is missing" in invoke("verify", own).stdout


def test_files_elsewhere_are_checked_where_they_are(toy: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    model, data = tmp_path / "moved.h5", tmp_path / "moved.npz"
    for path, key in ((model, "path"), (data, "test")):
        config = (toy / "config.yaml").read_text()
        old = next(line for line in config.splitlines() if line.startswith(f"  {key}: /"))
        (toy / "config.yaml").write_text(config.replace(old, f"  {key}: {path}"))
    edit_json(toy / "manifest.json", lambda manifest: manifest.pop("files"))
    result = invoke("verify", toy)
    assert result.exit_code == 0
    assert f"  note: the model, {model}, could not be checked: no such file here\n" in result.stdout
    assert f"  note: the test data, {data}, could not be checked: no such file here\n" in result.stdout
    model.write_bytes(b"another")
    data.mkdir()
    result = invoke("verify", toy)
    assert result.exit_code == 65 and "the model must be what the run was started with" in result.stdout
    assert f"  note: the test data are a folder, {data}, which only `lab3 rerun` reads" in result.stdout


def test_an_unfinished_run_is_called_so_and_is_intact_after_resuming(toy: Path, invoke: Callable[..., Result]) -> None:
    # As a kill between manifest and summary leaves it, then one in the sweep.
    (toy / "summary.json").unlink()
    result = invoke("verify", toy)
    assert result.exit_code == 75 and result.stdout == "toy: unfinished, 4 points, 0 files\n"
    assert f"go on with `lab3 resume {toy}`" in result.stderr
    content = (toy / "journal.jsonl").read_bytes()
    (toy / "journal.jsonl").write_bytes(content[:-9])
    assert invoke("verify", toy).stdout == "toy: unfinished, 3 points, 0 files\n"
    (toy / "journal.jsonl").write_bytes(b"")
    assert invoke("verify", toy).stdout == "toy: unfinished, 0 points, 0 files\n"
    (toy / "journal.jsonl").write_bytes(content)
    edit_point(toy, 3, pruned_channels=[])
    result = invoke("verify", toy)
    assert result.exit_code == 65 and "K=3 must have the channels pruned that the ranking gives" in result.stdout
    (toy / "journal.jsonl").write_bytes(content[: content.rindex(b'{"k":3')])
    assert invoke("resume", toy).exit_code == 0
    assert invoke("verify", toy).stdout == "toy: intact, 4 points, 22 files\n"


def test_a_run_that_only_trained(own: Path, invoke: Callable[..., Result]) -> None:
    for path in (own / "journal.jsonl", *own.glob("*.npz"), *own.glob("[mrc]*.csv"), *own.glob("report.*")):
        path.unlink()
    edit_json(own / "manifest.json", lambda manifest: (manifest.update(kind="train"), manifest.pop("files")))
    (own / "summary.json").write_text('{"kept_epoch": 1}')
    result = invoke("verify", own)
    assert result.exit_code == 0 and result.stdout.startswith("own: intact, 2 epochs, 0 files\n"), result.output
    (own / "summary.json").write_text('{"kept_epoch": 2}')
    result = invoke("verify", own)
    assert result.exit_code == 65 and "summary.json: kept_epoch must be 1 by the journal, got 2" in result.stdout


def test_a_folder_of_runs_groups_and_what_is_left_of_a_run(
    toy: Path, own: Path, invoke: Callable[..., Result], tmp_path: Path
) -> None:
    group = tmp_path / "runs" / "group"
    group.mkdir()
    own.rename(group / "own")
    (toy / "wandb").mkdir()
    (toy / "wandb" / "config.yaml").write_text("")
    assert runs_in(tmp_path / "runs") == [group / "own", toy] and runs_in(toy) == [toy]
    assert invoke("verify", tmp_path / "runs").exit_code == 0
    (toy / "manifest.json").unlink()
    result = invoke("verify", tmp_path / "runs")
    assert result.exit_code == 65 and "own: intact" in result.stdout and "manifest.json cannot be read" in result.stdout
    assert "1 of 2 runs are not what their record says" in result.stderr
    result = invoke("verify", tmp_path / "nowhere")
    assert result.exit_code == 78 and "nowhere: no such run folder" in result.stderr
    result = invoke("verify", tmp_path / "nowhere", toy)
    assert result.exit_code == 65 and "nowhere: " in result.stdout


def test_keras_is_not_needed(toy: Path) -> None:
    check = f"""import sys
from lab3.app.cli import main
main(["verify", {str(toy)!r}], standalone_mode=False)
print([name for name in ("keras", "tensorflow", "wandb", "matplotlib") if name in sys.modules])"""
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["toy: intact, 4 points, 22 files", "[]"], done.stderr
