"""Bring W&B up to date with a run's folder."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

from lab3.app.pipeline.expected import Expected
from lab3.app.pipeline.record import replay_record, run_settings
from lab3.base.progress import Progress
from lab3.errors import ServerError
from lab3.record.rundir import RunDir, open_run
from lab3.tracking import open_tracker
from lab3.tracking.client import has_key, restart_client
from lab3.tracking.offline import ShownRun, find_offline_run, offline_runs, read_offline, sync
from lab3.tracking.remote import Project

_N_READS, _PAUSE_S = 10, 2.0


def publish_run(path: Path, *, check: bool = False, progress: Progress) -> tuple[str, bool]:
    """Send what the server lacks of the run at `path`, and compare what it then shows with the folder.

    Returns what was found and done, in words, and whether W&B is up to date.

    A run that is damaged on the server is tagged so, and all of it is published under another id. `check` only
    compares. Without a key, or without a server, a complete offline run is left in the folder. The run is locked
    meanwhile. Raises `RunStateError` if there is no run, `RunLockedError` if it is being worked on.
    """
    run = open_run(path)
    with run.lock():
        restart_client(run.path)
        tracking = run.read_config().tracking
        project, run_id = Project(tracking.project, tracking.entity), run.run_id
        try:
            if not has_key():
                raise ServerError("no W&B key is configured: set WANDB_API_KEY or call `wandb login`")
            # Damaged runs name the one that took their place.
            while (shown := project.read(run_id)) is not None and shown.replaced_by:
                run_id = shown.replaced_by
        except ServerError as error:
            if check:
                return f"{run.run_id}: {error}", False
            offline, state = _complete_offline_run(run, _expect(run, run.run_id), progress)
            return f"{run.run_id}: {error}; {state}: {offline}", False
        done, differences = _bring_up_to_date(run, project, run_id, shown, check, progress)
        return f"{run.run_id}: {'; '.join([*done, *differences])}", not differences


def _bring_up_to_date(
    run: RunDir, project: Project, run_id: str, shown: ShownRun | None, check: bool, progress: Progress
) -> tuple[list[str], list[str]]:
    """What was done, and what differs afterwards."""
    expected, done = _expect(run, run_id), list[str]()
    n_rows, found = len(expected.rows), expected.compare(shown)
    if found.differences and not check:
        # What came a moment ago may not be shown yet, and would be sent twice.
        shown = _read_at_rest(project, run_id, shown)
        found = expected.compare(shown)
    if not found.differences:
        return [f"up to date, {n_rows} rows"], []
    if check:
        return [], found.differences
    if shown is not None and shown.n_lines > 0 == found.n_there:
        refused = f"the server has a run of this id with {shown.n_lines} rows, and even the first is another than here"
        return [refused, "delete it there, copy the folder to another name and publish that"], found.differences
    if found.damage:
        damaged, run_id = run_id, project.replace_damaged(run_id, run.run_id)
        done = [f"{damaged} is damaged ({', '.join(found.damage)}) and tagged so, {run_id} takes its place"]
        expected = _expect(run, run_id)
        found = expected.compare(None)
    if found.problems:
        _send(run, run_id, expected, found.n_there, progress)
    done.append(f"sent {n_rows - found.n_there} of {n_rows} rows")
    is_linked = False
    for _ in range(_N_READS):
        found = expected.compare(project.read(run_id))
        if not found.differences:
            break
        if found.problems or is_linked:
            # The server needs time to show what it was sent.
            time.sleep(_PAUSE_S)
        else:
            project.link_inputs(run_id, found.unlinked)
            is_linked = True
    return done, found.differences


def _expect(run: RunDir, run_id: str) -> Expected:
    expected = Expected(run_id)
    replay_record(run, expected)
    return expected


def _read_at_rest(project: Project, run_id: str, shown: ShownRun | None) -> ShownRun | None:
    """What the server shows when it shows the same twice."""
    for _ in range(_N_READS):
        time.sleep(_PAUSE_S)
        before, shown = shown, project.read(run_id)
        if before == shown:
            break
    return shown


def _send(run: RunDir, run_id: str, expected: Expected, n_there: int, progress: Progress) -> None:
    """Everything from row `n_there` on."""
    if n_there == 0 and run_id == run.run_id:
        offline, state = _complete_offline_run(run, expected, progress)
        progress.say(f"{run_id}: {state}: {offline}")
        sync(offline)
    else:
        with tempfile.TemporaryDirectory(prefix="lab3-publish-") as folder:
            sync(_replay_offline(run, run_id, Path(folder), n_there, progress))


def _complete_offline_run(run: RunDir, expected: Expected, progress: Progress) -> tuple[Path, str]:
    """The one offline run in the folder that shows all of it, and where that comes from, in words.

    The original, with its times and system metrics, stays if it does, and is replaced if it is torn or lacks something.
    """
    found = offline_runs(run.path, run.run_id)
    had = f"{len(found)} offline runs" if found else "no offline run"
    if len(found) == 1:
        shown = read_offline(found[0])
        problems, is_torn = expected.compare(shown).problems, shown.state == "torn"
        if not problems and not is_torn:
            return found[0], "the run's own offline run is complete"
        had = "a torn offline run" if is_torn else f"an offline run that is not complete ({problems[0]})"
    rebuilt = _replay_offline(run, run.run_id, run.path, 0, progress)
    return rebuilt, f"the folder had {had}, and has a rebuilt one"


def _replay_offline(run: RunDir, run_id: str, folder: Path, n_rows_there: int, progress: Progress) -> Path:
    settings = run_settings(run, run.read_config())
    settings = replace(settings, folder=folder, run_id=run_id, n_rows_there=n_rows_there)
    replay_record(run, open_tracker("offline", settings, progress.warn))
    restart_client(run.path)
    return find_offline_run(folder, run_id)
