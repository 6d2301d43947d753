"""How far a run has come, from its folder alone, and whether a process still works on it."""

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lab3.errors import Lab3Error
from lab3.record.attempts import last_end
from lab3.record.rundir import RunDir

Condition = Literal["finished", "running", "stalled", "killed", "preempted", "stopped", "failed", "damaged"]
# A point takes seconds; what has written nothing for so long may wait for a disk or be far too slow.
_STALLED_AFTER_S = 600.0


@dataclass(frozen=True)
class State:
    """`n_done`: lines in the journal of an unfinished run, or epochs before that; `age_s`: since it last wrote one.

    `running`: a process holds the run's lock; `stalled`: that process is stopped, as by SIGSTOP, or has written nothing
    for ten minutes; `killed`: none holds it, and none said that it ends; `preempted`, `stopped`, `failed`: it ended by
    SIGTERM, by SIGINT, with an error. `lab3 resume` goes on with all of these.
    """

    condition: Condition
    n_done: int
    age_s: float

    def __str__(self) -> str:
        return self.condition if self.condition == "finished" else f"{self.condition} at {self.n_done}"


def read_state(run: RunDir, *, n_done: int | None = None) -> State:
    """What the folder of a run says of it; writes nothing, and takes the lock for no longer than it takes to ask.

    `n_done`: lines of the journal, where somebody has counted them.
    """
    journal = _journal_of(run)
    age_s = max(0.0, time.time() - (journal or run.path).stat().st_mtime)
    if run.is_finished:
        # Nobody asks how far: a thousand journals would have to be read.
        return State("finished", n_done or 0, age_s)
    if n_done is None:
        # The header is a line.
        n_done = max(0, _count_lines(journal) - 1) if journal else 0
    if not _is_locked(run.path):
        try:
            run.read_manifest()
        except Lab3Error:
            return State("damaged", n_done, age_s)
        return State(_end_of(run), n_done, age_s)
    is_stalled = age_s > _STALLED_AFTER_S or _is_stopped(run.path)
    return State("stalled" if is_stalled else "running", n_done, age_s)


def _end_of(run: RunDir) -> Condition:
    try:
        end = last_end(run)
    except Lab3Error:
        return "damaged"
    return end if end in ("preempted", "stopped", "failed") else "killed"


def _journal_of(run: RunDir) -> Path | None:
    """What the run wrote to last."""
    return next((path for path in (run.journal_jsonl, run.measured_jsonl, run.epochs_jsonl) if path.exists()), None)


def _count_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def _is_locked(folder: Path) -> bool:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Shared: two who ask do not see each other.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _is_stopped(folder: Path) -> bool:
    """True if the process that holds the folder's lock on this machine is stopped; Linux says who it is."""
    status = folder.stat()
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if place in fields:
                process = Path(f"/proc/{fields[fields.index(place) - 1]}/stat").read_text()
                return process.rpartition(")")[2].split()[0] in "Tt"
    return False
