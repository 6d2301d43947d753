"""Bring W&B up to date with a run's folder."""

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab3.errors import ServerError
from lab3.pipeline.expected import Expected
from lab3.pipeline.record import tell_record, tracker_settings
from lab3.progress import Progress
from lab3.rundir import RunDir, open_run
from lab3.tracking import open_tracker, prepare_client
from lab3.tracking.offline import find_offline_run, offline_runs, sync
from lab3.tracking.remote import RemoteRun, link_inputs, read_offline, read_remote, upload_files
from lab3.tracking.wandb_tracker import has_key

_TIMEOUT_S, _SEND_LIMIT_S = 20.0, 3600.0
_N_READS, _PAUSE_S = 10, 2.0


@dataclass(frozen=True)
class Published:
    """What `publish_run` found and did: `n_rows` in the record, `n_sent` of them now. `differences`: what is left."""

    run_id: str
    n_rows: int
    n_sent: int
    differences: list[str]
    message: str


def publish_run(path: Path, *, check: bool = False, progress: Progress) -> Published:
    """Send what the server lacks of the run at `path`, and compare what it then shows with the folder.

    `check` only compares. Without a key, or without a server, a whole offline run is left in the folder. The run is
    locked meanwhile. Raises `RunStateError` if there is no run, `RunLockedError` if it is being worked on.
    """
    run = open_run(path)
    with run.lock():
        expected = Expected(run.run_id)
        tell_record(run, expected)
        n_rows = len(expected.rows)

        def published(n_sent: int, differences: list[str], message: str) -> Published:
            return Published(run.run_id, n_rows, n_sent, differences, message)

        prepare_client(run.path)
        remote, unreachable = None, "no W&B key is configured: set WANDB_API_KEY or call `wandb login`"
        if has_key():
            try:
                remote, unreachable = _read(run), ""
            except ServerError as error:
                unreachable = str(error)
        if unreachable:
            left = "" if check else f"; {_complete_offline_run(run, expected, progress)}"
            return published(0, ["not compared"], f"{unreachable}{left}")
        differences = expected.differences(remote)
        if differences and not check:
            # What came a moment ago may not be shown yet, and would be sent twice.
            remote = _read_at_rest(run, remote)
            differences = expected.differences(remote)
        if not differences:
            return published(0, [], f"up to date, {n_rows} rows")
        if check:
            return published(0, differences, "; ".join(differences))
        n_there = expected.n_rows_in(remote)
        if remote is not None and remote.n_lines > 0 == n_there:
            message = (
                f"the server has a run of this id with {remote.n_lines} rows, and even the first is another than here; "
                "delete it there, copy the folder to another name and publish that"
            )
            return published(0, differences, message)
        if expected.run_differences(remote):
            _send(run, expected, remote, n_there, progress)
        differences = _differences_in_time(run, expected, progress)
        sent = f"sent {n_rows - n_there} of {n_rows} rows"
        return published(n_rows - n_there, differences, "; ".join([sent, *differences]))


def _complete_offline_run(run: RunDir, expected: Expected, progress: Progress) -> str:
    """See to it that the folder has one offline run that shows all of it; says which it is.

    The original, with its times and system metrics, stays if it does, and is replaced if it is torn or lacks something.
    """
    found = offline_runs(run.path, run.run_id)
    problem = f"{len(found)} offline runs" if found else "no offline run"
    if len(found) == 1:
        shown = read_offline(found[0])
        lacking = expected.run_differences(shown) + expected.missing_files(shown)
        problem = "a torn offline run" if shown is None else f"an offline run that is not complete ({lacking[:1]})"
        if not lacking:
            return f"the run's own offline run is complete: {found[0]}"
    _tell(run, "offline", run.path, progress)
    return f"the folder had {problem}, and has a rebuilt one: {find_offline_run(run.path, run.run_id)}"


def _send(run: RunDir, expected: Expected, remote: RemoteRun | None, n_there: int, progress: Progress) -> None:
    """Everything from row `n_there` on, in place of what the server has from there on."""
    if remote is not None and remote.n_lines > n_there:
        progress.say(
            f"{run.run_id}: rewinding W&B's {remote.n_lines} rows to the first {n_there}, which are this run's"
        )
        _tell(run, "online", run.path, progress, n_rows_there=n_there, is_rewound=True, finish_timeout_s=_SEND_LIMIT_S)
    elif n_there == 0:
        progress.say(f"{run.run_id}: {_complete_offline_run(run, expected, progress)}")
        sync(run.path, run.run_id)
    else:
        with tempfile.TemporaryDirectory(prefix="lab3-publish-") as folder:
            _tell(run, "offline", Path(folder), progress, n_rows_there=n_there)
            sync(Path(folder), run.run_id)


def _send_files(run: RunDir, names: list[str], progress: Progress) -> None:
    """Files of pictures and tables; a run that is told again makes the same ones."""
    with tempfile.TemporaryDirectory(prefix="lab3-publish-") as folder:
        _tell(run, "offline", Path(folder), progress)
        tracking = run.read_config().tracking
        upload_files(tracking.project, tracking.entity, run.run_id, Path(folder), names)


def _read(run: RunDir) -> RemoteRun | None:
    tracking = run.read_config().tracking
    return read_remote(tracking.project, tracking.entity, run.run_id, _TIMEOUT_S)


def _read_at_rest(run: RunDir, remote: RemoteRun | None) -> RemoteRun | None:
    """What the server shows when it shows the same twice."""
    for _ in range(_N_READS):
        time.sleep(_PAUSE_S)
        again = _read(run)
        if (again and again.n_lines) == (remote and remote.n_lines):
            return again
        remote = again
    return remote


def _differences_in_time(run: RunDir, expected: Expected, progress: Progress) -> list[str]:
    """What differs when files and links are sent too, and the server has had time to show it."""
    is_sent = False
    for _ in range(_N_READS):
        remote = _read(run)
        differences = expected.differences(remote)
        if not differences:
            break
        if not expected.run_differences(remote) and not is_sent:
            _send_files(run, expected.missing_files(remote), progress)
            tracking = run.read_config().tracking
            link_inputs(tracking.project, tracking.entity, run.run_id, expected.missing_inputs(remote))
            is_sent = True
            continue
        time.sleep(_PAUSE_S)
    return differences


def _tell(run: RunDir, mode: Literal["online", "offline"], folder: Path, progress: Progress, **settings: Any) -> None:
    told = tracker_settings(run, run.read_config())
    tell_record(run, open_tracker(mode, folder, run.run_id, warn=progress.warn, **settings, **told))
    prepare_client(run.path)
