"""The command line. Keras, wandb and matplotlib are imported inside the commands that need them."""

import errno
import os
import shlex
import signal
import sys
from typing import Any

import click

import lab3
from lab3.app.cli.compact import compact_command, export_command
from lab3.app.cli.grid import grid_command
from lab3.app.cli.inspect import inspect_command, validate_command
from lab3.app.cli.look import compare_command, figures_command, report_command, runs_command, show_command
from lab3.app.cli.records import dashboard_group, publish_command, rerun_command, verify_command
from lab3.app.cli.runs import compress_command, resume_command, run_command, sweep_command, train_command
from lab3.errors import Lab3Error, StoppedError, exit_code_of, printable


class _Group(click.Group):
    """Expected errors become one message and their exit code; bugs keep their traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StoppedError as stopped:
            again = f"go on with `lab3 resume {shlex.quote(str(stopped.resumable))}`" if stopped.resumable else _again()
            click.echo(printable(f"Error: {stopped}; {again}"), err=True)
            ctx.exit(stopped.exit_code)
        except Lab3Error as error:
            # Problems of an experiment stand on lines of their own.
            click.echo("\n".join(map(printable, f"Error: {error}".split("\n"))), err=True)
            ctx.exit(error.exit_code)
        except OSError as error:
            # A reader of the output that has enough of it, as `head`, is Click's to deal with.
            if error.errno in (None, errno.EPIPE):
                raise
            where = f" {error.filename}" if error.filename else ""
            click.echo(
                f"Error: cannot read or write{where}: {os.strerror(error.errno)}. What was written before is whole; "
                "see to it, then `lab3 resume RUN` goes on from there.",
                err=True,
            )
            ctx.exit(exit_code_of(error))
        except KeyboardInterrupt:
            click.echo(printable(f"Error: interrupted; nothing is lost; {_again()}"), err=True)
            ctx.exit(130)


def _again() -> str:
    return f"start it again with `{shlex.join(['lab3', *sys.argv[1:]])}`"


def _end_at_once(number: int, frame: object) -> None:
    click.echo(printable(f"Error: stopped by SIGTERM; nothing is lost; {_again()}"), err=True)
    sys.exit(75)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(lab3.__version__, prog_name="lab3")
def main() -> None:
    """How many channels does a layer of your network really need?

    lab3 ranks the channels of a Keras model's last convolution by mean activation, prunes the K least important ones
    for every K, and measures test accuracy each time: exactly, in minutes, resumable, tracked in Weights & Biases.

    \b
    Start here:
      lab3 run digits
      lab3 sweep my.h5 --data cifar10

    Exit codes: 0 done; 2 wrong usage; 65 bad data or model, or a run that is not what its record says; 74 no room, or
    no right to write; 75 stopped by
    SIGTERM, another process works on the run, the run is unfinished, or W&B is not up to date: try again; 78 bad
    configuration; 130 interrupted; 1 a bug.
    """


for command in (
    run_command, sweep_command, train_command, compress_command, grid_command,
    resume_command, compact_command, export_command,
    report_command, runs_command, show_command, figures_command, compare_command, verify_command, rerun_command,
    publish_command, dashboard_group, inspect_command, validate_command,
):  # fmt: skip
    main.add_command(command)


def run_program(name: str | None = None) -> None:
    """`main` as a process of its own, which ends when it is done, also where W&B's client would wait for a server."""
    # Until a command takes signals over, and in those that lose nothing by it: stop, try again later.
    signal.signal(signal.SIGTERM, _end_at_once)
    try:
        main(prog_name=name)
    except SystemExit as leaving:
        # Runs are ended by now, but W&B's client may wait for its service or its telemetry, for long or without end.
        if "wandb" in sys.modules:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(leaving.code if isinstance(leaving.code, int) else 1)
        raise
