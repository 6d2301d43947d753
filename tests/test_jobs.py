"""Scheduled jobs: of the same command any number of times comes one run, and every end has its exit code and record."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lab3.app.jobs import check_storage, find_slot, job_id, storage
from lab3.app.jobs.storage import mount_of
from lab3.config import load_config
from lab3.errors import ConfigError
from lab3.record.attempts import add_up, read_attempts
from lab3.record.journal import append_row, read_journal
from lab3.record.rundir import RunDir
from lab3.record.state import read_state
from tests.folders import DIGITS, files_of
from tests.processes import Process, start

SCHEDULERS = [
    ({}, "", None),
    ({"SLURM_JOB_ID": "17"}, "17", "Slurm"),
    ({"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "18", "SLURM_ARRAY_TASK_ID": "3"}, "18-3", "Slurm array"),
    ({"SKYPILOT_TASK_ID": "sky-managed-1-0"}, "sky-managed-1-0", "SkyPilot"),
    ({"GITHUB_RUN_ID": "5", "GITHUB_RUN_ATTEMPT": "2"}, "5", "GitHub Actions"),
]


@pytest.mark.parametrize(("variables", "name", "scheduler"), SCHEDULERS)
def test_attempts_at_one_job_have_one_slot(variables: dict[str, str], name: str, scheduler: str | None) -> None:
    slot = find_slot(None, variables)
    assert (slot.name, slot.scheduler) == (name, scheduler)
    assert find_slot("mine", variables).name == "mine"


def test_a_jobs_id_follows_from_settings_inputs_and_slot(toy_files: tuple[Path, Path], tmp_path: Path) -> None:
    model, data = toy_files

    def id_of(model: Path = model, data: Path = data, slot: str = "", **work: Any) -> str:
        settings = [("--model", f"model.path={model}"), ("--data", f"data.test={data}")]
        return job_id(load_config(None, settings, tmp_path / "none.yaml"), work, find_slot(slot, {}))

    first = id_of()
    assert first.startswith("sweep-") and id_of() == first
    moved = tmp_path / "moved.h5"
    moved.write_bytes(model.read_bytes())
    assert id_of(model=moved) == first
    moved.write_bytes(model.read_bytes() + b"1")
    others = {id_of(model=moved), id_of(slot="2026-01-02"), id_of(layers=["conv"]), id_of(data=tmp_path)}
    assert len(others) == 4 and first not in others
    (tmp_path / "one.jpg").write_bytes(b"1")
    assert id_of(data=tmp_path) not in others


def arguments(toy_files: tuple[Path, Path], *more: object) -> tuple[object, ...]:
    return ("sweep", toy_files[0], "--data", toy_files[1], "--set", "data.scale=1.0", "--job", *more)


def test_a_job_runs_once_and_then_ends_at_once(
    toy_files: tuple[Path, Path], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    first = invoke(*arguments(toy_files, "--hourly-price", "3.6"))
    assert first.exit_code == 0, first.output
    result = json.loads(first.stdout)
    (run,) = (tmp_path / "runs").iterdir()
    assert result == json.loads((run / "job.json").read_text())
    assert (result["run_id"], result["exit_code"], result["slot"]) == (run.name, 0, "")
    assert result["runs"][run.name]["certified"]["k"] == 0
    cost = result["cost"]
    assert cost["attempts"] == 1 and cost["price"] == pytest.approx(cost["seconds"] / 1000, abs=1e-4)
    stored = RunDir(run).read_manifest().cost
    assert stored is not None and stored.attempts == 1 and stored.price is not None
    lines = [json.loads(line) for line in first.stderr.splitlines()]
    assert {line["level"] for line in lines} == {"info"}
    assert [line["done"] for line in lines if line["message"] == "sweep"] == [1, 2, 3, 4]
    before = files_of(run)
    again = invoke(*arguments(toy_files))
    assert again.exit_code == 0 and "nothing is left to do" in again.stderr
    assert {**files_of(run), "job.json": b""} == {**before, "job.json": b""}
    assert invoke("verify", run).exit_code == 0
    assert invoke(*arguments(toy_files, "--slot", "2026-01-02")).exit_code == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_attempts_add_up_also_where_one_was_killed(toy: Path) -> None:
    run = RunDir(toy)
    run.attempts_jsonl.unlink()
    for row in (
        {"device": "gpu", "host": "a", "started_s": 100.0},
        {"device": "gpu", "host": "b", "started_s": 500.0, "written_s": 160.0},
        {"end": "preempted", "ended_s": 520.0},
        {"device": "cpu", "host": "b", "started_s": 600.0, "written_s": 515.0},
    ):
        append_row(run.attempts_jsonl, row)
    found = read_attempts(run, now_s=610.0)
    assert [(each.seconds, each.end) for each in found] == [(60.0, "killed"), (20.0, "preempted"), (10.0, None)]
    cost = add_up(found, 36.0)
    assert (cost.attempts, cost.seconds, cost.device, cost.price) == (3, 90.0, "gpu, cpu", 0.9)
    run.summary_json.unlink()
    assert str(read_state(run)) == "killed at 4"
    append_row(run.attempts_jsonl, {"end": "failed", "ended_s": 620.0})
    assert str(read_state(run)) == "failed at 4"


@pytest.mark.parametrize(
    ("broken", "text"),
    [
        ("_locks", "that locks a folder, got"),
        ("_replaces", "that replaces a file, got"),
        ("_appends", "that appends to"),
    ],
)
def test_a_folder_that_cannot_hold_runs_is_refused(
    broken: str, text: str, toy_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    invoke: Callable[..., Result],
) -> None:  # fmt: skip
    assert check_storage(tmp_path / "new") is None
    monkeypatch.setattr(storage, broken, lambda probe: False)
    with pytest.raises(ConfigError, match=text):
        check_storage(tmp_path)
    assert not list(tmp_path.glob(".*.probe"))
    result = invoke(*arguments(toy_files))
    assert result.exit_code == 78 and json.loads(result.stdout)["exit_code"] == 78


def test_a_file_system_whose_locks_end_at_the_machine_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = (
        "/dev/sda / ext4 rw 0 0\nbucket /mnt/my\\040bucket fuse.gcsfuse rw,nosuid 0 0\n"
        "server:/x /nfs nfs4 rw,vers=4.2 0 0\nserver:/y /old nfs rw,nolock 0 0\n"
    )
    for folder, kind in (("/home/x", "ext4"), ("/mnt/my bucket/runs", "fuse.gcsfuse"), ("/nfs/runs", "nfs4")):
        assert mount_of(Path(folder), mounts)[0] == kind
    for found, is_warned in ((("fuse.gcsfuse", [""]), True), (("nfs4", ["rw"]), False), (("nfs", ["nolock"]), True)):
        monkeypatch.setattr(storage, "mount_of", lambda folder, found=found: found)
        assert (check_storage(tmp_path) is not None) == is_warned


def last_error(errors: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(errors.splitlines()[-1])
    assert found["level"] == "error", errors
    return found


def wait_for_line(process: Process, message: str) -> None:
    assert process.stderr is not None
    assert any(json.loads(line)["message"] == message for line in process.stderr if line.startswith("{"))


@pytest.mark.forks
@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.chaos)])
def test_of_two_starts_of_a_job_one_works_and_the_other_ends_with_75_or_finds_it_done(
    times: int, toy_files: tuple[Path, Path], tmp_path: Path
) -> None:
    for number in range(times):
        args = arguments(toy_files, "--slot", number)
        both = [start(*args) for _ in range(2)]
        ends = [(process.communicate(), process.returncode) for process in both]
        codes = sorted(code for _, code in ends)
        assert codes in ([0, 75], [0, 0]), ends
        for (_, errors), code in ends:
            if code == 75:
                assert "another process" in last_error(errors)["message"]
        assert start(*args).communicate()[0]
    runs = list((tmp_path / "runs").iterdir())
    assert len(runs) == times
    for run in runs:
        assert [row["k"] for row in read_journal(run / "journal.jsonl")] == [0, 1, 2, 3]
        assert json.loads((run / "job.json").read_text())["exit_code"] == 0


@pytest.mark.forks
def test_a_job_that_is_always_preempted_ends_with_78_and_costs_what_it_cost(fitted_model: Path, tmp_path: Path) -> None:
    slowly = ("--set", "data.scale=16.0", "--set", "sweep.batch_size=10")
    args = ("sweep", fitted_model, "--data", "digits", *slowly, "--job", "--max-attempts", "2")
    for number in (1, 2):
        process = start(*args)
        wait_for_line(process, "sweep")
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=10)
        assert process.returncode == 75, errors
        assert last_error(errors)["message"].endswith("the next attempt goes on from there")
        result = json.loads(output)
        assert [each["end"] for each in result["attempts"]] == ["preempted"] * number
        assert result["cost"]["seconds"] == pytest.approx(sum(each["seconds"] for each in result["attempts"]))
    (path,) = (tmp_path / "runs").iterdir()
    assert read_state(RunDir(path)).condition == "preempted"
    process = start(*args)
    output, errors = process.communicate()
    assert process.returncode == 78 and "started 2 times and may be 2 times" in last_error(errors)["message"]
    assert json.loads(output)["runs"][path.name] == {"is_finished": False}
    assert start(*args[:-1], "9").communicate()[0]
    assert read_state(RunDir(path)).condition == "finished"


def test_a_job_stopped_while_loading_is_counted_too(
    toy_files: tuple[Path, Path], tmp_path: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lab3.app.pipeline import recipes

    def stopped(*args: object, **named: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the signal came first")

    with monkeypatch.context() as patch:
        patch.setattr(recipes, "load_materials", stopped)
        for _ in range(2):
            assert invoke(*arguments(toy_files, "--max-attempts", "2")).exit_code == 75
    result = invoke(*arguments(toy_files, "--max-attempts", "2"))
    assert result.exit_code == 78 and "stopped 2 times while it was loading" in result.stderr
    result = invoke(*arguments(toy_files, "--max-attempts", "3"))
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "runs").iterdir()
    assert invoke("verify", run).exit_code == 0


@pytest.mark.chaos
@pytest.mark.forks
def test_sigterm_at_random_moments_ends_within_ten_seconds_and_loses_nothing(tmp_path: Path) -> None:
    args = ("run", DIGITS, "train.epochs=3", "sweep.batch_size=50", "--job", "--max-attempts", "50")
    rng = random.Random(0)
    for _ in range(10):
        process = start(*args)
        assert process.stderr is not None
        for _, _line in zip(range(rng.randrange(1, 40)), process.stderr, strict=False):
            pass
        sent_s = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        assert process.returncode in (0, 75) and time.monotonic() - sent_s < 10
    process = start(*args)
    output, _ = process.communicate()
    result = json.loads(output)
    (run,) = (tmp_path / "runs").iterdir()
    assert process.returncode == 0 and result["runs"][run.name]["is_finished"]
    ends = [each["end"] for each in result["attempts"]]
    assert ends[-1] == "finished" and set(ends[:-1]) <= {"preempted"}
    assert [row["k"] for row in read_journal(run / "journal.jsonl")] == list(range(32))
    assert [row["epoch"] for row in read_journal(run / "epochs.jsonl")] == [1, 2, 3]
