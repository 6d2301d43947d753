"""A W&B workspace for all sweeps of a project, and a report on one run or a group, as code."""

import json
from collections.abc import Sequence
from typing import Any

from lab3.errors import ConfigError
from lab3.tracking.client import asking, import_client

NAME = "lab3 sweeps"
# A saved view is found by this name, so pushing again replaces it.
_VIEW = "nw-lab3sweeps-v"
_MAX_TITLE = 128


def make_workspace(entity: str, project: str) -> Any:
    """Curves of all runs over K, their scalars, feature maps, channel table, criteria side by side, and training."""
    wr, ws = _import_workspaces()
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            ws.Section(name=name, is_open=name != "Training", panels=panels) for name, _, _, panels in _sections(wr)
        ],
        settings=ws.WorkspaceSettings(x_axis="K", smoothing_type="none"),
    )
    workspace._internal_name = _VIEW
    return workspace


def make_report(entity: str, project: str, run_id: str) -> Any:
    """The story of one run: the question, the curve, what was pruned, and what the channels look like."""
    wr, _ = _import_workspaces()
    blocks = [wr.P("For every K the K least important channels are pruned and all test images are classified again.")]
    # Without a project of its own it is the report's, and no server need be asked for it.
    runset = wr.Runset(name=run_id, filters=f"Metric('ID') == {run_id!r}")
    for _, heading, text, panels in _sections(wr):
        if heading:
            grid = wr.PanelGrid(runsets=[runset], panels=panels)
            blocks += [wr.H2(heading), *([wr.P(text)] if text else []), grid]
    text = "Accuracy as the least important channels of one layer are pruned, one after the other."
    return _make_report(entity, project, f"How many channels it needs: {run_id}", text, blocks)


def make_group_report(entity: str, project: str, name: str, run_ids: Sequence[str], sentences: Sequence[str]) -> Any:
    """What the sweeps of a group or grid say beside each other: layers, criteria and effects, seeds as their spread.

    `run_ids`: of its sweeps; `sentences`: the answers, the best first.
    """
    wr, _ = _import_workspaces()
    runset = wr.Runset(name=name, filters=f"Metric('ID') in {list(run_ids)!r}")
    blocks = [wr.H2("Answers"), wr.UnorderedList(items=list(sentences))]
    for setting, heading in (("layer", "Layers"), ("criterion", "Criteria"), ("effect", "Effects")):
        key = wr.Config(f"prune.{setting}")
        curves = wr.LinePlot(
            title=f"accuracy over channels pruned, by {setting}: mean and standard deviation",
            x="n_pruned",
            y=["accuracy"],
            groupby=key,
            groupby_aggfunc="mean",
            groupby_rangefunc="stddev",
            smoothing_type="none",
            max_runs_to_show=1000,
        )
        certified = wr.BarPlot(title=f"certified share, by {setting}", metrics=["certified/share"], groupby=key)
        blocks += [wr.H2(heading), wr.PanelGrid(runsets=[runset], panels=[curves, certified])]
    text = "Sweeps of one experiment beside each other."
    return _make_report(entity, project, f"How many channels they need: {name}", text, blocks)


def _make_report(entity: str, project: str, title: str, description: str, blocks: list[Any]) -> Any:
    """`title`: without a question mark, as the client makes an address of it; it is cut where the id stays complete."""
    wr, _ = _import_workspaces()
    cut = title[-_MAX_TITLE:]
    return wr.Report(entity=entity, project=project, title=cut, description=description, blocks=blocks)


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
    with asking("did not take the dashboard", "try again"):
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


def _sections(wr: Any) -> list[tuple[str, str, str, list[Any]]]:
    """Name in a workspace, heading and text in a report (without a heading it is not there), and panels."""
    curves = {
        "accuracy": "accuracy",
        "loss": "loss",
        "top5_accuracy": "top-5 accuracy",
        "n_changed": "images whose prediction changed",
        "n_lost": "images lost against K = 0",
        "n_gained": "images gained against K = 0",
        "n_pruned": "channels pruned",
    }
    scalars = (
        "certified/K", "certified/n_pruned", "certified/share", "observed/K", "at_certified/worst_class_drop",
        "at_certified/n_lost", "at_certified/n_gained", "baseline/accuracy", "best/K", "best/accuracy", "cost/seconds",
    )  # fmt: skip
    smaller_model = (
        "compact/n_equal", "compact/largest_difference", "compact/parameters_share", "compact/multiply_adds_share",
        "compact/file_bytes_share", "compact/ms_batch_1_share", "compact/ms_batch_256_share",
    )  # fmt: skip
    columns = [wr.Config(f"prune.{name}") for name in ("layer", "criterion", "ranking", "bias")]
    columns += [wr.SummaryMetric(name) for name in ("n_channels", "certified/share", "best/K", "best/accuracy")]
    sweep = [
        wr.LinePlot(title=title, x="K", y=[name], smoothing_type="none", max_runs_to_show=100)
        for name, title in curves.items()
    ]
    result = [wr.ScalarChart(title=name, metric=wr.SummaryMetric(name)) for name in scalars]
    smaller = [wr.ScalarChart(title=name, metric=wr.SummaryMetric(name)) for name in smaller_model]
    smaller += [
        wr.LinePlot(title="accuracy lost over cost left", x="frontier/cost_share", y=["frontier/lost"]),
        wr.MediaBrowser(title="frontier", media_keys=["frontier"]),
    ]
    channels = [
        wr.MediaBrowser(title="mean feature maps", media_keys=["feature_maps", "feature_map_0"]),
        wr.MediaBrowser(title="accuracy curve", media_keys=["accuracy_curve", "class_accuracy", "flips"]),
        wr.MediaBrowser(title="confusion matrix", media_keys=["confusion_k0"]),
        wr.WeavePanelSummaryTable(table_name="channels"),
        wr.WeavePanelSummaryTable(table_name="lost"),
    ]
    compare = [
        wr.BarPlot(
            title="sensitivity: certified share of channels, by layer",
            metrics=["certified/share"],
            groupby=wr.Config("prune.layer"),
        ),
        wr.ParallelCoordinatesPlot(
            title="criteria and layers", columns=[wr.ParallelCoordinatesPlotColumn(metric=column) for column in columns]
        ),
    ]
    training = [
        wr.LinePlot(title=name, x="epoch", y=[f"train/{name}", f"train/val_{name}"], smoothing_type="none")
        for name in ("accuracy", "loss")
    ]
    answer = (
        "Certified: accuracy on other images falls by at most the tolerance, at the set confidence. "
        "Observed: on these it did."
    )
    table = "Every channel with its importance, its rank, the K at which it is pruned, and its mean feature map."
    proof = "The model without these channels: images it predicts as the masked one does, and what is left of its cost."
    return [
        ("Sweep", "Accuracy at every K", "", sweep),
        ("Result", "How many can be pruned", answer, result),
        ("Smaller model", "The smaller model", proof, smaller),
        ("Channels", "The channels", table, channels),
        ("Criteria and layers", "", "", compare),
        ("Training", "Training", "", training),
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
