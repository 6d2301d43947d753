"""The real W&B client, offline, read back with its own tool; and trouble with it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lab3.engine import SweepPoint
from lab3.errors import ConfigError
from lab3.rank import ChannelStats
from lab3.tracking import Asset, ChannelTable, Tracker, choose_mode, open_tracker
from lab3.tracking.offline import offline_runs, read_times
from lab3.training import Epoch

POINTS = [SweepPoint(k, tuple(range(k)), 10 - k, 10, 0.1 * k, 10, (10 - k, 0), k, 0, 10) for k in range(3)]
TABLE = ChannelTable(
    [ChannelStats(1, 0.5, 0, 1), ChannelStats(0, 0.75, 1, None)], [np.full((4, 4), v, np.uint8) for v in (9, 200)]
)


def read_back(folder: Path) -> list[dict[str, Any]]:
    """Every record of the one offline run below `folder`."""
    (run,) = (folder / "wandb").glob("offline-run-*")
    wandb = Path(sys.executable).with_name("wandb")
    lines = subprocess.run([wandb, "leet", "inspect", "--json", run], capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def history_of(folder: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in read_back(folder) if record["type"] == "history"]


def track(tracker: Tracker, folder: Path) -> str | None:
    picture = folder / "curve.png"
    Image.new("L", (4, 4)).save(picture)
    (folder / "model.h5").write_bytes(b"weights")
    tracker.log_epoch(Epoch(1, 0.7, 0.6, 0.8, 0.5))
    reference = (folder / "model.h5").as_uri()
    tracker.log_asset(Asset("input", "model", "model-m", {"sha256": "abc"}, reference=reference))
    tracker.log_channels(TABLE)
    tracker.log_figures({"feature_maps": picture})
    tracker.log_media()
    for point in POINTS:
        tracker.log_point(point)
    tracker.log_figures({"accuracy_curve": picture})
    tracker.log_media()
    tracker.log_media()
    return tracker.finish({"baseline": {"accuracy": 1.0}}, exit_code=0)


pytestmark = pytest.mark.usefixtures("fresh_client")


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def open_offline(tmp_path: Path, warnings: list[str]) -> Callable[..., Tracker]:
    def open_it(**settings: Any) -> Tracker:
        settings = {"is_resumed": False, "config": {"seed": 3, "prune": {"bias": "zero"}}, **settings}
        return open_tracker("offline", tmp_path, "run-1", warn=warnings.append, **settings)

    return open_it


def test_an_offline_run_holds_config_rows_table_and_images(
    open_offline: Callable[..., Tracker], tmp_path: Path, warnings: list[str]
) -> None:
    place = track(open_offline(tags=["a"], project="p"), tmp_path)
    assert warnings == [] and place is not None and place.endswith("(send it with `lab3 publish`)")
    records = read_back(tmp_path)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["project"], run["tags"]) == ("run-1", "p", ["a"])
    assert run["config"]["update"]["prune"] == {"bias": "zero"}
    epoch, captured, *rows, end = history_of(tmp_path)
    assert (epoch["epoch"], epoch["train/val_accuracy"]) == (1, 0.5) and "K" not in epoch
    assert [(row["K"], row["n_pruned"], row["correct"], row["accuracy"], row["loss"]) for row in rows] == [
        (0, 0, 10, 1.0, 0.0),
        (1, 1, 9, 0.9, 0.1),
        (2, 2, 8, 0.8, 0.2),
    ]
    assert (captured["feature_maps._type"], end["accuracy_curve._type"]) == ("image-file", "image-file")
    tables = [record["summary"]["update"].get("channels") for record in records if record["type"] == "summary"]
    assert [table["nrows"] for table in tables if table] == [2]
    assert "K" not in captured and "K" not in end
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert {metric.get("name"): metric.get("step_metric") for metric in metrics}["accuracy"] == "K"
    artifacts = {record["artifact"]["type"]: record["artifact"] for record in records if record["type"] == "artifact"}
    assert "model" in artifacts and "weights" not in json.dumps(artifacts["model"])
    # The table with its images is an artifact, staged inside the run's folder until it is synced.
    staged = {path.read_bytes() for path in (tmp_path / "wandb" / "data").rglob("*") if path.is_file()}
    (table,) = [json.loads(content) for content in staged if content.startswith(b'{"_type": "table"')]
    assert sum(content.startswith(b"\x89PNG") for content in staged) == 2
    assert table["columns"] == ["channel", "importance", "rank", "pruned_at_k", "mean_feature_map"]
    assert [row[:4] for row in table["data"]] == [[1, 0.5, 0, 1], [0, 0.75, 1, None]]
    assert [row[4]["_type"] for row in table["data"]] == ["image-file", "image-file"]


def test_a_resumed_offline_run_is_one_complete_run(open_offline: Callable[..., Tracker], tmp_path: Path) -> None:
    killed = open_offline()
    killed.log_point(POINTS[0])
    killed.finish({}, exit_code=1)
    resumed = open_offline(is_resumed=True)
    track(resumed, tmp_path)
    assert [row["K"] for row in history_of(tmp_path) if "K" in row] == [0, 1, 2]


def test_a_part_beside_what_was_sent_is_found(open_offline: Callable[..., Tracker], tmp_path: Path) -> None:
    started_s = time.time() - 3600
    killed = open_offline(started_s=started_s)
    killed.log_point(POINTS[0])
    killed.finish({}, exit_code=1)
    (sent,) = offline_runs(tmp_path, "run-1")
    (sent / "run-run-1.wandb.synced").touch()
    track(open_offline(is_resumed=True, started_s=started_s), tmp_path)
    found = offline_runs(tmp_path, "run-1")
    assert len(found) == 2 and found[0] == sent
    # The epoch has the number of the row that was sent.
    assert [sorted(read_times([run]).rows_s) for run in found] == [[0], [1, 2, 3, 4, 5]]


def test_environment_variables_of_wandb_are_stronger(
    open_offline: Callable[..., Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-env")
    monkeypatch.setenv("WANDB_TAGS", "x,y")
    track(open_offline(project="from-file", tags=["z"]), tmp_path)
    run = next(record["run"] for record in read_back(tmp_path) if record["type"] == "run")
    assert (run["project"], run["tags"]) == ("from-env", ["x", "y"])


def test_trouble_warns_once_and_the_run_goes_on(
    open_offline: Callable[..., Tracker], tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def broken(*args: Any, **kwargs: Any) -> None:
        raise wandb.errors.CommError("the service is gone")

    tracker = open_offline()
    monkeypatch.setattr(wandb.Run, "log", broken)
    assert track(tracker, tmp_path) is None
    assert warnings == [
        "W&B could not log (CommError: the service is gone); the run goes on, its folder has everything"
    ]


def test_no_server_means_offline(tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of this machine: nothing listens there.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    tracker = open_tracker("online", tmp_path, "run-1", warn=warnings.append, is_resumed=False)
    place = track(tracker, tmp_path)
    assert len(warnings) == 1 and "could not start online" in warnings[0] and "goes on offline" in warnings[0]
    assert place is not None and "offline run" in place
    assert [row["K"] for row in history_of(tmp_path) if "K" in row] == [0, 1, 2]


def test_the_mode_is_flag_then_environment_then_configuration_then_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import wandb

    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("online", "offline") == ("online", "chosen by --mode")
    assert choose_mode(None, "offline") == ("disabled", "chosen by WANDB_MODE")
    monkeypatch.setenv("WANDB_MODE", "sometimes")
    with pytest.raises(ConfigError, match="WANDB_MODE must be online, offline or disabled, got 'sometimes'"):
        choose_mode(None, "auto")
    monkeypatch.delenv("WANDB_MODE")
    assert choose_mode(None, "disabled") == ("disabled", "chosen by the configuration")
    assert choose_mode(None, "auto") == ("offline", "no W&B key is configured")
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password " + "0" * 40)
    assert choose_mode(None, "auto") == ("online", "a key is configured")
    wandb.teardown()
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert choose_mode(None, "auto") == ("offline", "no W&B key is configured")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert choose_mode(None, "auto") == ("online", "a key is configured")


def test_disabled_tracks_nothing(tmp_path: Path) -> None:
    tracker = open_tracker("disabled", tmp_path, "run-1", warn=print, is_resumed=False)
    assert type(tracker) is Tracker and track(tracker, tmp_path) is None
    assert not (tmp_path / "wandb").exists()
