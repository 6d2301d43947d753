"""What tests do to a run's folder: read it, leave it as a kill would, damage it."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab3.record.journal import decode_row, encode_row
from lab3.record.manifest import signed

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
DIGITS = EXPERIMENTS / "digits.yaml"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def files_of(folder: Path) -> dict[str, bytes]:
    """Contents by name below the folder, without what W&B's client keeps there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "wandb" not in path.parts
    }


def unfinish(run: Path, n_points: int) -> Path:
    """A copy as a kill after `n_points` points leaves it: the journal so far and a torn line."""
    copy = run.with_name(f"{run.name}-{n_points}")
    shutil.copytree(run, copy)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    torn = lines[n_points + 1][:7] if n_points + 1 < len(lines) else b""
    (copy / "journal.jsonl").write_bytes(b"".join(lines[: n_points + 1]) + torn)
    for name in ("results.csv", "summary.json"):
        (copy / name).unlink()
    return copy


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) >= 1, f"{path.name} has no {old}"
    path.write_text(text.replace(old, new, 1))


def edit_json(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(signed(values) if path.name == "manifest.json" else values))


def edit_point(run: Path, k: int, /, **values: Any) -> None:
    """Another record, with the checksum that fits it."""
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    row = decode_row(lines[k + 1])
    assert row is not None and row["k"] == k
    lines[k + 1] = encode_row({**row, **values})
    (run / "journal.jsonl").write_bytes(b"".join(lines))


def own_copy(run: Path, copy: Path) -> Path:
    """A copy of a run with model and data of its own: what lies two folders above, which the copy's settings name."""
    for path in run.parents[1].iterdir():
        if path.is_file():
            shutil.copy(path, copy.parents[1])
    shutil.copytree(run, copy)
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace(str(run.parents[1]), str(copy.parents[1])))
    return copy


@contextmanager
def holding(run: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has the lock of a run, as one that works on it; it is killed at the end, if it lives."""
    code = (
        f"import fcntl, os, sys\nfcntl.flock(os.open({str(run)!r}, 0), fcntl.LOCK_EX)\n"
        "print(1, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == b"1\n"
            yield process
        finally:
            process.kill()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it, as SIGSTOP does, and wait until it is."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
