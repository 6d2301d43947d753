"""What W&B's server, or an offline run, shows of a run, and adding to it."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from lab3.errors import ServerError
from lab3.tracking.client import import_client
from lab3.tracking.offline import read_records

_TIMEOUT_S = 20
_REPLACED_BY = "replaced_by"  # in the configuration of a damaged run: the id of the one that was published after it


@dataclass(frozen=True)
class Address:
    """Where a run is kept. `WANDB_PROJECT` and `WANDB_ENTITY` are stronger; without an entity, the key's own."""

    project: str
    entity: str | None
    run_id: str


@dataclass(frozen=True)
class RemoteRun:
    """`rows`: the history in order of step. `n_lines`: rows the server keeps, also several of one step.

    `files`: names of its files. `artifacts`: names, without version, of those that are whole; `used`: whole names,
    `entity/project/name:version`, of those it was made from. `replaced_by`: the id that a damaged run has now.
    """

    state: str
    rows: list[dict[str, Any]]
    n_lines: int
    summary: dict[str, Any]
    files: frozenset[str]
    artifacts: frozenset[str]
    used: frozenset[str] = frozenset()
    replaced_by: str | None = None


def find_place(project: str, entity: str | None) -> tuple[str, str | None]:
    """Project and entity: `WANDB_PROJECT` and `WANDB_ENTITY`, else the arguments."""
    return os.environ.get("WANDB_PROJECT") or project, os.environ.get("WANDB_ENTITY") or entity


def read_remote(address: Address) -> RemoteRun | None:
    """The run as the server shows it, None if it has none. Raises `ServerError` if the server cannot be asked."""
    with _asking("cannot be asked"):
        _, run = _find_run(address)
        if run is None:
            return None
        used = list(run.used_artifacts())
        artifacts = [*run.logged_artifacts(), *used]
        return RemoteRun(
            state=run.state,
            rows=[dict(row) for row in run.scan_history(use_cache=False)],
            n_lines=int(run.historyLineCount),
            summary=dict(run.summary_metrics),
            files=frozenset(file.name for file in run.files(pattern="media/%", per_page=1000) if file.size),
            artifacts=frozenset(each.name.partition(":")[0] for each in artifacts if each.state == "COMMITTED"),
            used=frozenset(each.qualified_name for each in used),
            replaced_by=run.config.get(_REPLACED_BY),
        )


def read_offline(path: Path) -> RemoteRun | None:
    """What the server would show of the offline run in the folder `path` if it were sent; None if its records are torn.

    Files and artifacts are those whose content is where the run says: not in a folder that was moved.
    """
    records, is_whole = read_records(path)
    if not is_whole:
        return None
    rows = [_nested(row["item"]) for row in records["history"]]
    summary = {name: value for each in records["summary"] for name, value in _nested(each["update"]).items()}
    artifacts = frozenset(each["name"] for each in records["artifact"] if _is_staged(each))
    root = path / "files"
    files = frozenset(file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file())
    state = "finished" if records["exit"][-1].get("exit_code", 0) == 0 else "failed"
    return RemoteRun(state, rows, len(rows), summary, files, artifacts)


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


def link_inputs(address: Address, names: Sequence[str]) -> None:
    """Say that the server's run was made from artifacts `entity/project/name:version` of the server.

    Raises `ServerError` if it does not take that.
    """
    with _asking("did not link an artifact"):
        api, run = _find_run(address)
        for name in names:
            run.use_artifact(api.artifact(name))


def replace_damaged(address: Address, run_id: str) -> Address:
    """Tag the server's run as damaged; returns where to publish it once more: `<run_id>-2`, or the next free number.

    Raises `ServerError` if it does not take that.
    """
    with _asking("did not take a tag"):
        addresses = (replace(address, run_id=f"{run_id}-{number}") for number in count(2))
        free = next(each for each in addresses if _find_run(each)[1] is None)
        _, run = _find_run(address)
        run.tags = [*run.tags, "damaged"]
        run.config[_REPLACED_BY] = free.run_id
        run.update()
        return free


@contextmanager
def _asking(failure: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # The client raises errors of many libraries, and one type of its own for whatever the server answers.
        raise ServerError(f"W&B's server {failure} ({type(error).__name__}: {error}); try again later") from error


def _find_run(address: Address) -> tuple[Any, Any]:
    """W&B's interface and the run in it, None if there is none."""
    api = import_client().Api(timeout=_TIMEOUT_S)
    project, entity = find_place(address.project, address.entity)
    try:
        return api, api.run(f"{entity or api.default_entity}/{project}/{address.run_id}")
    except Exception as error:
        if "could not find run" in str(error).lower():
            return api, None
        raise
