"""Bring W&B up to date with a run's folder."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lab3.errors import ServerError
from lab3.pipeline.expected import Expected
from lab3.pipeline.record import tell_record, tracker_settings
from lab3.progress import Progress
from lab3.rundir import RunDir, open_run
from lab3.tracking import open_tracker, prepare_client
from lab3.tracking.offline import find_offline_run, offline_runs, sync
from lab3.tracking.remote import Address, RemoteRun, link_inputs, read_offline, read_remote, replace_damaged
from lab3.tracking.wandb_tracker import has_key

_N_READS, _PAUSE_S = 10, 2.0


def publish_run(path: Path, *, check: bool = False, progress: Progress) -> tuple[str, bool]:
    """Send what the server lacks of the run at `path`, and compare what it then shows with the folder.

    Returns what was found and done, in words, and whether W&B is up to date.

    A run that is damaged on the server is tagged so, and published whole under another id. `check` only compares.
    Without a key, or without a server, a whole offline run is left in the folder. The run is locked meanwhile. Raises
    `RunStateError` if there is no run, `RunLockedError` if it is being worked on.
    """
    run = open_run(path)
    with run.lock():
        prepare_client(run.path)
        try:
            if not has_key():
                raise ServerError("no W&B key is configured: set WANDB_API_KEY or call `wandb login`")
            address, remote = _find_remote(run)
        except ServerError as error:
            left = "" if check else f"; {_complete_offline_run(run, _expect(run, run.run_id), progress)}"
            return f"{run.run_id}: {error}{left}", False
        said, differences = _bring_up_to_date(run, address, remote, check, progress)
        return f"{run.run_id}: {'; '.join([*said, *differences])}", not differences


def _bring_up_to_date(
    run: RunDir, address: Address, remote: RemoteRun | None, check: bool, progress: Progress
) -> tuple[list[str], list[str]]:
    """What was done, and what differs afterwards."""
    expected = _expect(run, address.run_id)
    if expected.differences(remote) and not check:
        # What came a moment ago may not be shown yet, and would be sent twice.
        remote = _read_at_rest(address, remote)
    differences, n_rows = expected.differences(remote), len(expected.rows)
    if not differences:
        return [f"up to date, {n_rows} rows"], []
    if check:
        return [], differences
    said, n_there = [], expected.n_rows_in(remote)
    if remote is not None and remote.n_lines > 0 == n_there:
        refused = f"the server has a run of this id with {remote.n_lines} rows, and even the first is another than here"
        return [refused, "delete it there, copy the folder to another name and publish that"], differences
    if damage := expected.damage(remote):
        damaged, address = address, replace_damaged(address, run.run_id)
        said = [f"{damaged.run_id} is damaged ({', '.join(damage)}) and tagged so, {address.run_id} takes its place"]
        remote, n_there, expected = None, 0, _expect(run, address.run_id)
    if expected.run_differences(remote):
        _send(run, address, expected, n_there, progress)
    differences = _differences_in_time(address, expected)
    return [*said, f"sent {n_rows - n_there} of {n_rows} rows"], differences


def _find_remote(run: RunDir) -> tuple[Address, RemoteRun | None]:
    """Where the server has the run, or is to have it, and what it shows there; damaged ones are passed over."""
    tracking = run.read_config().tracking
    address = Address(tracking.project, tracking.entity, run.run_id)
    while (remote := read_remote(address)) is not None and remote.replaced_by:
        address = replace(address, run_id=remote.replaced_by)
    return address, remote


def _expect(run: RunDir, run_id: str) -> Expected:
    expected = Expected(run_id)
    tell_record(run, expected)
    return expected


def _complete_offline_run(run: RunDir, expected: Expected, progress: Progress) -> str:
    """See to it that the folder has one offline run that shows all of it; says which it is.

    The original, with its times and system metrics, stays if it does, and is replaced if it is torn or lacks something.
    """
    found = offline_runs(run.path, run.run_id)
    problem = f"{len(found)} offline runs" if found else "no offline run"
    if len(found) == 1:
        shown = read_offline(found[0])
        lacking = expected.damage(shown) + expected.run_differences(shown)
        problem = "a torn offline run" if shown is None else f"an offline run that is not complete ({lacking[:1]})"
        if not lacking:
            return f"the run's own offline run is complete: {found[0]}"
    _tell(run, run.run_id, run.path, 0, progress)
    return f"the folder had {problem}, and has a rebuilt one: {find_offline_run(run.path, run.run_id)}"


def _send(run: RunDir, address: Address, expected: Expected, n_there: int, progress: Progress) -> None:
    """Everything from row `n_there` on."""
    if n_there == 0 and address.run_id == run.run_id:
        progress.say(f"{run.run_id}: {_complete_offline_run(run, expected, progress)}")
        sync(run.path, run.run_id)
    else:
        with tempfile.TemporaryDirectory(prefix="lab3-publish-") as folder:
            _tell(run, address.run_id, Path(folder), n_there, progress)
            sync(Path(folder), address.run_id)


def _read_at_rest(address: Address, remote: RemoteRun | None) -> RemoteRun | None:
    """What the server shows when it shows the same twice."""
    for _ in range(_N_READS):
        time.sleep(_PAUSE_S)
        before, remote = remote, read_remote(address)
        if before == remote:
            break
    return remote


def _differences_in_time(address: Address, expected: Expected) -> list[str]:
    """What differs when inputs are linked too, and the server has had time to show it."""
    is_linked = False
    for _ in range(_N_READS):
        remote = read_remote(address)
        differences = expected.differences(remote)
        if not differences:
            break
        if not expected.run_differences(remote) and not is_linked:
            link_inputs(address, expected.missing_inputs(remote))
            is_linked = True
        else:
            time.sleep(_PAUSE_S)
    return differences


def _tell(run: RunDir, run_id: str, folder: Path, n_rows_there: int, progress: Progress) -> None:
    told = tracker_settings(run, run.read_config())
    tell_record(run, open_tracker("offline", folder, run_id, warn=progress.warn, n_rows_there=n_rows_there, **told))
    prepare_client(run.path)
