"""What a worker does: a cell of a grid, or a block of K of one sweep. Models and images stay with its process."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lab3.app.jobs import work_on
from lab3.app.pipeline import Session, is_run, load_configured_model, resume_run, start_run
from lab3.app.pipeline.session import Shared, ShareOut
from lab3.base.backend import limit_threads, load_backend
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.errors import Lab3Error, RunLockedError, StoppedError
from lab3.inputs.data import Dataset, load_dataset
from lab3.pruning.engine import SweepEngine, Tally
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import split_model
from lab3.record.manifest import Kind, now
from lab3.vocabulary import Device

Datasets = dict[tuple[str, str], Dataset]


@dataclass(frozen=True)
class Task:
    """A cell with all that a worker needs: the run's id in the folder `out`, and the file of its log."""

    label: str
    config: Config
    kind: Kind
    out: Path
    run_id: str
    log: Path
    device: Device
    mode: str | None
    threads: int | None


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a cell ended; `again` if another one may end better."""

    label: str
    state: Literal["finished", "failed", "again"]
    message: str = ""
    exit_code: int = 0


class LogProgress(Progress):
    """Lines with a time in a file that other attempts wrote to before."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def say(self, text: str) -> None:
        """Add a line about what happens now, or several."""
        with self._path.open("a") as file:
            file.write(f"{now()} {text}\n")

    def warn(self, text: str) -> None:
        """Add a line about something the user may want to change."""
        self.say(f"warning: {text}")


# Of this process: its cells have models and images in common.
_models: dict[str, object] = {}
_engines: dict[str, SweepEngine] = {}


def work_cell(task: Task, datasets: Datasets, share_out: ShareOut | None = None) -> Outcome:
    """Start or resume a cell's run; whatever goes wrong is an outcome, and written to its log."""
    progress = LogProgress(task.log)
    outcome = _attempt(task, datasets, share_out, progress)
    progress.say(f"{outcome.state}{': ' * bool(outcome.message)}{outcome.message}")
    return outcome


def _attempt(task: Task, datasets: Datasets, share_out: ShareOut | None, progress: LogProgress) -> Outcome:
    _start_backend(task.threads, task.device)
    shared = Shared(models=_models, datasets=datasets, share_out=share_out)
    session = Session(progress, device=task.device, mode=task.mode, shared=shared)
    path = task.out / task.run_id
    try:
        work_on(
            lambda: is_run(path),
            lambda: start_run(task.config, session, kind=task.kind, out=task.out, run_id=task.run_id),
            lambda: resume_run(path, session, asked=task.config),
        )
    except (RunLockedError, StoppedError) as error:
        return Outcome(task.label, "again", str(error), error.exit_code)
    except Lab3Error as error:
        return Outcome(task.label, "failed", str(error), error.exit_code)
    except OSError as error:
        progress.say(traceback.format_exc())
        return Outcome(task.label, "again", f"cannot read or write {error.filename}: {error.strerror}", 74)
    except Exception as error:
        progress.say(traceback.format_exc())
        return Outcome(task.label, "failed", f"a bug: {type(error).__name__}: {error}", 1)
    return Outcome(task.label, "finished")


def tally_block(
    config: Config,
    model_path: str,
    features: Sequence[np.ndarray],
    labels_n: np.ndarray,
    steps: Sequence[PruneStep],
    block: range,
    threads: int | None,
) -> Tally:
    """One block of K of a sweep, exactly as the sweep itself computes it."""
    device: Device = "auto"
    _start_backend(threads, device)
    key = f"{model_path} {config.model_dump_json()}"
    if key not in _engines:
        session = Session(shared=Shared(models=_models))
        prune, sweep = config.prune, config.sweep
        model = load_configured_model(config, model_path, session)
        split = split_model(model, prune.layer, effect=prune.effect, measured=prune.measured, bias=prune.bias)
        _engines.clear()
        _engines[key] = SweepEngine(split, features, labels_n, steps, sweep.batch_size, sweep.shortcut)
    return _engines[key].tally(block)


def _start_backend(threads: int | None, device: Device) -> None:
    if threads is not None and "keras" not in sys.modules:
        limit_threads(threads)
    load_backend(device)


def read_datasets(config: Config) -> Datasets:
    """The test images of an experiment, to be given to every worker; training images each reads itself."""
    test = load_dataset(config.data.test, "test", config.data.color, sha256=config.data.test_sha256)
    return {(config.data.test, "test"): test}
