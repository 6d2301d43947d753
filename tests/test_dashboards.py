"""The workspace and the report: every name they plot exists in a real run, and they survive a server."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lab3.app.pipeline.record import replay_record
from lab3.config import dump_config, load_config
from lab3.record.rundir import RunDir, claim_run
from lab3.tracking import Event, Tracker, dashboards
from lab3.tracking.payloads import row_of, summary_of
from lab3.views.report import gather_report
from tests.processes import start
from tests.wandb_files import read_back
from tests.wandb_server import ENTITY, Fault, WandbServer

# W&B's client may wait like this for its own service, after a request that was given up on.
WAITS_AT_EXIT = """
import atexit, threading
from lab3.app.cli import run_program
atexit.register(threading.Event().wait)
run_program("lab3")
"""
Push = Callable[..., "Pushed"]


pytestmark = pytest.mark.forks


def panels_in(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "viewType" in value:
            yield value
        for inner in value.values():
            yield from panels_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from panels_in(inner)


def names_plotted(described: dict[str, Any]) -> dict[str, set[str]]:
    """Names of metrics in all panels, by where they are looked for."""
    names: dict[str, set[str]] = {"history": set(), "summary": set(), "config": set()}
    for panel in panels_in(described):
        config = panel["config"]
        if panel["viewType"] == "Run History Line Plot":
            names["history"] |= {config["xAxis"], *config["metrics"]}
        elif panel["viewType"] == "Scalar Chart":
            names["summary"] |= {name.removeprefix("summary_metrics.") for name in config["metrics"]}
        elif panel["viewType"] == "Bar Chart":
            names["summary"] |= set(config["metrics"])
            names["config"].add(config["groupBy"].replace(".value", ""))
        elif panel["viewType"] == "Media Browser":
            names["history"] |= set(config["mediaKeys"])
        elif panel["viewType"] == "Parallel Coordinates Plot":
            for column in config["columns"]:
                where, _, name = column["accessor"].partition(":")
                names[where].add(name.replace(".value", ""))
        else:
            assert panel["viewType"] == "Weave"
            (name,) = (name for name in ("channels", "lost") if f'"{name}"' in json.dumps(config))
            names["summary"].add(name)
    return names


class Logged(Tracker):
    """Names of what a run logs."""

    def __init__(self) -> None:
        self.history: set[str] = set()
        self.summary: set[str] = set()

    def log(self, step: int, event: Event) -> None:
        self.history |= set(row_of(event) or {})
        self.summary |= set(summary_of(event))

    def close(self, exit_code: int) -> str | None:
        return None


def test_every_name_that_is_plotted_exists_in_a_real_run(
    own: Path, compressed_folder: Path, invoke: Callable[..., Result]
) -> None:
    printed = invoke("dashboard", "push", own, "--entity", "me", "--dry-run")
    assert printed.exit_code == 0, printed.output
    described = json.loads(printed.stdout)
    assert set(described) == {"workspace", "report"}

    records = read_back(own)
    history = {name.split(".")[0] for each in records if each["type"] == "history" for name in each["history"]["item"]}
    summary = {name for each in records if each["type"] == "summary" for name in each["summary"]["update"]}
    config = next(each["run"]["config"]["update"] for each in records if each["type"] == "run")
    there = {
        "history": history,
        "summary": summary,
        "config": {
            f"{section}.{name}" for section, values in config.items() if isinstance(values, dict) for name in values
        },
    }
    # What a compressed network adds, and its smaller model.
    logged = Logged()
    replay_record(RunDir(compressed_folder / "runs" / "c"), logged)
    there["history"] |= logged.history
    there["summary"] |= logged.summary
    for part in described.values():
        for where, names in names_plotted({"part": part}).items():
            assert names <= there[where], f"{where} lacks {sorted(names - there[where])}"
    assert names_plotted(described)["history"] >= {"K", "accuracy", "epoch", "feature_maps"}


def test_a_dry_run_needs_no_entity_and_a_push_says_that_it_does(invoke: Callable[..., Result]) -> None:
    dry = invoke("dashboard", "push", "--dry-run")
    assert (dry.exit_code, dry.stderr) == (0, "")
    named = json.loads(invoke("dashboard", "push", "--dry-run", "--entity", "me").stdout)
    found = without_ids(json.loads(dry.stdout)["workspace"])
    assert without_ids({**named["workspace"], "entity": ""}) == found
    result = invoke("dashboard", "push")
    assert result.exit_code == 78
    assert result.stderr == (
        "Error: a dashboard is pushed to an entity, got none: give --entity, or set WANDB_ENTITY\n"
    )


@pytest.mark.parametrize("arguments", [["--dry-run"], ["--entity", "me"]])
def test_without_its_package_it_says_how_to_install_it(
    invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    result = invoke("dashboard", "push", *arguments)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith("Error: dashboards need the package wandb-workspaces, which cannot be imported (")
    assert result.stderr.endswith("; install it with: pip install 'lab3[dashboards]'\n")


@dataclass(frozen=True)
class Pushed:
    """What a process printed and how it ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def push(tmp_path: Path, server: WandbServer) -> Push:
    """`lab3 dashboard push` in a process of its own, for a run by its id or for none; `program`: by a real start."""

    def push(run_id: str | None, program: str | None = None, **variables: str) -> Pushed:
        runs = tmp_path / "runs"
        if run_id is not None and not (runs / run_id).exists():
            with claim_run(runs, run_id) as run:
                run.config_yaml.write_text(dump_config(load_config()))
                run.manifest_json.write_text("{}")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        environment = {**inherited, **server.environment, **variables}
        arguments = [] if run_id is None else [str(runs / run_id)]
        command = ["dashboard", "push", *arguments, "--entity", ENTITY, "--project", "p"]
        process: Any
        if program is None:
            process = start(*command, environment=environment)
        else:
            pipe = subprocess.PIPE
            real = [sys.executable, "-c", program, *command]
            process = subprocess.Popen(real, env=environment, stdout=pipe, stderr=pipe, text=True)
        output, errors = process.communicate(timeout=60)
        return Pushed(process.returncode, output, errors)

    return push


