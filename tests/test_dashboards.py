"""The workspace and the report: every name they plot exists in a real run, and they survive a server."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


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
        elif panel["viewType"] == "Media Browser":
            names["history"] |= set(config["mediaKeys"])
        elif panel["viewType"] == "Parallel Coordinates Plot":
            for column in config["columns"]:
                where, _, name = column["accessor"].partition(":")
                names[where].add(name.replace(".value", ""))
        else:
            assert panel["viewType"] == "Weave"
            assert '"channels"' in json.dumps(config)
            names["history"].add("channels")
    return names


@pytest.mark.usefixtures("fresh_client")
def test_every_name_that_is_plotted_exists_in_a_real_run(invoke: Callable[..., Result], tmp_path: Path) -> None:
    quick = ("--set", "train.epochs=1", "--set", "sweep.schedule=0:C:8", "--set", "sweep.feature_maps_k=[]")
    result = invoke("run", EXPERIMENTS / "digits.yaml", *quick, "--mode", "offline", "--run-id", "r")
    assert result.exit_code == 0, result.output
    printed = invoke("dashboard", "push", "runs/r", "--entity", "me", "--dry-run")
    assert printed.exit_code == 0, printed.output
    described = json.loads(printed.stdout)
    assert set(described) == {"workspace", "report"}

    (offline,) = (tmp_path / "runs" / "r" / "wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    lines = subprocess.run([wandb, "leet", "inspect", "--json", offline], capture_output=True, text=True)
    assert lines.returncode == 0, lines.stderr
    records = [json.loads(line) for line in lines.stdout.splitlines()]
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
    for part in described.values():
        for where, names in names_plotted({"part": part}).items():
            assert names <= there[where], f"{where} lacks {sorted(names - there[where])}"
    assert names_plotted(described)["history"] >= {"K", "accuracy", "epoch", "channels", "feature_maps"}


def test_without_an_entity_it_says_what_to_give(invoke: Callable[..., Result]) -> None:
    result = invoke("dashboard", "push", "--dry-run")
    assert result.exit_code == 78 and "give --entity or set WANDB_ENTITY" in result.stderr
