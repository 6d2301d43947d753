"""Offline runs of Weights & Biases below a folder: found, forgotten, sent."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from lab3.errors import ServerError

_SYNC_LIMIT_S = 3600
_READ_LIMIT_S = 60


def find_offline_run(folder: Path, run_id: str) -> Path:
    """The one offline run of this id below `folder`. Raises `ServerError` if there is not exactly one."""
    found = _offline_runs(folder, run_id)
    if len(found) != 1:
        raise ServerError(f"{folder / 'wandb'} must hold one offline run, got {len(found)}; see the warning above")
    return found[0]


def forget_offline_runs(folder: Path, run_id: str) -> None:
    """Remove all offline runs of this id below `folder`."""
    for run in _offline_runs(folder, run_id):
        shutil.rmtree(run)


def forget_unsent(folder: Path, run_id: str) -> int:
    """Remove the offline runs of this id that nobody has sent; returns how many rows those that were sent hold."""
    n_rows = 0
    for run in _offline_runs(folder, run_id):
        if list(run.glob("*.wandb.synced")):
            n_rows = max(n_rows, _count_rows(run))
        else:
            shutil.rmtree(run)
    return n_rows


def sync(folder: Path, run_id: str) -> None:
    """Send the offline run below `folder`. Raises `ServerError` if W&B's client says that it failed."""
    try:
        done = _wandb("sync", find_offline_run(folder, run_id), limit_s=_SYNC_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"`wandb sync` did not end in {_SYNC_LIMIT_S} s; try again later") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServerError(f"`wandb sync` failed ({lines[-1] if lines else 'without a word'}); try again later")


def _offline_runs(folder: Path, run_id: str) -> list[Path]:
    return sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))


def _count_rows(run: Path) -> int:
    """Up to the last row that is whole, those of earlier runs included: a row's number is its step."""
    done = _wandb("leet", "inspect", "--json", run, limit_s=_READ_LIMIT_S)
    records = (json.loads(line) for line in done.stdout.splitlines())
    return max((1 + record["history"]["item"]["_step"] for record in records if record["type"] == "history"), default=0)


def _wandb(*arguments: str | Path, limit_s: float) -> "subprocess.CompletedProcess[str]":
    # -P: not the folder `wandb` of a run's folder, where one can be.
    command = [sys.executable, "-P", "-m", "wandb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
