"""lab3 publish."""

from pathlib import Path

import click

from lab3.cli.options import for_each_run, runs_argument
from lab3.errors import ServerError


@click.command("publish")
@runs_argument
@click.option("--check", is_flag=True, help="Only compare what the server shows with the run's folder.")
def publish_command(runs: tuple[Path, ...], check: bool) -> None:
    """Bring Weights & Biases up to date with run folders, whatever it has of them.

    What the server lacks is sent, then what it shows is compared with the folder: rows, artifacts, summary and state.
    A second time changes nothing. RUN can be a folder of several runs. Without a server or a key, the folder is left
    with one complete offline run: the run's own, or a rebuilt one where that is torn or lacks something. Ends with 75
    where W&B is not up to date afterwards.

    \b
    Examples:
      lab3 publish runs/vgg16_cifar10-20260101-120000-ab12
      lab3 publish --check runs/*
    """
    from lab3.cli.terminal import TerminalProgress
    from lab3.pipeline import publish_run

    is_behind = False
    # Not as a context: a signal ends this command at once, nothing is lost by that.
    progress = TerminalProgress()
    for _, published in for_each_run(runs, lambda path: publish_run(path, check=check, progress=progress)):
        if published:
            click.echo(published[0])
        is_behind |= published is None or not published[1]
    if is_behind:
        raise ServerError("W&B is not up to date with every run; see above, then publish again")
