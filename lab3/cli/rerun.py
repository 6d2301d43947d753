"""lab3 rerun."""

from pathlib import Path
from typing import Any

import click

from lab3.cli.options import a_path, computing_options, out_option
from lab3.errors import RecordError

_SHOWN_DIFFERENCES = 10


@click.command("rerun")
@click.argument("run", type=a_path)
@click.option("--train", is_flag=True, help="Train the network again too, in place of taking the one in RUN.")
@click.option("--model", type=a_path, help="Where the model file is now, if it has moved.")
@click.option("--data", metavar="DATA", help="Where the test images are now, if they have moved.")
@click.option("--train-data", metavar="DATA", help="Where the training images are now, if they have moved.")
@out_option
@click.option("--run-id", metavar="ID", help="Name of the new run; by default RUN's with -rerun behind it.")
@click.option(
    "--mode",
    type=click.Choice(["disabled", "offline"]),
    default="disabled",
    show_default=True,
    help="W&B mode of the new run.",
)
@computing_options
def rerun_command(run: Path, mode: str, device: Any, **options: Any) -> None:
    """Repeat a finished run and compare every point with it, bit for bit.

    Settings come from RUN, model and data from where they were; their hashes must be those in RUN's manifest. The last
    line printed is the new run's folder. Ends with 65 where a point differs.

    \b
    Examples:
      lab3 rerun runs/vgg16_cifar10-20260101-120000-ab12
      lab3 rerun archive/digits-1 --train --run-id digits-1-again
    """
    from lab3.cli.terminal import TerminalProgress
    from lab3.pipeline import Session, rerun_run

    with TerminalProgress() as progress:
        done, comparison = rerun_run(run, Session(progress, device, mode), **options)
    for line in comparison.differences[:_SHOWN_DIFFERENCES]:
        click.echo(line)
    n_differences = len(comparison.differences)
    if n_differences > _SHOWN_DIFFERENCES:
        click.echo(f"and {n_differences - _SHOWN_DIFFERENCES} more")
    for remark in comparison.remarks:
        click.echo(f"note: {remark}")
    if not n_differences:
        click.echo(f"identical: {comparison.n_compared} {comparison.unit}")
    click.echo(str(done.path))
    if n_differences:
        raise RecordError(
            f"{done.path} must repeat {run}, but {n_differences} of {comparison.n_compared} {comparison.unit} "
            "differ, see above"
        )
