"""A run's folder `runs/ID/`: where everything is, and how it is written without ever being half-written."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from lab3.base.files import fsync_folder, write_atomically
from lab3.base.reading import reading
from lab3.config import Config, dump_config, load_config
from lab3.errors import ConfigError, RunExistsError, RunLockedError, RunStateError
from lab3.record.manifest import Manifest


class RunDir:
    """Paths inside one run's folder, its settings and its manifest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run_id = path.resolve().name  # also of "." and of a link
        self.config_yaml = path / "config.yaml"
        self.manifest_json = path / "manifest.json"
        self.journal_jsonl = path / "journal.jsonl"
        self.capture_npz = path / "capture.npz"
        self.epochs_jsonl = path / "epochs.jsonl"
        self.epochs_csv = path / "epochs.csv"
        self.checkpoints = path / "checkpoints"
        self.results_csv = path / "results.csv"
        self.predictions_npz = path / "predictions.npz"
        self.lost_npz = path / "lost.npz"
        self.metrics_csv = path / "metrics.csv"
        self.certificate_csv = path / "certificate.csv"
        self.channels_csv = path / "channels.csv"
        self.scores_csv = path / "scores.csv"
        self.summary_json = path / "summary.json"
        self.figures = path / "figures"
        self.compact = path / "compact"
        self.measured_jsonl = path / "measured.jsonl"
        self.plan_csv = path / "plan.csv"
        self.frontier_csv = path / "frontier.csv"
        self.attempts_jsonl = path / "attempts.jsonl"

    @property
    def is_finished(self) -> bool:
        """The summary is written last."""
        return self.summary_json.exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes off the run; the lock goes with the process. Raises `RunLockedError` if one has it."""
        locked = RunLockedError(f"run {self.path} is in use by another process; wait for it to end, then resume")
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise locked from None
        try:
            is_claimed = False
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who had it may have removed the folder.
                is_claimed = self.path.exists() and os.path.samestat(os.fstat(descriptor), self.path.stat())
            if not is_claimed:
                raise locked
            yield
        finally:
            os.close(descriptor)

    def figure(self, name: str) -> Path:
        """The picture of this name."""
        return self.figures / f"{name}.png"

    def start(self, config: Config, manifest: Manifest) -> None:
        """Write what makes the folder a run."""
        write_atomically(self.config_yaml, dump_config(config).encode())
        self.write_manifest(manifest)

    def read_config(self) -> Config:
        """The resolved configuration the run was started with."""
        return load_config(self.config_yaml)

    def read_manifest(self) -> Manifest:
        """What the run was made with. Raises `RunStateError` if the file is damaged."""
        with reading(self.manifest_json):
            return Manifest.decode(self.manifest_json.read_bytes())

    def write_manifest(self, manifest: Manifest) -> None:
        """Write the manifest with its checksum in one step."""
        write_atomically(self.manifest_json, manifest.encode())


def new_run_id(name: str) -> str:
    """A run id that sorts by time: name, UTC time, four random hex digits."""
    return f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def check_new_run(out: Path, run_id: str) -> None:
    """Raise `ConfigError` or `RunStateError` if there is a run of this id in `out`, or there cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", run_id):
        raise ConfigError(
            f"a run id must be 1 to 128 letters, digits, '_', '.' or '-', a letter or digit first, got {run_id!r}"
        )
    path = out / run_id
    is_group = (path / "group.json").exists()
    if is_run(path) or is_group:
        # A group is finished with the comparison of its runs.
        is_finished = (path / ("comparison.csv" if is_group else "summary.json")).exists()
        state, way = ("is finished", "start it over beside it") if is_finished else ("exists", "continue it")
        command = f"`lab3 resume {path}{' --new' * is_finished}`"
        raise RunExistsError(f"run {path} {state} already; {way} with {command}, or choose another --run-id")
    # A folder without a manifest is another process's that has just claimed it, or was left by one that was killed.
    if path.exists() and not (path.is_dir() and all(_is_of_start(each.name) for each in path.iterdir())):
        raise RunStateError(f"{path} exists already and is no run; choose another --run-id")


@contextmanager
def claim_run(out: Path, run_id: str) -> Iterator[RunDir]:
    """The folder of a new run in `out`, locked; it is removed again if nothing was started in it.

    Raises as `check_new_run` does, and `RunLockedError` if another process has just claimed it.
    """
    check_new_run(out, run_id)
    run = RunDir(out / run_id)
    made = [folder for folder in (run.path, *run.path.parents) if not folder.exists()]
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        for folder in made:
            fsync_folder(folder.parent)
    except OSError as error:
        raise ConfigError(f"the run folder {run.path} cannot be made ({error}); choose another --out") from error
    with run.lock():
        check_new_run(out, run_id)
        try:
            yield run
        finally:
            if not run.manifest_json.exists():
                for folder in (run.figures, run.path, *made):
                    with suppress(OSError):
                        folder.rmdir()


def _is_of_start(name: str) -> bool:
    """True for what stands in a folder before a run's manifest or a group's plan, also of a job stopped then."""
    return name in ("config.yaml", "figures", "experiment.yaml", "job.json") or name.startswith(".")


def is_run(path: Path) -> bool:
    """True if a run was started in the folder `path`."""
    return (path / "manifest.json").exists()


def open_run(path: Path) -> RunDir:
    """The existing run at `path`. Raises `RunStateError` if there is none."""
    run = RunDir(path)
    if not path.is_dir():
        raise RunStateError(f"{path}: no such run folder; `lab3 run` prints the folder it made as its last line")
    missing = [file.name for file in (run.config_yaml, run.manifest_json) if not file.exists()]
    if missing:
        raise RunStateError(f"{path} is not a run folder: {' and '.join(missing)} missing")
    return run


def runs_in(path: Path) -> list[Path]:
    """`path` if it is a run's folder, else the runs below it, those of groups too; `[path]` if there are none.

    A folder that has lost one of the two files every run starts with is still one.
    """

    def was_run(folder: Path) -> bool:
        return is_run(folder) or (folder / "config.yaml").exists()

    if was_run(path):
        return [path]
    below = [[child] if was_run(child) else sorted(child.glob("*")) for child in sorted(path.glob("*"))]
    return [each for folders in below for each in folders if was_run(each)] or [path]
