"""Kills, power cuts, full disks and double starts: no acknowledged point is lost, and the end is as without them.

The default run has a few of each; `make test-chaos` many.
"""

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lab3.record.journal import read_journal
from tests.chaos import (
    check_same_record,
    fill,
    finish,
    forget_unsynced,
    lines_until,
    save_wide_model,
    small_disk,
    start,
)
from tests.folders import DIGITS
from tests.processes import Process

pytestmark = pytest.mark.forks

Sweep = Callable[[str], tuple[str | Path, ...]]


def often(few: int, many: int) -> pytest.MarkDecorator:
    """A few times by default, many times with the marker."""
    return pytest.mark.parametrize("times", [few, pytest.param(many, marks=pytest.mark.chaos)])


def n_points(run: Path) -> int:
    journal = run / "journal.jsonl"
    return len(read_journal(journal)) if journal.exists() else 0


@pytest.fixture(scope="module")
def make_whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """`runs/whole`, a sweep of so many channels that nothing happened to; model and images are two folders above."""

    @cache
    def make(n_channels: int) -> Path:
        folder = tmp_path_factory.mktemp("wide")
        save_wide_model(folder, n_channels)
        finish(*sweep_of(folder), "--run-id", "whole", "--out", folder / "runs")
        return folder / "runs" / "whole"

    return make


def sweep_of(folder: Path) -> tuple[str | Path, ...]:
    return ("sweep", folder / "wide.h5", "--data", folder / "wide.npz", "--set", "sweep.batch_size=5")


@pytest.fixture
def whole(times: int, make_whole: Callable[[int], Path]) -> Path:
    """Of 512 channels where it is done many times, else of 48."""
    return make_whole(512 if times > 2 else 48)


@pytest.fixture
def sweep(whole: Path) -> Sweep:
    """Arguments of the same sweep by its run id."""
    return lambda run_id: (*sweep_of(whole.parents[1]), "--run-id", run_id)


