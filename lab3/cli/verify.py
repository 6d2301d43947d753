"""lab3 verify."""

from pathlib import Path

import click

from lab3.errors import Lab3Error, RecordError, UnfinishedError


@click.command("verify")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify_command(runs: tuple[Path, ...]) -> None:
    """Check run folders against their own record, without running anything.

    Every file against the hash in the manifest; journal, tables, figures, summary and predictions against each other;
    model and data against their hashes where they are still there. RUN can be a folder of several runs. Ends with 65
    where something is wrong, else with 75 where a run is unfinished.

    \b
    Examples:
      lab3 verify runs/vgg16_cifar10-20260101-120000-ab12
      lab3 verify runs
    """
    from lab3.pipeline import verify_run
    from lab3.rundir import runs_in

    paths = [found for given in runs for found in runs_in(given)]
    n_wrong, unfinished = 0, []
    for path in paths:
        try:
            verified = verify_run(path)
        except Lab3Error as error:
            if len(paths) == 1:
                raise
            click.echo(f"{path.name}: {error}")
            n_wrong += 1
            continue
        click.echo(str(verified))
        n_wrong += bool(verified.problems)
        if not verified.is_finished:
            unfinished.append(path)
    if n_wrong:
        raise RecordError(
            f"{n_wrong} of {len(paths)} runs are not what their record says, see above; put back what changed, or "
            "delete summary.json and resume the run to have its tables and the sweep's figures made anew"
        )
    if unfinished:
        raise UnfinishedError(
            f"{len(unfinished)} of {len(paths)} runs are unfinished; go on with `lab3 resume {unfinished[0]}`"
        )
