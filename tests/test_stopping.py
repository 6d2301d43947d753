"""Kills and signals: nothing that is recorded is lost, and the last line says what is kept and how to go on."""

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lab3.app.cli.terminal import TerminalProgress
from lab3.app.pipeline.stopping import what_is_kept
from lab3.errors import StoppedError
from lab3.pruning.capture import capture_layers
from lab3.record.journal import read_journal
from lab3.record.rundir import RunDir
from tests.folders import DIGITS, edit_json, read_csv
from tests.processes import Process, start

pytestmark = pytest.mark.forks


def stop(process: "Process | subprocess.Popen[str]", behind: str, number: signal.Signals) -> tuple[int, list[str]]:
    """Send a signal behind the first line on standard error that matches; the exit code, and the lines that follow."""
    assert process.stderr is not None
    assert any(re.match(behind, line) for line in process.stderr), f"the process never said {behind!r}"
    process.send_signal(number)
    _, errors = process.communicate()
    return process.returncode, errors.splitlines()


def n_kept(last_line: str, number: signal.Signals, what: str) -> int:
    """How many points or epochs the last line says are kept."""
    said = re.fullmatch(
        rf"Error: stopped by {number.name}; run runs/r keeps (\d+) {what}; go on with `lab3 resume runs/r`", last_line
    )
    assert said, last_line
    return int(said[1])


