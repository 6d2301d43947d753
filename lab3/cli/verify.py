"""lab3 verify."""

from pathlib import Path

import click

from lab3.cli.options import for_each_run, runs_argument
from lab3.errors import RecordError, UnfinishedError


@click.command("verify")
@runs_argument
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

    n_runs, n_wrong, unfinished = 0, 0, []
    for path, verified in for_each_run(runs, verify_run):
        if verified:
            click.echo(str(verified))
        n_runs, n_wrong = n_runs + 1, n_wrong + (verified is None or bool(verified.problems))
        if verified and not verified.is_finished:
            unfinished.append(path)
    if n_wrong:
        raise RecordError(
            f"{n_wrong} of {n_runs} runs are not what their record says, see above; put back what changed, or "
            "delete summary.json and resume the run to have its tables and the sweep's figures rebuilt"
        )
    if unfinished:
        raise UnfinishedError(
            f"{len(unfinished)} of {n_runs} runs are unfinished; go on with `lab3 resume {unfinished[0]}`"
        )
