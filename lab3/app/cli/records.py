"""Commands about runs that are there: verify, rerun, publish, dashboard."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from lab3.app.cli.options import TRACKING_FILE, a_path, computing_options, for_each_run, out_option, runs_argument
from lab3.errors import ConfigError, RecordError, ServerError, UnfinishedError

_SHOWN_DIFFERENCES = 10


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
    from lab3.app.pipeline import verify_run

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
    from lab3.app.cli.terminal import TerminalProgress
    from lab3.app.pipeline import Session, rerun_run

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
    from lab3.app.cli.terminal import TerminalProgress
    from lab3.app.pipeline import publish_run

    is_behind = False
    # Not as a context: a signal ends this command at once, nothing is lost by that.
    progress = TerminalProgress()
    for _, published in for_each_run(runs, lambda path: publish_run(path, check=check, progress=progress)):
        if published:
            click.echo(published[0])
        is_behind |= published is None or not published[1]
    if is_behind:
        raise ServerError("W&B is not up to date with every run; see above, then publish again")


@click.group("dashboard")
def dashboard_group() -> None:
    """Runs in the browser: served from a folder, or as W&B workspaces and reports.

    \b
    Examples:
      lab3 dashboard serve runs
      lab3 dashboard push --dry-run
    """


@dashboard_group.command("serve")
@click.argument("runs", type=a_path, default="runs")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--token", envvar="LAB3_DASHBOARD_TOKEN", help="What a browser must give; needed beyond this machine.")
@click.option("--allow-host", "names", multiple=True, metavar="NAME", help="A name of this machine that browsers use.")
def serve_command(runs: Path, host: str, port: int, token: str | None, names: tuple[str, ...]) -> None:
    """Show a folder of runs in the browser, live and read-only: list, pages, comparisons, downloads.

    It listens on this machine alone. Anywhere else it needs a token, and the names that browsers use for it. /healthz
    and /metrics are for monitors. Needs the extra serve: pip install 'lab3[serve]'.

    \b
    Examples:
      lab3 dashboard serve
      LAB3_DASHBOARD_TOKEN=... lab3 dashboard serve archive --host 0.0.0.0 --allow-host lab.example.org
    """
    if not runs.is_dir():
        raise ConfigError(f"the folder of runs must exist, got {runs}; give another")
    is_here = host in ("127.0.0.1", "::1", "localhost")
    if not is_here and (not token or len(token) < 16):
        raise ConfigError(f"--host {host} needs a --token of at least 16 characters: others can reach it there")
    try:
        import uvicorn

        from lab3.views.dashboard import make_service
    except ImportError as error:
        raise ConfigError(f"the package {error.name} is missing; pip install 'lab3[serve]'") from error

    hosts = ("127.0.0.1", "localhost", "[::1]", *(name.lower() for name in names))
    service = make_service(runs, hosts=hosts, token=token)
    config = uvicorn.Config(service, host=host, port=port, log_level="warning", server_header=False)
    server = uvicorn.Server(config)
    sockets = [config.bind_socket()]
    # From here on whoever asks waits for an answer.
    sockets[0].listen()
    shown = sockets[0].getsockname()
    click.echo(f"http://{shown[0] if is_here else host}:{shown[1]}/ shows {runs}; Ctrl+C ends it")
    # The server ends by itself, then raises the signal again.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(KeyboardInterrupt):
        server.run(sockets=sockets)


@dashboard_group.command("push")
@click.argument("run", required=False, type=a_path)
@click.option("--project", metavar="NAME", help="W&B project; by default WANDB_PROJECT, then wandb_config.yaml.")
@click.option("--entity", metavar="NAME", help="W&B entity; by default WANDB_ENTITY, then wandb_config.yaml.")
@click.option("--dry-run", is_flag=True, help="Print what would be pushed as JSON; needs no server, key or entity.")
def push_command(run: Path | None, project: str | None, entity: str | None, dry_run: bool) -> None:
    """Create or update a workspace for all sweeps of a project and, for a RUN, group or grid, a report on it.

    A second push replaces both. Needs the package wandb-workspaces: pip install 'lab3[dashboards]'.

    \b
    Examples:
      lab3 dashboard push --dry-run
      lab3 dashboard push runs/vgg16_cifar10-20260101-120000-ab12
      lab3 dashboard push runs/grid-vgg16-0a1b2c3d4e5f
    """
    from lab3.config import load_config
    from lab3.record.rundir import open_run
    from lab3.tracking import dashboards
    from lab3.tracking.remote import find_place
    from lab3.views.report import gather_report, is_several

    together = gather_report(run) if run is not None and is_several(run) else None
    one = run / together.members[0].run_id if run is not None and together is not None else run
    opened = open_run(one) if one is not None else None
    tracking = (opened.read_config() if opened else load_config(None, [], TRACKING_FILE)).tracking
    default_project, default_entity = find_place(tracking.project, tracking.entity)
    project, entity = project or default_project, entity or default_entity
    if entity is None and not dry_run:
        raise ConfigError("a dashboard is pushed to an entity, got none: give --entity, or set WANDB_ENTITY")
    workspace = dashboards.make_workspace(entity or "", project)
    place = (entity or "", project)
    report = dashboards.make_report(*place, opened.run_id) if opened else None
    if together is not None:
        said = [together.sentence or "", *(f"{member.label}: {member.sentence}" for member in together.members)]
        members = [member.run_id for member in together.members]
        report = dashboards.make_group_report(*place, together.run_id, members, list(dict.fromkeys(said)))
    if dry_run:
        click.echo(dashboards.describe(workspace, report))
        return
    for url in dashboards.push(workspace, report):
        click.echo(url)