def without_ids(value: Any) -> Any:
    """Ids of views, runsets, sections and panels are made anew by every push."""
    if isinstance(value, dict):
        return {name: without_ids(inner) for name, inner in value.items() if name not in ("id", "__id__")}
    return [without_ids(inner) for inner in value] if isinstance(value, list) else value


def kept(server: WandbServer) -> dict[str, Any]:
    """What the server has of every view, by its id."""
    names = ("type", "displayName", "description", "project")
    return {
        view_id: ({name: view[name] for name in names}, without_ids(json.loads(view["spec"])))
        for view_id, view in server.views.items()
    }


@pytest.mark.usefixtures("fresh_client")
def test_what_was_pushed_loads_back_unchanged(push: Push, server: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb_workspaces.reports.v2.interface import PanelGrid, Report
    from wandb_workspaces.workspaces.interface import Workspace

    done = push("r")
    assert done.returncode == 0, done.stderr
    workspace_url, report_url = done.stdout.splitlines()
    assert workspace_url == f"{server.url}/{ENTITY}/p?nw=lab3sweeps"
    assert report_url.startswith(f"{server.url}/{ENTITY}/p/reports/")

    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    workspace, report = Workspace.from_url(workspace_url), Report.from_url(report_url)
    pushed = dashboards.make_workspace(ENTITY, "p"), dashboards.make_report(ENTITY, "p", "r")
    loaded = json.loads(dashboards.describe(workspace, report))
    assert without_ids(loaded) == without_ids(json.loads(dashboards.describe(*pushed)))
    assert (workspace.name, len(workspace.sections)) == ("lab3 sweeps", 6)
    for name in ("entity", "project", "title", "description", "width"):
        assert getattr(report, name) == getattr(pushed[1], name)
    grids = [block for block in report.blocks if isinstance(block, PanelGrid)]
    assert [len(grid.panels) for grid in grids] == [7, 11, 9, 5, 2]


def test_a_report_shows_the_one_run_with_that_id() -> None:
    report = dashboards.make_report(ENTITY, "p", "it's-a.run")
    grids = [block for block in report.blocks if hasattr(block, "runsets")]
    of_the_run = {"key": {"section": "run", "name": "name"}, "op": "=", "value": "it's-a.run", "disabled": False}
    assert len(grids) == 5
    for grid in grids:
        (runset,) = grid._to_model().metadata.run_sets
        assert runset.filters["filters"] == [of_the_run]


def test_a_group_has_a_report_of_its_runs_beside_each_other(
    toy_files: tuple[Path, Path], invoke: Callable[..., Result]
) -> None:
    model, data = toy_files
    criteria = ("--criterion", "mean_activation", "--criterion", "filter_l1")
    assert invoke("sweep", model, "--data", data, "--set", "data.scale=1", *criteria, "--run-id", "g").exit_code == 0
    described = json.loads(invoke("dashboard", "push", "runs/g", "--entity", "me", "--dry-run").stdout)
    group = gather_report(Path("runs", "g"))
    heading, answers, *blocks = described["report"]
    shown = json.dumps(answers)
    assert json.dumps(heading).count("Answers") == 1
    assert [shown.count(json.dumps(f"{each.label}: {each.sentence}")) for each in group.members] == [1, 1]
    assert shown.index(json.dumps(group.sentence)) == min(
        shown.index(json.dumps(f"{each.label}: {each.sentence}")) for each in group.members
    )
    plotted = names_plotted({"report": blocks})
    assert plotted["history"] == {"n_pruned", "accuracy"} and plotted["summary"] == {"certified/share"}
    assert plotted["config"] == {"prune.layer", "prune.criterion", "prune.effect"}
    ids = ["g-mean_activation", "g-filter_l1"]
    in_group = {"key": {"section": "run", "name": "name"}, "op": "IN", "value": ids, "disabled": False}
    runsets = [runset for block in blocks if "metadata" in block for runset in block["metadata"]["runSets"]]
    assert [runset["filters"]["filters"] for runset in runsets] == [[in_group]] * 3


def test_the_longest_run_id_fits_a_title() -> None:
    first, second = (dashboards.make_report(ENTITY, "p", letter + "x" * 127).title for letter in "ab")
    assert first != second and len(first) == 128


def test_a_second_push_replaces_both(push: Push, server: WandbServer) -> None:
    first = push("r")
    pushed = kept(server)
    assert sorted(view["type"] for view in server.views.values()) == ["project-view", "runs"]
    for view in server.views.values():
        view["spec"] = "{}"
    assert push("r").stdout == first.stdout
    assert kept(server) == pushed

    # Another run's report is another report, and nothing else is touched.
    other = push("q").stdout.splitlines()
    assert other[0] == first.stdout.splitlines()[0] and other[1] not in first.stdout
    assert len(server.views) == 3 and kept(server).items() >= pushed.items()


def test_without_a_run_only_the_workspace_is_pushed(push: Push, server: WandbServer) -> None:
    assert push(None).stdout == f"{server.url}/{ENTITY}/p?nw=lab3sweeps\n"
    assert [view["type"] for view in server.views.values()] == ["project-view"]


@pytest.mark.parametrize(("operation", "program"), [(None, None), ("upsertView", WAITS_AT_EXIT)])
def test_a_server_in_trouble_ends_the_command_soon(
    push: Push, server: WandbServer, operation: str | None, program: str | None
) -> None:
    server.faults = [Fault("graphql", 500, 10**6, operation)]
    failed = push("r", program, WANDB_HTTP_TIMEOUT="2")
    assert (failed.returncode, failed.stdout) == (75, "")
    (error,) = [line for line in failed.stderr.splitlines() if not line.startswith("wandb: ")]
    assert error.startswith("Error: W&B did not take the dashboard (") and error.endswith("; try again")
    assert server.faults[0].n_done > 0


def test_a_wrong_key_is_an_error_that_says_so(push: Push, server: WandbServer) -> None:
    failed = push("r", WANDB_API_KEY="0" * 40)
    assert (failed.returncode, failed.stdout) == (75, "")
    (error,) = [line for line in failed.stderr.splitlines() if not line.startswith("wandb: ")]
    assert error.startswith("Error: W&B did not take the dashboard (")
    assert server.views == {}
