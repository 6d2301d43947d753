"""lab3 in processes of its own: forked from one that has Keras and W&B's client imported, which takes seconds.

`start` gives what `subprocess.Popen` gives. What a real start does (options read before Keras is imported, the
interpreter's own flags) is for `subprocess` in the tests that are about it.
"""

import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TextIO

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


class Process:
    """A process of `python -m MODULE ARGS...`, as `subprocess.Popen` with its output in pipes."""

    def __init__(self, module: str, args: list[str], cwd: Path, environment: Mapping[str, str]) -> None:
        self.args = [module, *args]
        (self.stdout, outputs), (self.stderr, errors) = _pipe(), _pipe()
        self._process = _FORKS.Process(target=_run, args=(module, args, str(cwd), dict(environment), outputs, errors))
        # The server imports from the folder it is started in, and goes on without a module that is not there.
        with contextlib.chdir(Path(__file__).parents[1]):
            forkserver.ensure_running()
        self._process.start()
        outputs.close()
        errors.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int:
        """Of a process that has ended, as of `subprocess.Popen`."""
        assert self._process.exitcode is not None
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.poll() is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        # The server it is forked from waits for it too: it can have ended without this process knowing.
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it prints until it ends; with a timeout `subprocess.TimeoutExpired` leaves the pipes as they are."""
        if timeout is not None:
            self.wait(timeout)
        # What a command prints is less than a pipe holds, one after the other is enough.
        with self.stdout, self.stderr:
            output, errors = self.stdout.read(), self.stderr.read()
        self.wait()
        return output, errors


def start(
    *args: Any, module: str = "lab3", cwd: Path | None = None, environment: Mapping[str, str] | None = None
) -> Process:
    """A process of `lab3 ARGS...`, or of another module, in the current folder and environment or those given."""
    return Process(module, [str(arg) for arg in args], cwd or Path.cwd(), environment or os.environ)


def _pipe() -> tuple[TextIO, Connection]:
    reading, writing = _FORKS.Pipe(duplex=False)
    return os.fdopen(os.dup(reading.fileno())), writing


def _run(
    module: str,
    args: list[str],
    cwd: str,
    environment: dict[str, str],
    outputs: Connection,
    errors: Connection,
) -> None:
    os.dup2(outputs.fileno(), 1)
    os.dup2(errors.fileno(), 2)
    outputs.close()
    errors.close()
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *args]
    sys.modules["tests.preloaded"].read_environment()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code: object = 0
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))
