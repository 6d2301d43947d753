"""What is kept of a run that a signal stops, in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab3.errors import StoppedError, counted
from lab3.record.journal import read_journal
from lab3.record.rundir import RunDir


@contextmanager
def saying_what_is_kept(run: RunDir) -> Iterator[None]:
    """Let a `StoppedError`, or the interrupt of a second signal, name the run and say what its folder keeps."""
    try:
        yield
    except (StoppedError, KeyboardInterrupt) as stopped:
        reason, code = str(stopped) or "stopped at once by a second signal", getattr(stopped, "exit_code", 130)
        if not run.manifest_json.exists():
            raise StoppedError(f"{reason} while run {run.path} was loading; nothing of it was written", code) from None
        raise StoppedError(f"{reason}; run {run.path} keeps {what_is_kept(run)}", code, run.path) from None


def what_is_kept(run: RunDir) -> str:
    """What `lab3 resume` need not do again, as `12 points of its sweep`."""
    config, n_points = run.read_config(), _n_rows(run.journal_jsonl)
    trained = run.path / f"model.{config.train.format}"
    if n_points:
        return f"{counted(n_points, 'point')} of its sweep"
    if n_measured := _n_rows(run.measured_jsonl):
        return f"{counted(n_measured, 'measurement')} of its compression"
    if config.model.path is None and not trained.exists():
        n_epochs = _n_rows(run.epochs_jsonl)
        return (
            f"{counted(n_epochs, 'epoch')} of its training" if n_epochs else "its settings only: training starts again"
        )
    kept = "its settings only" if config.model.path is not None else "its trained network"
    return f"{kept}: capture starts again" if run.read_manifest().kind == "sweep" else kept


def _n_rows(journal: Path) -> int:
    return len(read_journal(journal)) if journal.exists() else 0
