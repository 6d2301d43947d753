"""Commands that show what run folders hold: report, runs, show, figures, compare. None of them loads Keras."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lab3.app.cli.options import a_path, for_each_run, runs_argument
from lab3.errors import ConfigError, RunStateError, printable

_SHOWN_K = 11


@click.command("report")
@runs_argument
def report_command(runs: tuple[Path, ...]) -> None:
    """Write report.html, report.json and report.md of finished runs, from their folders alone.

    The page is one file that opens without a network: the answer, every K with the channel that goes, classes, images
    lost, the channel table, and how it was done. Each run writes it at its end; this writes it again. RUN can be a
    group or grid, or a folder of several runs.

    \b
    Example:
      lab3 report runs/vgg16_cifar10-20260101-120000-ab12
    """
    from lab3.views.report import is_several, write_report

    for given in filter(is_several, runs):
        # A grid that is not finished has no page yet; its cells that are have theirs.
        if (given / "group.json").exists() or (given / "certificates.csv").exists():
            click.echo(str(write_report(given)))
    n_failed, first = 0, None
    # The cells of a grid are runs like others; those of a group had theirs with it.
    for path, page in for_each_run(tuple(given for given in runs if not (given / "group.json").exists()), write_report):
        if page:
            click.echo(str(page))
        n_failed, first = n_failed + (page is None), first or (path if page is None else None)
    if n_failed:
        raise RunStateError(f"{n_failed} runs have no report, see above; the first is {first}")


@click.command("runs")
@click.argument("folder", type=a_path, default="runs")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def runs_command(folder: Path, as_json: bool) -> None:
    """List the runs in a folder: state, experiment, layer, certified K, accuracy, age.

    A run is finished, running, stalled (its process is stopped, or has written nothing for ten minutes), damaged, or it
    ended early and `lab3 resume` goes on: preempted (by SIGTERM), stopped (by SIGINT), failed (by an error), or killed
    (no process works on it, and none said that it ends).

    \b
    Example:
      lab3 runs archive
    """
    from lab3.record.listing import list_runs

    if not folder.is_dir():
        raise ConfigError(f"the folder of runs must exist, got {folder}; give another")
    rows = list_runs(folder)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    if not rows:
        click.echo(f"no run in {folder}; `lab3 run digits` makes one")
        return
    from rich.text import Text

    from lab3.app.cli.printed import new_table, print_table

    has_smaller = any(row.parameters_left is not None for row in rows)
    smaller = ["parameters left"] * has_smaller
    table = new_table("run", "state", "layer", "criterion", "certified", *smaller, "accuracy", "written")
    for row in rows:
        certified = "" if row.certified_share is None else f"{row.certified_share:.0%}"
        certified = certified if row.certified_k is None else f"{row.certified_k} of {row.n_channels}"
        left = "" if row.parameters_left is None else f"{row.parameters_left:.0%}"
        accuracy = "" if row.baseline is None else f"{row.baseline:.4f}"
        names = (row.path, row.state, row.layer or "", row.criterion or "", certified)
        cells = (*names, *[left] * has_smaller, accuracy, _age(row.age_s))
        table.add_row(*(Text(printable(cell)) for cell in cells))
    print_table(table)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


@click.command("show")
@click.argument("run", type=a_path)
@click.option("--json", "as_json", is_flag=True, help="Print what report.json holds.")
def show_command(run: Path, as_json: bool) -> None:
    """Show a finished run: its answer, the curve, and what to do next.

    \b
    Example:
      lab3 show runs/vgg16_cifar10-20260101-120000-ab12
    """
    from lab3.views.report import gather_report

    report = gather_report(run)
    if as_json:
        click.echo(json.dumps(asdict(report), indent=2, allow_nan=False))
        return
    if report.sweep is not None:
        _show_sweep(report.sweep)
    for member in report.members:
        click.echo(printable(f"{member.label}: {member.sentence}"))
    if report.compression is not None:
        for row in report.compression.plan:
            click.echo(printable(f"{row.layer}: {row.n_kept} of {row.n_channels} channels kept"))
    if report.sentence and not report.members:
        click.echo(printable(report.sentence))
    if report.sweep is not None and report.compaction is None and report.sweep.certified_n_pruned:
        click.echo(f"next: `lab3 compact {run}` writes the smaller model")
    if (run / "report.html").exists():
        click.echo(str(run / "report.html"))


def _show_sweep(sweep: Any) -> None:
    """A small curve, a bar a K."""
    from rich.text import Text

    from lab3.app.cli.printed import new_table, print_table

    points = sweep.points
    chosen = {number * (len(points) - 1) // (_SHOWN_K - 1) for number in range(_SHOWN_K)}
    marks = {sweep.certified_k: "certified", sweep.observed_k: "observed"}
    chosen |= {number for number, point in enumerate(points) if point.k in marks}
    table = new_table("K", "pruned", "accuracy", "lost", "gained", "")
    for number in sorted(chosen):
        point = points[number]
        bar = "█" * round(30 * point.accuracy) + f" {marks.get(point.k, '')}"
        cells = (str(point.k), str(point.n_pruned), f"{point.accuracy:.4f}", str(point.n_lost), str(point.n_gained))
        table.add_row(*cells, Text(bar))
    print_table(table)


@click.command("figures")
@click.argument("run", type=a_path)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["png", "svg", "pdf"]),
    default="pdf",
    show_default=True,
    help="Kind of file; PDF and SVG are sharp at any size.",
)
@click.option("--out", type=a_path, help="Folder to draw into; by default the run's id with -figures behind it.")
def figures_command(run: Path, kind: Any, out: Path | None) -> None:
    """Draw the figures of a finished run again, for papers, from its folder alone.

    The last line printed is the folder.

    \b
    Example:
      lab3 figures runs/vgg16_cifar10-20260101-120000-ab12 --format svg
    """
    from lab3.app.pipeline.redrawing import redraw

    out = out or Path(f"{run.resolve().name}-figures")
    for path in redraw(run, out, kind):
        click.echo(str(path))
    click.echo(str(out))


@click.command("compare")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True, type=a_path)
@click.option("--figure", type=a_path, metavar="PATH", help="Write the curves as a picture: .png, .svg or .pdf.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: settings that differ, and every K.")
@click.option(
    "--against",
    metavar="RUN|wandb://...",
    help="Watch one run: end with 1 if it is worse than this earlier one, a folder or its results in W&B.",
)
@click.option("--alert", is_flag=True, help="With --against: send a W&B alert if it is worse.")
@click.option(
    "--drop", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Accuracy that may be lost, unpruned."
)
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.05, show_default=True, help="Certified share that may be lost."
)
@click.option("--slower", type=click.FloatRange(min=1), metavar="TIMES", help="Longer than so may the sweep not take.")
def compare_command(
    runs: tuple[Path, ...],
    figure: Path | None,
    as_json: bool,
    against: str | None,
    alert: bool,
    drop: float,
    share: float,
    slower: float | None,
) -> None:
    """Compare finished sweeps with the first: settings that differ, and accuracy image by image at every common K.

    The test at each K is McNemar's, exact and two-sided, for that K alone: of many K some have a small p by chance.
    With --against one run is held against an earlier one of the same images, as after each night's training: it ends
    with 1 if accuracy fell by more than --drop and more than chance allows, or the certified share by more than
    --share. The results of a run in W&B are wandb://ENTITY/PROJECT/results-RUN:latest.

    \b
    Examples:
      lab3 compare runs/digits-1 runs/digits-2 --figure curves.svg
      lab3 compare runs/digits-2 --against runs/digits-1 --drop 0.005
      lab3 compare runs/digits-2 --against wandb://me/lab3/results-digits-1:latest --alert
    """
    if against is not None:
        if len(runs) != 1:
            raise click.UsageError(f"One run is held --against another, got {len(runs)}.")
        _watch(runs[0], against, as_json, alert, drop=drop, share=share, slower=slower)
        return
    if alert:
        raise click.UsageError("--alert needs --against, an earlier run.")
    if len(runs) < 2:
        raise click.UsageError(f"Two runs or more are compared, got {len(runs)}.")
    from lab3.app.pipeline.comparing import compare_runs

    found = compare_runs(runs)
    if figure is not None:
        from lab3.app.pipeline.comparing import draw_runs

        draw_runs(runs, figure)
    if as_json:
        click.echo(json.dumps([asdict(each) for each in found], indent=2, allow_nan=False))
        return
    from lab3.app.cli.printed import new_table, print_table

    for each in found:
        click.echo(printable(f"{each.first} and {each.second}"))
        for difference in each.settings:
            click.echo(printable(f"  {difference}"))
        if each.reason:
            click.echo(printable(f"  not compared image by image: {each.reason}"))
            continue
        table = new_table("K", "first", "second", "difference", "from", "to", "p")
        points = each.points
        for number in sorted({number * (len(points) - 1) // (_SHOWN_K - 1) for number in range(_SHOWN_K)}):
            point = points[number]
            numbers = (point.first, point.second, point.difference, point.low, point.high)
            table.add_row(str(point.k), *(f"{value:.4f}" for value in numbers), f"{point.p:.3g}")
        print_table(table)


def _watch(run: Path, against: str, as_json: bool, alert: bool, **limits: Any) -> None:
    from lab3.app.pipeline.watching import alert_of, watch_run

    watched = watch_run(run, against, **limits)
    if as_json:
        click.echo(json.dumps(asdict(watched), indent=2))
    else:
        point, (earlier, later) = watched.baseline, watched.certified_share
        click.echo(printable(f"{watched.run} against {watched.against}"))
        click.echo(f"  accuracy {point.first:.4f} -> {point.second:.4f} (p = {point.p:.3g})")
        click.echo(f"  certified share {earlier:.1%} -> {later:.1%}")
    for each in watched.worse:
        click.echo(f"worse: {each}", err=True)
    if watched.worse and alert:
        place = alert_of(watched, run, lambda text: click.echo(f"warning: {text}", err=True))
        if place:
            click.echo(place, err=True)
    if watched.worse:
        raise SystemExit(1)
