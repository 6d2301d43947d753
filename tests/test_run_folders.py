"""Untrusted run folders and working folders: nothing outside is read or written, no code of theirs runs."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from lab3.app.pipeline.record import events
from lab3.record.rundir import RunDir
from lab3.tracking.events import Asset
from tests.folders import DIGITS, edit_json, edit_point, unfinish
from tests.processes import start


@pytest.fixture
def run(toy: Path) -> Path:
    """A finished run of a model file."""
    return toy


def test_what_a_link_leads_to_is_not_sent(run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cr3t")
    for name in ("predictions.npz", "figures/accuracy_curve.png"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(secret)
    assets = [event for event in events(RunDir(run), RunDir(run).read_config())["results"] if isinstance(event, Asset)]
    (sent,) = [asset.files for asset in assets if asset.type == "results"]
    assert "results.csv" in sent and secret not in {path.resolve() for path in sent.values()}


def test_hashes_of_files_elsewhere_are_not_made(run: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "runs" / "secret").write_text("s3cr3t")
    edit_json(run / "manifest.json", lambda manifest: manifest["files"].update({"../secret": "0" * 64}))
    result = invoke("verify", run)
    assert result.exit_code == 65
    assert "../secret is missing" in result.output


CAPTURE = {"mean_map_hwc": np.ones((2, 2, 4)), "importance_c": np.ones(4), "pruned_importance_c": np.zeros(4)}


@pytest.mark.parametrize(
    ("save", "changes", "message"),
    [
        (np.savez, {"mean_map_hwc": np.array([None], object)}, "Object arrays cannot be loaded"),
        (np.savez, {"importance_c": np.array([1, 2, np.nan, 3])}, "it must hold numbers"),
        (np.savez, {"importance_c": np.array(["a", "b", "c", "d"])}, "it must hold numbers"),
        (np.savez, {"importance_c": np.ones(3)}, "it must have maps (H, W, C) and a score for each channel"),
        (np.savez, {"mean_map_hwc": np.ones(4)}, "it must have maps (H, W, C) and a score for each channel"),
        (
            np.savez,
            {name: array[..., :3] for name, array in CAPTURE.items()},
            "must have a score for each of 4 channels",
        ),
    ],
)
def test_a_capture_that_does_not_fit_is_refused(
    save: Callable[..., None], changes: dict[str, Any], message: str, run: Path, invoke: Callable[..., Result]
) -> None:
    copy = unfinish(run, 2)
    save(copy / "capture.npz", **CAPTURE | changes)
    result = invoke("resume", copy, "--mode", "disabled")
    assert result.exit_code == 78 and "Traceback" not in result.output
    assert f"{copy / 'capture.npz'} cannot be read (" in result.stderr or "must have a score" in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("kind"), "kind: Field required"),
        (lambda manifest: manifest["data"]["test"].pop("source"), "data.test.source: Field required"),
        (lambda manifest: manifest["model"].pop("path"), "model.ModelFile.path: Field required"),
        (lambda manifest: manifest.update(attempts=5), "attempts: Input should be a valid array, got 5"),
        (lambda manifest: manifest.update(versions=[]), "versions: Input should be an object, got []"),
        (
            lambda manifest: manifest.update(kind="bake"),
            "kind: Input should be 'sweep', 'train' or 'compress', got 'bake'",
        ),
    ],
)
@pytest.mark.parametrize("command", ["resume", "rerun", "publish"])
def test_a_manifest_that_lab3_does_not_write_is_refused(
    command: str, change: Callable[[Any], object], message: str, run: Path, invoke: Callable[..., Result]
) -> None:
    edit_json(run / "manifest.json", change)
    if command == "resume":
        (run / "summary.json").unlink()
    result = invoke(command, run)
    assert result.exit_code == 78 and f"manifest.json cannot be read ({message})" in result.stderr, result.output


@pytest.mark.parametrize("name", ["summary.json", "channels.csv", "scores.csv", "epochs.jsonl"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\0", b"channel,score\n1,x\n"])
def test_what_cannot_be_read_is_not_published(
    name: str, content: bytes, run: Path, invoke: Callable[..., Result]
) -> None:
    (run / name).write_bytes(content)
    result = invoke("publish", run)
    if name == "epochs.jsonl":
        # A torn line, of a run that did not train.
        assert result.exit_code == 75 or "is damaged (its checksum does not fit)" in result.stderr
        return
    assert result.exit_code == 78 and f"{run / name} cannot be read (" in result.stderr, result.output


def test_no_code_of_a_run_folder_runs(run: Path) -> None:
    (run / "summary.json").unlink()
    offline = run / "wandb" / f"offline-run-20260101_000000-{run.name}"
    offline.mkdir(parents=True)
    (offline / "x.wandb.synced").write_text("")
    for name in ("__init__.py", "__main__.py"):
        (run / "wandb" / name).write_text("open('ran', 'w')")
    # A real start, by the command that pip installs: `python -m` would look into the current folder.
    command: list[str | Path] = [Path(sys.executable).with_name("lab3"), "resume", ".", "--mode", "offline"]
    result = subprocess.run(command, cwd=run, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not (run / "ran").exists()


@pytest.mark.forks
def test_no_program_of_a_repository_runs(toy_files: tuple[Path, Path], tmp_path: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "repository"
    folder.mkdir()
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q"], cwd=folder, check=True)
    (folder / "file").write_text("1")
    subprocess.run([*git, "add", "file"], cwd=folder, check=True)
    subprocess.run([*git, "commit", "-qm", "x"], cwd=folder, check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout
    (folder / ".gitattributes").write_text("file filter=f")
    (folder / "file").write_text("2")
    for name, value in (("core.fsmonitor", "touch ran; false"), ("filter.f.clean", "touch ran; cat")):
        subprocess.run([*git, "config", name, value], cwd=folder, check=True)
    process = start("sweep", toy_files[0], "--data", toy_files[1], "--mode", "offline", "--run-id", "r", cwd=folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert json.loads((folder / "runs" / "r" / "manifest.json").read_text())["git_commit"] == commit.strip()
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("folder", ["wandb", ".wandb"])
def test_a_settings_file_of_the_current_folder_does_not_say_where_the_key_goes(
    folder: str, invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    file = tmp_path / folder / "settings"
    file.parent.mkdir()
    args = ("sweep", tmp_path / "no.h5", "--data", "digits", "--mode", "offline")
    file.write_text("[default]\nentity = me\nproject = mine\n")
    assert "no.h5" in invoke(*args).stderr, "an entity and a project are no harm"
    file.write_text("[default]\nbase_url = http://example.org\nhttp_proxy = x\n")
    for command in (args, ("run", DIGITS)):
        result = invoke(*command)
        assert result.exit_code == 78 and "got base_url, http_proxy: W&B's client would send your key" in result.stderr
    monkeypatch.setenv("WANDB_BASE_URL", "http://example.org")
    assert "got http_proxy: W&B's" in invoke(*args).stderr
    file.write_text("[default]\nbase_url = http://example.org\n")
    assert "no.h5" in invoke(*args).stderr
    file.write_text("no section\n")
    assert "settings cannot be read (File contains no section headers." in invoke(*args).stderr


@pytest.mark.parametrize(
    ("k", "changes", "message"),
    [
        (1, {"k": 0}, "K=0 must be there once"),
        (1, {"k": 77}, "K=77 must be of the schedule"),
        (1, {"pruned_channels": [3]}, "K=1 must have the channels pruned that the ranking gives"),
        (1, {"total": 9}, "K=1 must be of 4 images"),
        (1, {"correct": 10**400}, "K=1 must be right for as many images as its classes"),
        (1, {"class_correct": [4]}, "K=1 must have 2 classes"),
        (0, {"confusion": [[1]]}, "K=0 must have a confusion matrix of its classes"),
    ],
)
def test_a_point_that_the_sweep_cannot_have_is_refused(
    k: int, changes: dict[str, Any], message: str, run: Path, invoke: Callable[..., Result]
) -> None:
    copy = unfinish(run, 2)
    edit_point(copy, k, **changes)
    result = invoke("resume", copy, "--mode", "disabled")
    assert result.exit_code == 78 and f"has points that this sweep cannot have: {message}" in result.stderr, (
        result.output
    )


@pytest.mark.parametrize("name", ["capture.npz", "scores.csv"])
def test_what_the_journal_names_must_not_change_and_what_it_does_not_is_made_again(
    name: str, run: Path, invoke: Callable[..., Result]
) -> None:
    whole = (run / name).read_bytes()
    copy = unfinish(run, 2)
    if name == "capture.npz":
        with np.load(run / name) as arrays:
            np.savez(copy / name, **{key: array[..., ::-1] for key, array in arrays.items()})
    else:
        (copy / name).write_bytes(whole.replace(b"0,", b"0,9", 1))
    result = invoke("resume", copy, "--mode", "disabled")
    assert result.exit_code == 78 and f"{name.partition('.')[0]} was '" in result.stderr, result.output
    (copy / "journal.jsonl").unlink()
    assert invoke("resume", copy, "--mode", "disabled").exit_code == 0
    assert (copy / name).read_bytes() == whole
    assert (copy / "results.csv").read_bytes() == (run / "results.csv").read_bytes()


def test_settings_and_states_of_a_training_must_not_change(
    few_digits: tuple[str, ...], invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr("lab3.app.pipeline.training.save_model", stop)
        result = invoke("train", DIGITS, *few_digits, "--set", "train.epochs=2", "--run-id", "t")
        assert isinstance(result.exception, Stop)
    run = tmp_path / "runs" / "t"
    config = (run / "config.yaml").read_text()
    for old, new in (
        ("seed: 0", "seed: 3"),
        ("epochs: 2", "epochs: 3"),
        ("learning_rate: 0.001", "learning_rate: 0.1"),
    ):
        (run / "config.yaml").write_text(config.replace(old, new))
        result = invoke("resume", run)
        name, now = new.split(": ")
        assert result.exit_code == 78 and re.search(
            rf"started with other settings: (train\.)?{name} was .*, now {now}; put", result.stderr
        ), result.output
    (run / "config.yaml").write_text(config)
    epochs = (run / "epochs.jsonl").read_bytes()
    (run / "epochs.jsonl").write_bytes(epochs.replace(b'"loss":', b'"loss":1', 1))
    assert "epochs.jsonl line 2 of 3 is damaged" in invoke("resume", run).stderr
    (run / "epochs.jsonl").write_bytes(epochs)
    states = sorted((run / "checkpoints").iterdir())
    content = states[-1].read_bytes()
    states[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    result = invoke("resume", run)
    assert result.exit_code == 78 and "it is not what epochs.jsonl says was written" in result.stderr
    states[-1].write_bytes(content)
    assert invoke("resume", run).exit_code == 0
    assert invoke("verify", run).stdout.startswith("t: intact, 2 epochs, ")


def test_a_run_that_is_started_again_must_be_asked_for_the_same(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "r")
    command = ("sweep", toy_files[0], "--data", toy_files[1])
    assert invoke(*command).exit_code == 0
    assert "is finished; nothing is left to do" in invoke(*command).stderr
    result = invoke(*command, "--set", "prune.criterion=apoz")
    assert result.exit_code == 78
    assert "other settings: prune.criterion was 'mean_activation', now 'apoz'; put them back" in result.stderr
    result = invoke("sweep", toy_files[1], "--data", toy_files[1])
    assert result.exit_code == 78 and "other settings: model.path was '" in result.stderr


def test_a_configuration_that_is_changed_or_removed_in_mid_run_is_reported(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab3.app.pipeline import sweeping

    original = sweeping.draw_results  # type: ignore[attr-defined]
    config = tmp_path / "runs" / "r" / "config.yaml"

    def touch(*args: Any, **settings: Any) -> Any:
        change()
        return original(*args, **settings)

    monkeypatch.setattr(sweeping, "draw_results", touch)
    command = ("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "r")
    change: Callable[[], object] = lambda: config.write_text(config.read_text().replace("bias: zero", "bias: keep"))  # noqa: E731
    result = invoke(*command)
    assert result.exit_code == 78 and "config.yaml was changed while the run worked; put back" in result.stderr
    shutil.rmtree(tmp_path / "runs")
    change = config.unlink
    result = invoke(*command)
    assert result.exit_code == 78 and "config.yaml: no such file" in result.stderr
    assert not config.with_name("summary.json").exists()
