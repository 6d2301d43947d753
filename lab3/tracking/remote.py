"""What W&B's server shows of a run, and sending an offline run to it."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab3.errors import ServerError

_SYNC_LIMIT_S = 3600


@dataclass(frozen=True)
class RemoteRun:
    """`rows`: the history in order of step. `n_lines`: rows the server keeps, also several of one step.

    `artifacts`: names, without version, of those that are whole.
    """

    state: str
    rows: list[dict[str, Any]]
    n_lines: int
    summary: dict[str, Any]
    artifacts: frozenset[str]


@dataclass(frozen=True)
class Place:
    """Where runs are kept; `entity` is None where nobody has said so."""

    project: str
    entity: str | None


def find_place(project: str, entity: str | None, api: Any = None) -> Place:
    """`WANDB_PROJECT` and `WANDB_ENTITY`, else the arguments, else the default entity that `api`, if given, tells."""
    found = os.environ.get("WANDB_ENTITY") or entity or (api.default_entity if api else None)
    return Place(os.environ.get("WANDB_PROJECT") or project, found)


def read_remote(project: str, entity: str | None, run_id: str, timeout_s: float) -> RemoteRun | None:
    """The run as the server shows it, None if it has none. `WANDB_PROJECT` and `WANDB_ENTITY` are stronger.

    Raises `ServerError` if the server cannot be asked.
    """
    import wandb

    try:
        api = wandb.Api(timeout=int(max(1, timeout_s)))
        place = find_place(project, entity, api)
        run = api.run(f"{place.entity}/{place.project}/{run_id}")
        rows = [dict(row) for row in run.scan_history(use_cache=False)]
        artifacts = [*run.logged_artifacts(), *run.used_artifacts()]
        return RemoteRun(
            state=run.state,
            rows=rows,
            n_lines=int(run.historyLineCount),
            summary=dict(run.summary),
            artifacts=frozenset(each.name.partition(":")[0] for each in artifacts if each.state == "COMMITTED"),
        )
    except Exception as error:
        # The client raises errors of many libraries, and one type of its own for whatever the server answers.
        if "could not find run" in str(error).lower():
            return None
        raise ServerError(f"W&B's server cannot be asked ({type(error).__name__}: {error}); try again later") from error


def sync(folder: Path) -> None:
    """Send the offline run below `folder`. Raises `ServerError` if W&B's client says that it failed."""
    found = list((folder / "wandb").glob("offline-run-*"))
    if len(found) != 1:
        raise ServerError(f"{folder / 'wandb'} must hold one offline run, got {len(found)}; see the warning above")
    command = [sys.executable, "-m", "wandb", "sync", str(found[0])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SYNC_LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"`wandb sync` did not end in {_SYNC_LIMIT_S} s; try again later") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise ServerError(f"`wandb sync` failed ({lines[-1] if lines else 'without a word'}); try again later")
