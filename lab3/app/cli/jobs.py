"""A command as a scheduled job: its log as JSON lines on stderr, its result as one JSON line on stdout."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from lab3.app.cli.terminal import TerminalProgress
from lab3.app.jobs import Slot, check_starts, check_storage, count_start, report_end, work_on
from lab3.base.progress import Advance
from lab3.errors import Lab3Error, RunLockedError, StoppedError, exit_code_of
from lab3.record.manifest import now

MAX_ATTEMPTS = 20


class JobProgress(TerminalProgress):
    """What `TerminalProgress` says, as JSON lines with a time; a bar is ten of them."""

    def say(self, text: str) -> None:
        """A line of level `info`."""
        _log("info", message=text)

    def warn(self, text: str) -> None:
        """A line of level `warning`."""
        _log("warning", message=text)

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        """A line at every tenth of the way, with what is done."""
        done = 0

        def advance(n_done: int, note: str) -> None:
            nonlocal done
            before, done = done, done + n_done
            if done * 10 // total > before * 10 // total:
                _log("info", message=title, done=done, total=total, unit=unit, note=note)
            self.stop_if_asked()

        yield advance


@dataclass(frozen=True)
class Job:
    """The run or group at `path`: `is_there` says if it was started. No more than `max_attempts` begin to load it."""

    path: Path
    slot: Slot
    max_attempts: int
    hourly_price: float | None
    is_there: Callable[[Path], bool]


def run_job(progress: TerminalProgress, job: Job, start: Callable[[], Any], resume: Callable[[], Any]) -> None:
    """Start or resume, and print what came of it; ends the process, with 0 or an error's code.

    The last line on stdout is what `job.json` in the folder holds.
    """
    path, slot = job.path, job.slot
    progress.say(f"job {path.name}, slot {slot.name!r}" + (f" of {slot.scheduler}" if slot.scheduler else ""))
    code = 0
    try:
        if warning := check_storage(path.parent):
            progress.warn(warning)
        check_starts(path, job.max_attempts)
        work_on(lambda: job.is_there(path), start, resume)
    except (Lab3Error, OSError, KeyboardInterrupt) as error:
        code, again = _code_of(error), ""
        if isinstance(error, StoppedError):
            again = "; the next attempt goes on from there"
            if not job.is_there(path):
                count_start(path)
        _log("error", message=f"{error or 'interrupted'}{again}", exit_code=code)
        if isinstance(error, RunLockedError):
            # The folder is another process's to write to.
            sys.exit(code)
    click.echo(json.dumps(report_end(path, slot, code, job.hourly_price)))
    sys.exit(code)


def _code_of(error: BaseException) -> int:
    if isinstance(error, Lab3Error):
        return error.exit_code
    return exit_code_of(error) if isinstance(error, OSError) else 130


def _log(level: str, **facts: Any) -> None:
    line = json.dumps({"time": now(), "level": level, **facts}) + "\n"
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except RuntimeError:
        # In a signal's handler, while another line is being written.
        os.write(2, line.encode())
