"""When a run was worked on, on which machine, and how each attempt ended: `attempts.jsonl`, beside its results."""

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lab3.errors import StoppedError
from lab3.record.journal import append_row, read_rows
from lab3.record.manifest import Cost
from lab3.record.rundir import RunDir

End = Literal["finished", "preempted", "stopped", "failed", "killed"]


@dataclass(frozen=True)
class Attempt:
    """`seconds` of an attempt that was killed are those to the last thing that it wrote, so at least so many.

    `end` is None of one that is at work, or was killed and has had no successor. `preempted`: by SIGTERM; `stopped`:
    by SIGINT.
    """

    device: str
    host: str
    seconds: float
    end: End | None


@contextmanager
def attempt(run: RunDir, device: str) -> Iterator[None]:
    """Write down that work on the run starts, and how it ends; hold the run's lock meanwhile."""
    started_s = time.time()
    written_s = last_written_s(run)
    start = {"device": device, "host": socket.gethostname(), "started_s": started_s}
    # What comes now writes files: when the last attempt did so cannot be read off them any more.
    append_row(run.attempts_jsonl, start | {"written_s": written_s} if written_s else start)
    end: End = "failed"
    try:
        yield
        end = "finished"
    except StoppedError as stopped:
        end = "preempted" if stopped.exit_code == 75 else "stopped"
        raise
    except KeyboardInterrupt:
        end = "stopped"
        raise
    finally:
        # The folder may be away, or its disk full: what ended the work says so, and not this.
        with suppress(OSError):
            if run.attempts_jsonl.exists():
                append_row(run.attempts_jsonl, {"end": end, "ended_s": time.time()})


def read_attempts(run: RunDir, *, now_s: float | None = None) -> list[Attempt]:
    """The attempts at a run in their order; none at one of before there was this file.

    `now_s`: what counts as the end of one that is at work; by default when it wrote last.
    """
    rows = read_rows(run.attempts_jsonl) if run.attempts_jsonl.exists() else []
    starts = [number for number, row in enumerate(rows) if "started_s" in row]
    found = []
    for number, following in zip(starts, [*starts[1:], len(rows)], strict=True):
        start, after = rows[number], rows[number + 1 : following]
        end: End | None = after[-1]["end"] if after else None
        if after:
            ended_s = after[-1]["ended_s"]
        elif following < len(rows):
            end, ended_s = "killed", rows[following].get("written_s", start["started_s"])
        else:
            ended_s = now_s or last_written_s(run) or start["started_s"]
        seconds = round(max(0.0, ended_s - start["started_s"]), 1)
        found.append(Attempt(start["device"], start["host"], seconds, end))
    return found


def add_up(attempts: Sequence[Attempt], hourly_price: float | None = None) -> Cost:
    """What the attempts cost together, and with the price of an hour, in whichever currency that is."""
    seconds = round(sum(each.seconds for each in attempts), 1)
    devices = list(dict.fromkeys(each.device for each in attempts))
    price = None if hourly_price is None else round(seconds / 3600 * hourly_price, 4)
    return Cost(len(attempts), seconds, ", ".join(devices), price)


def last_end(run: RunDir) -> End | None:
    """How the last attempt ended, None if it is at work or was killed."""
    rows: list[dict[str, Any]] = read_rows(run.attempts_jsonl) if run.attempts_jsonl.exists() else []
    return rows[-1].get("end") if rows else None


def last_written_s(run: RunDir) -> float | None:
    """When the run wrote to one of its journals last, in seconds since 1970; None if it has none."""
    times = [_mtime(path) for path in (run.journal_jsonl, run.measured_jsonl, run.epochs_jsonl)]
    return max((each for each in times if each is not None), default=None)


def _mtime(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return None
