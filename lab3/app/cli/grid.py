"""`lab3 grid`: many sweeps over machines."""

from pathlib import Path
from typing import Any

import click

from lab3.app.cli.options import TRACKING_FILE, a_path, computing_options, out_option
from lab3.app.cli.runs import find_experiment
from lab3.errors import ConfigError, Lab3Error, UnfinishedError, counted, printable


@click.command("grid")
@click.argument("grid_file", metavar="GRID", type=a_path)
@click.option(
    "--address",
    default="local",
    show_default=True,
    metavar="local|auto|ADDRESS",
    help="Ray cluster to work on: one on this machine for this command alone, the one that is here, or another.",
)
@out_option
@click.option("--run-id", metavar="ID", help="Name of the grid's folder; by default made of the grid's content.")
@click.option("--resume", "is_resumed", is_flag=True, help="Refuse to start: only go on with a grid that was started.")
@click.option("--parquet", type=a_path, metavar="FILE", help="Write every point of every cell as a Parquet file too.")
@click.option(
    "--mode", type=click.Choice(["online", "offline", "disabled"]), help="W&B mode of the cells; as for `lab3 run`."
)
@computing_options
def grid_command(grid_file: Path, **options: Any) -> None:
    """Sweep every combination of the values in a file, on one machine or a cluster, with Ray.

    Each combination is a cell, a run of its own in the grid's folder. The same command again goes on where it was: the
    folder says what is done. A cell that fails takes no other with it; those that failed are listed at the end, with
    their logs. The last line printed is the grid's folder.

    \b
    Examples:
      lab3 grid grid.yaml
      lab3 grid grid.yaml --address auto --out /shared/runs
      ray job submit --working-dir . -- lab3 grid grid.yaml --address auto --out /shared/runs
    """
    from lab3.config import load_grid

    grid = load_grid(grid_file)
    experiment = find_experiment(_beside(grid_file, Path(grid.experiment)))

    from lab3.app.cli.terminal import TerminalProgress
    from lab3.app.grid.cluster import check_address, run_plan
    from lab3.app.grid.plan import grid_id, make_plan, write_plan
    from lab3.app.grid.results import write_parquet, write_results
    from lab3.app.pipeline import Session

    out, run_id = options.pop("out"), options.pop("run_id")
    path = out / (run_id or grid_id(grid, experiment))
    if options.pop("is_resumed") and not (path / "grid.yaml").exists():
        raise ConfigError(f"--resume goes on with a grid that was started, but {path} is none; leave --resume out")
    address, parquet = options.pop("address"), options.pop("parquet")
    check_address(address)
    with TerminalProgress() as progress:
        session = Session(progress, **options)
        with progress.stoppable():
            plan = make_plan(path, grid, experiment, TRACKING_FILE, session)
        write_plan(path, grid)
        outcomes = run_plan(plan, session, address)
    failed = [outcome for outcome in outcomes.values() if outcome.state != "finished"]
    if any(outcomes[label].state == "finished" for label in plan.sweeps):
        rows, winner = write_results(plan)
        _show_rows(rows)
        click.echo(winner.sentence)
        if parquet:
            write_parquet(plan, parquet)
    for outcome in failed:
        log = plan.log_of(outcome.label)
        click.echo(printable(f"failed: {outcome.label}: {outcome.message}") + f" (log: {log})", err=True)
    if failed:
        raise _error_of(failed, path)
    click.echo(str(path))


def _beside(grid_file: Path, experiment: Path) -> Path:
    """The experiment where it is, else beside the grid's file."""
    found = grid_file.parent / experiment
    return experiment if experiment.exists() or not found.exists() else found


def _error_of(failed: list[Any], path: Path) -> Lab3Error:
    """75 where another attempt may help, else 78."""
    names = f"{counted(len(failed), 'cell')} of grid {path} failed"
    if any(outcome.exit_code in (74, 75) for outcome in failed):
        return UnfinishedError(f"{names}; the same command tries them again")
    return ConfigError(f"{names}; see their logs, and change the grid or what is wrong, then start it again")


def _show_rows(rows: list[Any]) -> None:
    from rich.text import Text

    from lab3.app.cli.printed import new_table, print_table

    varies = len({row.effect for row in rows}) > 1
    head = ("layer", "criterion", *["effect"] * varies, "seeds", "certified")
    table = new_table(*head, "0 %", "25 %", "50 %", "75 % pruned")
    for row in rows:
        spread = "" if row.certified_share_sd is None else f" ±{row.certified_share_sd:.0%}"
        names = [Text(printable(name)) for name in (row.layer, row.criterion, *[row.effect] * varies)]
        shown = (row.accuracy_0, row.accuracy_25, row.accuracy_50, row.accuracy_75)
        table.add_row(
            *names, str(row.n_seeds), f"{row.certified_share:.0%}{spread}", *(f"{each:.4f}" for each in shown)
        )
    print_table(table)