@often(1, 50)
def test_kills_in_a_sweep_lose_nothing(times: int, sweep: Sweep, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "killed"
    work_s = seconds_of_work(whole) / 2
    rng = np.random.default_rng(times)
    blocks = tmp_path / "blocks"
    n_killed, n_before = 0, 0
    computed: set[int] = set()
    while n_killed < times:
        blocks.write_text("")
        arguments = ("resume", run) if run.exists() else sweep("killed")
        process = start(*arguments, program=("tests.chaos", "blocks", blocks))
        lines_until(process, "capture: ")
        n_killed += killed_at_work(process, rng.uniform(0, work_s))
        n_after = n_points(run)
        assert n_after >= n_before
        assert [row["k"] for row in read_journal(run / "journal.jsonl")] == list(range(n_after)) if n_after else True
        begun = {k for line in blocks.read_text().splitlines() for k in range(*map(int, line.split()))}
        assert len(begun & computed) <= 32 and begun >= set(range(n_before, n_after)), (
            "at most a block is computed again"
        )
        n_before = n_after
        computed |= begun
        if (run / "summary.json").exists():
            check_same_record(run, whole)
            shutil.rmtree(run)
            n_before = 0
            computed = set()
    finish(*(("resume", run) if run.exists() else sweep("killed")))
    check_same_record(run, whole)


def killed_at_work(process: Process, after_s: float) -> bool:
    """Kill the process after so many seconds; False if it had ended before."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=after_s)
    is_at_work = process.poll() is None
    process.kill()
    process.communicate()
    return is_at_work


def seconds_of_work(run: Path) -> float:
    """What a finished run took behind the capture."""
    elapsed = json.loads((run / "manifest.json").read_text())["elapsed_s"]
    return float(elapsed["score_s"] + elapsed["sweep_s"])


@pytest.mark.chaos
def test_kills_in_training_end_with_the_same_weights(tmp_path: Path) -> None:
    run, whole = tmp_path / "runs" / "killed", tmp_path / "runs" / "whole"
    train = ("train", DIGITS, "--mode", "disabled", "--run-id")
    finish(*train, "whole")

    def check_same_training() -> None:
        for name in ("epochs.csv", "model.h5"):
            assert (run / name).read_bytes() == (whole / name).read_bytes(), name

    rng = np.random.default_rng(1)
    n_killed = 0
    while n_killed < 10:
        process = start(*(("resume", run) if run.exists() else (*train, "killed")))
        lines_until(process, "training ")
        n_killed += killed_at_work(process, rng.uniform(0.5, 2.5))
        if (run / "summary.json").exists():
            check_same_training()
            shutil.rmtree(run)
    finish(*(("resume", run) if run.exists() else (*train, "killed")))
    check_same_training()


@often(1, 15)
def test_a_power_cut_loses_no_acknowledged_point(times: int, sweep: Sweep, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "cut"
    rng = np.random.default_rng(times)
    mirror = tmp_path / "mirror"
    work_s = seconds_of_work(whole)
    n_cut = 0
    while n_cut < times:
        mirror.mkdir(exist_ok=True)
        arguments = ("resume", run) if run.exists() else sweep("cut")
        process = start(*arguments, program=("tests.chaos", "mirror", mirror))
        lines_until(process, "capture: ")
        n_cut += killed_at_work(process, rng.uniform(0, work_s))
        forget_unsynced(run, mirror)
        acknowledged = (mirror / "acknowledged").read_text().split() if (mirror / "acknowledged").exists() else []
        kept = {row["k"] for row in read_journal(run / "journal.jsonl")} if n_points(run) else set()
        assert {int(k) for k in acknowledged} <= kept
        if (run / "summary.json").exists():
            check_same_record(run, whole)
            shutil.rmtree(run)
            shutil.rmtree(mirror)
    finish(*(("resume", run) if run.exists() else sweep("cut")))
    check_same_record(run, whole)


@often(1, 20)
def test_of_two_starts_of_one_run_one_runs(times: int, toy_files: tuple[Path, Path], tmp_path: Path) -> None:
    for number in range(times):
        arguments = ("sweep", toy_files[0], "--data", toy_files[1], "--run-id", f"r{number}")
        processes = [start(*arguments) for _ in range(2)]
        errors = [process.communicate()[1] for process in processes]
        codes = [process.returncode for process in processes]
        # Where the first was done before the second looked, the run is there already.
        assert sorted(codes) in ([0, 75], [0, 78]), errors
        loser = errors[codes.index(0) ^ 1]
        assert "is in use by another process" in loser or "exists already; continue it" in loser
        assert n_points(tmp_path / "runs" / f"r{number}") == 4


@often(1, 10)
def test_a_full_disk_ends_with_74_and_goes_on_when_there_is_room(
    times: int, sweep: Sweep, whole: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(times)
    disk = tmp_path / "disk"
    with small_disk(disk, 64):
        work_s = seconds_of_work(whole) / 2
        n_filled = 0
        while n_filled < times:
            run = disk / f"r{n_filled}"
            process = start(*sweep(run.name), "--out", disk, "--mode", "offline")
            lines_until(process, "capture: ")
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=rng.uniform(0, work_s))
            before = n_points(run)
            filler = fill(disk)
            if (run / "summary.json").exists():
                # It was over before the disk was full.
                process.communicate(timeout=120)
                filler.unlink()
                shutil.rmtree(run)
                continue
            n_filled += 1
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 74, errors
            assert "No space left on device" in errors and "`lab3 resume RUN` goes on" in errors
            assert "Traceback" not in errors
            assert n_points(run) >= before
            filler.unlink()
            finish("resume", run, "--mode", "disabled")
            check_same_record(run, whole)
            shutil.rmtree(run)


@pytest.mark.parametrize("times", [1])
def test_a_folder_removed_in_mid_run_is_told(sweep: Sweep, tmp_path: Path) -> None:
    process = start(*sweep("gone"))
    lines_until(process, "sweep: ")
    shutil.rmtree(tmp_path / "runs" / "gone")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 78, errors
    assert "was removed while it was worked on (" in errors and "Traceback" not in errors
