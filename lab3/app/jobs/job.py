"""One attempt at a job, and what it leaves for machines to read."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lab3.app.jobs.slot import Slot
from lab3.base.files import encode_json, write_atomically
from lab3.errors import RunExistsError, RunStateError
from lab3.record.attempts import add_up, read_attempts
from lab3.record.readers import read_summary
from lab3.record.rundir import RunDir, runs_in

Done = TypeVar("Done")


def work_on(is_there: Callable[[], bool], start: Callable[[], Done], resume: Callable[[], Done]) -> Done:
    """Go on with what was started, else start it, whichever of several processes comes first.

    Raises `RunLockedError` where another one is at it.
    """
    if not is_there():
        try:
            return start()
        except RunExistsError:
            # Another process has started it since, and may have finished it too.
            if not is_there():
                raise
    return resume()


def check_starts(path: Path, max_attempts: int) -> None:
    """Raise `RunStateError` if so many attempts were stopped before there was anything to go on with."""
    n_starts = len(_starts_of(path).read_bytes()) if _starts_of(path).exists() else 0
    if n_starts >= max_attempts:
        raise RunStateError(
            f"the job {path} was stopped {n_starts} times while it was loading and may be {max_attempts} times; find "
            "out why, then raise --max-attempts"
        )


def count_start(path: Path) -> None:
    """Note that an attempt was stopped before there was a run."""
    path.mkdir(parents=True, exist_ok=True)
    with _starts_of(path).open("ab") as file:
        file.write(b"1")


def _starts_of(path: Path) -> Path:
    return path / ".starts"


def report_end(path: Path, slot: Slot, exit_code: int, hourly_price: float | None = None) -> dict[str, Any]:
    """How the job with the run or group at `path` stands, written as `job.json` there if the folder is.

    What all attempts cost together, and of a finished run its summary.
    """
    runs = [RunDir(each) for each in runs_in(path)] if path.exists() else []
    runs = [run for run in runs if run.manifest_json.exists()]
    attempts = [one for run in runs for one in read_attempts(run)]
    end: dict[str, Any] = {
        "path": str(path),
        "run_id": path.name,
        "slot": slot.name,
        "scheduler": slot.scheduler,
        "exit_code": exit_code,
        "cost": asdict(add_up(attempts, hourly_price)),
        "attempts": [asdict(one) for one in attempts],
        "runs": {run.path.name: _describe(run) for run in runs},
    }
    if path.is_dir():
        write_atomically(path / "job.json", encode_json(end))
    return end


def _describe(run: RunDir) -> Mapping[str, Any]:
    if not run.is_finished:
        return {"is_finished": False}
    summary = read_summary(run)
    return {"is_finished": True, **{name: summary.get(name) for name in ("sentence", "certified", "baseline")}}
