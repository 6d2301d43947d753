"""Offline runs of Weights & Biases below a folder: found, read, forgotten, sent."""

import json
import shutil
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from lab3.errors import ServerError

_SYNC_LIMIT_S = 3600
_READ_LIMIT_S = 60


@dataclass(frozen=True)
class ShownRun:
    """What W&B's server, or an offline run, shows of a run. `state`: that of W&B, or `torn`.

    `rows`: the history in order of step. `n_lines`: rows that are kept, also several of one step. `files`: names of its
    files. `artifacts`: names, without version, of those that are complete; `used`: full names,
    `entity/project/name:version`, of those it was made from. `replaced_by`: the id that a damaged run has now.
    `started_s`: Unix time, of an offline run as far as it is known.
    """

    state: str
    rows: list[dict[str, Any]]
    n_lines: int
    summary: dict[str, Any]
    files: frozenset[str]
    artifacts: frozenset[str]
    used: frozenset[str] = frozenset()
    replaced_by: str | None = None
    started_s: float | None = None


def offline_runs(folder: Path, run_id: str) -> list[Path]:
    """Folders of the offline runs of this id below `folder`, the earliest first."""
    return sorted((folder / "wandb").glob(f"offline-run-*-{run_id}"))


def find_offline_run(folder: Path, run_id: str) -> Path:
    """The one offline run of this id below `folder`. Raises `ServerError` if there is not exactly one."""
    found = offline_runs(folder, run_id)
    if len(found) != 1:
        raise ServerError(f"{folder / 'wandb'} must hold one offline run, got {len(found)}; see the warning above")
    return found[0]


def forget_offline_runs(folder: Path, run_id: str, *, keep_sent: bool) -> tuple[int, list[ShownRun]]:
    """Remove the offline runs of this id below `folder`; returns how many rows are kept, and what each of them showed.

    With `keep_sent` those that somebody has sent stay.
    """
    shown, n_rows = [], 0
    for run in offline_runs(folder, run_id):
        shown.append(read_offline(run))
        # `wandb sync` leaves such a file.
        if keep_sent and any(run.glob("*.wandb.synced")):
            # A row's number is its step, also in a run that continues where an earlier one ends.
            n_rows = max([n_rows, *(row["_step"] + 1 for row in shown[-1].rows)])
        else:
            shutil.rmtree(run)
    return n_rows, shown


def read_offline(path: Path) -> ShownRun:
    """What the server would show of the offline run in the folder `path` if it were sent; if it is torn, what is left.

    Files and artifacts are those whose content is where the run says: not in a folder that was moved.
    """
    done = _wandb("leet", "inspect", "--json", path, limit_s=_READ_LIMIT_S)
    records: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in map(json.loads, done.stdout.splitlines()):
        records[record["type"]].append(record.get(record["type"], {}))
    # On stderr it says that it has skipped something, or that the end is missing.
    is_intact = done.returncode == 0 and not done.stderr and "exit" in records
    exit_code = records["exit"][-1].get("exit_code", 0) if is_intact else None
    rows = [_nested(row["item"]) for row in records["history"]]
    root = path / "files"
    starts = [datetime.fromisoformat(each["start_time"]).timestamp() for each in records["run"]]
    return ShownRun(
        state={None: "torn", 0: "finished"}.get(exit_code, "failed"),
        rows=rows,
        n_lines=len(rows),
        summary={name: value for each in records["summary"] for name, value in _nested(each["update"]).items()},
        files=frozenset(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()),
        artifacts=frozenset(each["name"] for each in records["artifact"] if _is_staged(each)),
        started_s=starts[-1] if starts else None,
    )


def sync(run: Path) -> None:
    """Send an offline run. Raises `ServerError` if W&B's client says that it failed."""
    try:
        done = _wandb("sync", "--include-synced", run, limit_s=_SYNC_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"`wandb sync` did not end in {_SYNC_LIMIT_S} s; try again later") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServerError(f"`wandb sync` failed ({lines[-1] if lines else 'without a word'}); try again later")


def _is_staged(artifact: dict[str, Any]) -> bool:
    staged = [each.get("local_path") for each in artifact["manifest"].get("contents", ())]
    return all(Path(each).exists() for each in staged if each)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"map.path": "a"}` as `{"map": {"path": "a"}}`, as W&B means it."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        first, _, rest = name.partition(".")
        nested[first] = {**nested.get(first, {}), rest: value} if rest else value
    return nested


def _wandb(*arguments: str | Path, limit_s: float) -> "subprocess.CompletedProcess[str]":
    # -P: not the folder `wandb` of a run's folder, where one can be.
    command = [sys.executable, "-P", "-m", "wandb", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
