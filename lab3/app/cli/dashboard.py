"""lab3 dashboard."""

from pathlib import Path

import click

from lab3.app.cli.options import TRACKING_FILE, a_path
from lab3.errors import ConfigError


@click.group("dashboard")
def dashboard_group() -> None:
    """Weights & Biases workspaces and reports as code.

    \b
    Example:
      lab3 dashboard push --dry-run
    """


@dashboard_group.command("push")
@click.argument("run", required=False, type=a_path)
@click.option("--project", metavar="NAME", help="W&B project; by default WANDB_PROJECT, then wandb_config.yaml.")
@click.option("--entity", metavar="NAME", help="W&B entity; by default WANDB_ENTITY, then wandb_config.yaml.")
@click.option("--dry-run", is_flag=True, help="Print what would be pushed as JSON; needs no server, key or entity.")
def push_command(run: Path | None, project: str | None, entity: str | None, dry_run: bool) -> None:
    """Create or update a workspace for all sweeps of a project and, for a RUN, a report on it.

    A second push replaces both. Needs the package wandb-workspaces: pip install 'lab3[dashboards]'.

    \b
    Examples:
      lab3 dashboard push --dry-run
      lab3 dashboard push runs/vgg16_cifar10-20260101-120000-ab12
    """
    from lab3.config import load_config
    from lab3.record.rundir import open_run
    from lab3.tracking import dashboards
    from lab3.tracking.remote import find_place

    opened = open_run(run) if run is not None else None
    tracking = (opened.read_config() if opened else load_config(None, [], TRACKING_FILE)).tracking
    default_project, default_entity = find_place(tracking.project, tracking.entity)
    project, entity = project or default_project, entity or default_entity
    if entity is None and not dry_run:
        raise ConfigError("a dashboard is pushed to an entity, got none: give --entity, or set WANDB_ENTITY")
    workspace = dashboards.make_workspace(entity or "", project)
    report = dashboards.make_report(entity or "", project, opened.run_id) if opened else None
    if dry_run:
        click.echo(dashboards.describe(workspace, report))
        return
    for url in dashboards.push(workspace, report):
        click.echo(url)
