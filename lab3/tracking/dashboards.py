"""A W&B workspace for all sweeps of a project, and a report on one run, as code."""

import json
from typing import Any

from lab3.errors import ConfigError, ServerError
from lab3.tracking.client import import_client

NAME = "lab3 sweeps"
# A saved view is found by this name, so pushing again replaces it.
_VIEW = "nw-lab3sweeps-v"
_LONGEST_TITLE = 128


def make_workspace(entity: str, project: str) -> Any:
    """Curves of all runs over K, their scalars, feature maps, channel table, criteria side by side, and training."""
    wr, ws = _import_workspaces()
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name="Sweep", is_open=True, panels=_sweep_panels(wr)),
            ws.Section(name="Result", is_open=True, panels=_result_panels(wr)),
            ws.Section(name="Channels", is_open=True, panels=_channel_panels(wr)),
            ws.Section(name="Criteria and layers", is_open=True, panels=_compare_panels(wr)),
            ws.Section(name="Training", is_open=False, panels=_training_panels(wr)),
        ],
        settings=ws.WorkspaceSettings(x_axis="K", smoothing_type="none"),
    )
    workspace._internal_name = _VIEW
    return workspace


def make_report(entity: str, project: str, run_id: str) -> Any:
    """The story of one run: the question, the curve, what was pruned, and what the channels look like."""
    wr, _ = _import_workspaces()
    # Without a project of its own it is the report's, and no server need be asked for it.
    runset = wr.Runset(name=run_id, filters=f"Metric('ID') == {run_id!r}")

    def grid(panels: list[Any]) -> Any:
        return wr.PanelGrid(runsets=[runset], panels=panels)

    return wr.Report(
        entity=entity,
        project=project,
        # Without a question mark, as the client makes an address of it, and cut where the run's id stays whole.
        title=f"How many channels it needs: {run_id}"[-_LONGEST_TITLE:],
        description="Accuracy as the least important channels of one layer are pruned, one after the other.",
        blocks=[
            wr.P("For every K the K least important channels are pruned and all test images are classified again."),
            wr.H2("Accuracy at every K"),
            grid(_sweep_panels(wr)),
            wr.H2("How many can be pruned"),
            wr.P("Safe is the largest K up to which accuracy stays within the set drop of the baseline."),
            grid(_result_panels(wr)),
            wr.H2("The channels"),
            wr.P("Every channel with its importance, its rank, the K at which it is pruned, and its mean feature map."),
            grid(_channel_panels(wr)),
            wr.H2("Training"),
            grid(_training_panels(wr)),
        ],
    )


def describe(workspace: Any, report: Any | None) -> str:
    """Both as JSON, without a server."""
    parts = {"workspace": json.loads(workspace._to_model().model_dump_json(by_alias=True))}
    if report is not None:
        parts["report"] = [json.loads(block._to_model().model_dump_json(by_alias=True)) for block in report.blocks]
    return json.dumps(parts, indent=2)


def push(workspace: Any, report: Any | None) -> list[str]:
    """Create both on the server, or replace those of the same name; returns their addresses.

    Raises `ServerError` if the server does not take them.
    """
    wandb = import_client()
    try:
        api = wandb.Api()
        if workspace.project not in {each.name for each in api.projects(workspace.entity)}:
            api.create_project(workspace.project, workspace.entity)
        # Only with its id is a view replaced for certain.
        views = api.reports(f"{workspace.entity}/{workspace.project}", name=_VIEW)
        # Reports and workspaces are both views, listed by their type.
        views.variables["viewType"] = "project-view"
        workspace._internal_id = next((str(view.id) for view in views), "")
        urls = [workspace.save().url]
        if report is not None:
            pushed = api.reports(f"{report.entity}/{report.project}")
            report.id = next((str(each.id) for each in pushed if each.display_name == report.title), "")
            urls.append(report.save().url)
        return urls
    except Exception as error:
        # The client raises errors of many libraries.
        raise ServerError(f"W&B did not take the dashboard ({type(error).__name__}: {error}); try again") from error


def _sweep_panels(wr: Any) -> list[Any]:
    titles = {
        "accuracy": "accuracy",
        "loss": "loss",
        "top5_accuracy": "top-5 accuracy",
        "n_changed": "images whose prediction changed",
        "n_pruned": "channels pruned",
    }
    return [
        wr.LinePlot(title=title, x="K", y=[name], smoothing_type="none", max_runs_to_show=100)
        for name, title in titles.items()
    ]


def _result_panels(wr: Any) -> list[Any]:
    names = ("baseline/accuracy", "safe/K", "safe/accuracy", "safe/share", "best/K", "best/accuracy")
    return [wr.ScalarChart(title=name, metric=wr.SummaryMetric(name)) for name in names]


def _channel_panels(wr: Any) -> list[Any]:
    return [
        wr.MediaBrowser(title="mean feature maps", media_keys=["feature_maps", "feature_map_0"]),
        wr.MediaBrowser(title="accuracy curve", media_keys=["accuracy_curve"]),
        wr.MediaBrowser(title="confusion matrix", media_keys=["confusion_k0"]),
        wr.WeavePanelSummaryTable(table_name="channels"),
    ]


def _compare_panels(wr: Any) -> list[Any]:
    columns = [wr.Config(f"prune.{name}") for name in ("layer", "criterion", "ranking", "bias")]
    columns += [wr.SummaryMetric(name) for name in ("n_channels", "safe/share", "best/K", "best/accuracy")]
    return [
        wr.BarPlot(
            title="sensitivity: share of channels that can be pruned, by layer",
            metrics=["safe/share"],
            groupby=wr.Config("prune.layer"),
        ),
        wr.ParallelCoordinatesPlot(
            title="criteria and layers", columns=[wr.ParallelCoordinatesPlotColumn(metric=column) for column in columns]
        ),
    ]


def _training_panels(wr: Any) -> list[Any]:
    return [
        wr.LinePlot(title=name, x="epoch", y=[f"train/{name}", f"train/val_{name}"], smoothing_type="none")
        for name in ("accuracy", "loss")
    ]


def _import_workspaces() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise ConfigError(
            f"dashboards need the package wandb-workspaces, which cannot be imported ({error}); "
            "install it with: pip install 'lab3[dashboards]'"
        ) from error
    return wr, ws
