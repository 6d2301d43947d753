"""Offline runs of Weights & Biases below a folder: found, read, forgotten, sent."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from lab3.errors import ServerError

_SYNC_LIMIT_S = 3600
_READ_LIMIT_S = 60


@dataclass(frozen=True)
class RunTimes:
    """When a run started, and when its rows were logged by their number, as far as that is known; Unix time."""

    started_s: float | None = None
    rows_s: Mapping[int, float] = field(default_factory=dict)


def find_offline_run(folder: Path, run_id: str) -> Path:
    """The one offline run of this id below `folder`. Raises `ServerError` if there is not exactly one."""
    found = offline_runs(folder, run_id)
    if len(found) != 1:
        raise ServerError(f"{folder / 'wandb'} must hold one offline run, got {len(found)}; see the warning above")
    return found[0]


def forget_offline_runs(folder: Path, run_id: str, *, keep_sent: bool) -> tuple[int, RunTimes]:
    """Remove the offline runs of this id below `folder`; returns how many rows are kept, and the times of all.

    With `keep_sent` those that somebody has sent stay.
    """
    found = offline_runs(folder, run_id)
    # `wandb sync` leaves such a file.
    kept = [run for run in found if keep_sent and any(run.glob("*.wandb.synced"))]
    times = read_times(found)
    n_rows = 1 + max(read_times(kept).rows_s, default=-1)
    for run in found:
        if run not in kept:
            shutil.rmtree(run)
    return n_rows, times


def read_times(runs: Sequence[Path]) -> RunTimes:
    """The times of offline runs that are parts of one, the earliest first: the first time of each."""
    started_s, rows_s = None, dict[int, float]()
    for run in reversed(runs):
        records, _ = read_records(run)
        for each in records["run"]:
            started_s = datetime.fromisoformat(each["start_time"]).timestamp()
        # A row's number is its step, also in a run that goes on where an earlier one ends.
        rows_s.update({row["item"]["_step"]: row["item"]["_timestamp"] for row in records["history"]})
    return RunTimes(started_s, rows_s)


def read_records(run: Path) -> tuple[Mapping[str, list[dict[str, Any]]], bool]:
    """The records of an offline run that can be read, by their type, and whether these are all."""
    done = _wandb("leet", "inspect", "--json", run, limit_s=_READ_LIMIT_S)
    records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in map(json.loads, done.stdout.splitlines()):
        records[record["type"]].append(record.get(record["type"], {}))
    # On stderr it says that it has skipped something, or that the end is missing.
    is_whole = done.returncode == 0 and not done.stderr and "exit" in records
    return records, is_whole


def sync(folder: Path, run_id: str) -> None:
    """Send the offline run below `folder`. Raises `ServerError` if W&B's client says that it failed."""
    try:
        done = _wandb("sync", "--include-synced", find_offline_run(folder, run_id), limit_s=_SYNC_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"`wandb sync` did not end in {_SYNC_LIMIT_S} s; try again later") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServerError(f"`wandb sync` failed ({lines[-1] if lines else 'without a word'}); try again later")


def offline_runs(folder: Path, run_id: str) -> list[Path]:
    """Folders of the offline runs of this id below `folder`, the earliest first."""
    return sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))


def _wandb(*arguments: str | Path, limit_s: float) -> "subprocess.CompletedProcess[str]":
    # -P: not the folder `wandb` of a run's folder, where one can be.
    command = [sys.executable, "-P", "-m", "wandb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