@pytest.mark.usefixtures("fresh_client")
def test_kill_9_and_sigterm_in_the_sweep_lose_no_point(
    fitted_model: Path, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    run, journal = tmp_path / "runs" / "r", tmp_path / "runs" / "r" / "journal.jsonl"
    slowly = ("--set", "data.scale=16.0", "--set", "sweep.batch_size=20")
    sweep = ("sweep", fitted_model, "--data", "digits", *slowly)
    killed = start(*sweep, "--run-id", "r", "--mode", "offline")
    assert stop(killed, "sweep: ", signal.SIGKILL)[0] == -signal.SIGKILL
    n_points = len(read_journal(journal))
    assert 0 < n_points < 16

    code, lines = stop(start("resume", "runs/r"), "sweep: ", signal.SIGTERM)
    assert code == 75 and "Traceback" not in "\n".join(lines)
    assert n_points <= n_kept(lines[-1], signal.SIGTERM, "points? of its sweep") == len(read_journal(journal)) < 16
    assert not (run / "summary.json").exists()
    assert invoke("resume", run, "--mode", "offline").exit_code == 0
    assert [row["k"] for row in read_journal(journal)] == list(range(16))

    assert invoke(*sweep, "--run-id", "whole").exit_code == 0
    for name in ("results.csv", "channels.csv"):
        assert (run / name).read_bytes() == (tmp_path / "runs" / "whole" / name).read_bytes()


def test_sigint_in_training_keeps_its_epochs(
    few_digits: tuple[str, ...], tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    settings = ("train.epochs=2", "sweep.schedule=0:C:8", "sweep.feature_maps_k=[]")
    code, lines = stop(
        start("run", DIGITS, *settings, *few_digits, "--run-id", "r"), "train: .*epoch 1/2", signal.SIGINT
    )
    run = tmp_path / "runs" / "r"
    assert code == 130 and "Traceback" not in "\n".join(lines)
    n_epochs = len(read_journal(run / "epochs.jsonl"))
    assert n_kept(lines[-1], signal.SIGINT, "epochs? of its training") == n_epochs > 0
    assert not (run / "summary.json").exists()
    assert invoke("resume", run).exit_code == 0
    assert len(read_csv(run / "results.csv")) == 4 and len(read_csv(run / "epochs.csv")) == 2


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_loading_says_that_nothing_was_written(
    toy_files: tuple[Path, Path], tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    # A real start: Keras is being imported when the signal comes.
    arguments = ("--data", "toy.npz", "--run-id", "r", "--set", "data.mean=[1, 1, 1, 1]")
    command = [sys.executable, "-m", "lab3", "sweep", "toy.h5", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # The run's id comes first.
    code, lines = stop(process, "run runs/r", number)
    assert code == exit_code
    assert lines[-1] == (
        f"Error: stopped by {number.name} while run runs/r was loading; nothing of it was written; start it again with "
        "`lab3 sweep toy.h5 --data toy.npz --run-id r --set 'data.mean=[1, 1, 1, 1]'`"
    )
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("n_signals", "reason", "exit_code"),
    [(1, "stopped by SIGTERM", 75), (2, "stopped at once by a second signal", 130)],
)
def test_a_signal_in_the_capture_says_that_it_starts_again(
    n_signals: int,
    reason: str,
    exit_code: int,
    toy_files: tuple[Path, Path],
    invoke: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*args: Any, **settings: Any) -> Any:
        for _ in range(n_signals):
            os.kill(os.getpid(), signal.SIGTERM)
        return capture_layers(*args, **settings)

    arguments = ("sweep", toy_files[0], "--data", toy_files[1])
    with monkeypatch.context() as patch:
        patch.setattr("lab3.app.pipeline.sweeping.capture_layers", stop)
        alone = invoke(*arguments, "--run-id", "r")
        group = invoke(*arguments, "--criterion", "maximum", "--criterion", "apoz", "--run-id", "g")
    kept = "its settings only: capture starts again"
    assert (alone.exit_code, group.exit_code) == (exit_code, exit_code)
    assert alone.stderr.splitlines()[-1] == f"Error: {reason}; run runs/r keeps {kept}; go on with `lab3 resume runs/r`"
    assert group.stderr.splitlines()[-1] == (
        f"Error: {reason}; run runs/g/g-maximum keeps {kept}; go on with `lab3 resume runs/g`"
    )
    for path in ("runs/r", "runs/g"):
        assert invoke("resume", path).exit_code == 0


def test_a_signal_while_a_line_is_written_waits_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupted(io.RawIOBase):
        """A file that sends SIGTERM in the middle of its first write: the stream above it takes no other then."""

        def writable(self) -> bool:
            return True

        def write(self, content: Any) -> int:
            if not written:
                os.kill(os.getpid(), signal.SIGTERM)
            written.append(bytes(content))
            return len(content)

    written: list[bytes] = []
    with io.TextIOWrapper(io.BufferedWriter(Interrupted()), line_buffering=True) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with TerminalProgress() as progress:
            progress.say("one")
            assert progress.is_asked_to_stop()
            progress.say("two")
            with pytest.raises(StoppedError, match="stopped by SIGTERM"):
                progress.stop_if_asked()
    assert b"".join(written) == b"one\ntwo\n"


def test_what_stands_before_the_first_point_is_told_too(own: Path) -> None:
    run = RunDir(own)
    assert what_is_kept(run) == "32 points of its sweep"
    run.journal_jsonl.unlink()
    assert what_is_kept(run) == "its trained network: capture starts again"
    edit_json(run.manifest_json, lambda manifest: manifest.update(kind="train"))
    assert what_is_kept(run) == "its trained network"
    (run.path / "model.h5").unlink()
    assert what_is_kept(run) == "2 epochs of its training"
    run.epochs_jsonl.unlink()
    assert what_is_kept(run) == "its settings only: training starts again"


def test_an_interrupt_of_a_command_without_a_run_says_how_to_start_it_again(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(path: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("lab3.record.rundir.runs_in", interrupt)
    monkeypatch.setattr(sys, "argv", ["lab3", "verify", "my runs"])
    result = invoke("verify", "my runs")
    assert result.exit_code == 130
    assert result.stderr == "Error: interrupted; nothing is lost; start it again with `lab3 verify 'my runs'`\n"


def test_a_reader_that_has_enough_of_the_output_is_no_error(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = subprocess.run(
        [sys.executable, "-m", "lab3", "--help"], stdout=write_end, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write_end)
    assert (process.returncode, process.stderr) == (1, "")
