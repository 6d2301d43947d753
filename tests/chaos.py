"""What the chaos tests do to lab3: processes killed, a disk that fills, a power cut that drops what was not synced."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tests import processes

RECORD = ("results.csv", "metrics.csv", "channels.csv", "scores.csv", "journal.jsonl")


def start(*args: Any, program: tuple[Any, ...] = ("lab3",)) -> processes.Process:
    """A process of `lab3 ARGS...`; or of another program, as `("tests.chaos", "mirror", FOLDER)`."""
    module, *first = program
    return processes.start(*first, *args, module=module)


def finish(*args: Any, expect: int = 0) -> str:
    process = start(*args)
    _, errors = process.communicate()
    assert process.returncode == expect, errors
    return errors


def lines_until(process: processes.Process, beginning: str) -> None:
    """Read what the process says up to the first line that begins so."""
    assert process.stderr is not None
    assert any(line.startswith(beginning) for line in process.stderr), f"the process never said {beginning!r}"


def save_wide_model(folder: Path, n_channels: int) -> None:
    """`wide.h5` with so many channels and `wide.npz` with 60 images that it labels itself."""
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)), layers.Conv2D(n_channels, 3, activation="relu"), layers.MaxPooling2D(2),
            layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(10, activation="softmax"),
        ]
    )  # fmt: skip
    images_nhwc = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3)).astype(np.uint8)
    model.save(folder / "wide.h5")
    np.savez(
        folder / "wide.npz", x_test=images_nhwc, y_test=np.asarray(model(images_nhwc / np.float32(255))).argmax(axis=1)
    )


def check_same_record(run: Path, whole: Path) -> None:
    """The same bytes, and the same summary but for the run's name."""
    for name in RECORD:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (json.loads((each / "summary.json").read_text()) for each in (run, whole))
    assert one | {"run_id": ""} == other | {"run_id": ""}


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[None]:
    """A disk of its own at `path`; skips the test where none can be mounted."""
    path.mkdir()
    size = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        # W&B's service can outlive the process that it served by a moment.
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room; returns the file to remove for room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def forget_unsynced(run: Path, mirror: Path) -> None:
    """Put the folder in the state that a power cut leaves: names and contents as they were last synced."""
    shutil.rmtree(run, ignore_errors=True)
    _restore(run, mirror, _listing(mirror, run.parent).get(run.name))
    # Everything has another inode now, perhaps one that something else had before.
    for old in (*mirror.glob("*.names"), *mirror.glob("*.content")):
        old.unlink()
    for path in (run.parent, run, *run.rglob("*")):
        if path.exists():
            _record(path, mirror)


def _record(path: Path, mirror: Path) -> None:
    """Copy what is durable of a folder or a file to the mirror, in one step."""
    inode = path.stat().st_ino
    kind, other = ("names", "content") if path.is_dir() else ("content", "names")
    temporary = mirror / f"{inode}.new"
    if path.is_dir():
        temporary.write_text(json.dumps({each.name: each.stat().st_ino for each in path.iterdir()}))
    else:
        shutil.copyfile(path, temporary)
    temporary.replace(mirror / f"{inode}.{kind}")
    (mirror / f"{inode}.{other}").unlink(missing_ok=True)


def _restore(path: Path, mirror: Path, inode: int | None) -> None:
    if inode is None:
        return
    names = mirror / f"{inode}.names"
    if not names.exists():
        # A file, or a folder that was never synced.
        content = mirror / f"{inode}.content"
        if content.exists():
            path.write_bytes(content.read_bytes())
        return
    path.mkdir()
    for name, inner in json.loads(names.read_text()).items():
        _restore(path / name, mirror, inner)


def _listing(mirror: Path, folder: Path) -> dict[str, int]:
    names = mirror / f"{folder.stat().st_ino}.names"
    return dict(json.loads(names.read_text())) if names.exists() else {}


def run_counted() -> None:
    """lab3 with a line in a file for each block of K it begins: `python -m tests.chaos blocks FILE ARGS...`."""
    from lab3.app.cli import run_program
    from lab3.pruning.engine.sweep import SweepEngine

    blocks = Path(sys.argv.pop(1))
    calibrate = SweepEngine.calibrate

    def counted_calibrate(engine: SweepEngine, indices: range) -> Any:
        with blocks.open("a") as file:
            file.write(f"{indices.start} {indices.stop}\n")
        return calibrate(engine, indices)

    with patch.object(SweepEngine, "calibrate", counted_calibrate):
        run_program()


def run_recorded() -> None:
    """lab3 with `os.fsync` also copying what is durable then: `python -m tests.chaos mirror FOLDER ARGS...`."""
    from lab3.app.cli import run_program
    from lab3.record.journal import Journal

    mirror = Path(sys.argv.pop(1))
    fsync, append = os.fsync, Journal.append

    def recorded_fsync(descriptor: int) -> None:
        fsync(descriptor)
        _record(Path(f"/proc/self/fd/{descriptor}").readlink(), mirror)

    def acknowledged_append(journal: Journal, row: dict[str, Any]) -> None:
        append(journal, row)
        with (mirror / "acknowledged").open("a") as file:
            file.write(f"{row['k']}\n")

    with patch.object(os, "fsync", recorded_fsync), patch.object(Journal, "append", acknowledged_append):
        run_program()


if __name__ == "__main__":
    {"blocks": run_counted, "mirror": run_recorded}[sys.argv.pop(1)]()
