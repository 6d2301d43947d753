"""What W&B's server, or an offline run, shows of a run, and adding to it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab3.errors import ServerError
from lab3.tracking.client import import_client
from lab3.tracking.offline import find_offline_run, read_records

_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class RemoteRun:
    """`rows`: the history in order of step. `n_lines`: rows the server keeps, also several of one step.

    `files`: names of its files. `artifacts`: names, without version, of those that are whole; `used`: whole names,
    `entity/project/name:version`, of those it was made from.
    """

    state: str
    rows: list[dict[str, Any]]
    n_lines: int
    summary: dict[str, Any]
    files: frozenset[str]
    artifacts: frozenset[str]
    used: frozenset[str]


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
    try:
        _, run = _find_run(project, entity, run_id, timeout_s)
        rows = [dict(row) for row in run.scan_history(use_cache=False)]
        used = list(run.used_artifacts())
        artifacts = [*run.logged_artifacts(), *used]
        return RemoteRun(
            state=run.state,
            rows=rows,
            n_lines=int(run.historyLineCount),
            summary=dict(run.summary_metrics),
            files=frozenset(file.name for file in run.files(pattern="media/%", per_page=1000) if file.size),
            artifacts=frozenset(each.name.partition(":")[0] for each in artifacts if each.state == "COMMITTED"),
            used=frozenset(each.qualified_name for each in used),
        )
    except Exception as error:
        # The client raises errors of many libraries, and one type of its own for whatever the server answers.
        if "could not find run" in str(error).lower():
            return None
        raise ServerError(f"W&B's server cannot be asked ({type(error).__name__}: {error}); try again later") from error


def read_offline(path: Path) -> RemoteRun | None:
    """What the server would show of the offline run in the folder `path` if it were sent; None if its records are torn.

    Files and artifacts are those whose content is where the run says: not in a folder that was moved.
    """
    records, is_whole = read_records(path)
    if not is_whole:
        return None
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    artifacts, exit_code = set(), None
    for record in records:
        if record["type"] == "history":
            rows.append(_nested(record["history"]["item"]))
        elif record["type"] == "summary":
            summary.update(_nested(record["summary"]["update"]))
        elif record["type"] == "artifact":
            artifact = record["artifact"]
            staged = [each.get("local_path") for each in artifact["manifest"].get("contents", ())]
            if all(Path(each).exists() for each in staged if each):
                artifacts.add(artifact["name"])
        elif record["type"] == "exit":
            exit_code = record["exit"].get("exit_code", 0)
    root = path / "files"
    files = frozenset(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    state = "finished" if exit_code == 0 else "failed"
    return RemoteRun(state, rows, len(rows), summary, files, frozenset(artifacts), frozenset())


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """`{"map.path": "a"}` as `{"map": {"path": "a"}}`, as W&B means it."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        first, _, rest = name.partition(".")
        if rest:
            nested[first] = {**nested.get(first, {}), rest: value}
        else:
            nested[name] = value
    return nested


def upload_files(project: str, entity: str | None, run_id: str, folder: Path, names: Sequence[str]) -> None:
    """Add files of the offline run below `folder` to the server's run; raises `ServerError` if it takes them not."""
    root = find_offline_run(folder, run_id) / "files"
    try:
        _, run = _find_run(project, entity, run_id)
        for name in names:
            if (root / name).exists():
                run.upload_file(str(root / name), str(root))
    except Exception as error:
        raise ServerError(f"W&B did not take a file ({type(error).__name__}: {error}); try again later") from error


def link_inputs(project: str, entity: str | None, run_id: str, names: Sequence[str]) -> None:
    """Say that the server's run was made from artifacts `entity/project/name:version` of the server.

    Raises `ServerError` if it does not take that.
    """
    try:
        api, run = _find_run(project, entity, run_id)
        for name in names:
            run.use_artifact(api.artifact(name))
    except Exception as error:
        raise ServerError(f"W&B did not link an artifact ({type(error).__name__}: {error}); try again later") from error


def _find_run(project: str, entity: str | None, run_id: str, timeout_s: float = _TIMEOUT_S) -> tuple[Any, Any]:
    """W&B's interface and the run in it."""
    api = import_client().Api(timeout=int(max(1, timeout_s)))
    place = find_place(project, entity, api)
    return api, api.run(f"{place.entity}/{place.project}/{run_id}")
