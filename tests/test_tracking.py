"""What every tracker does with a run's events; the real W&B client, read back with its own tool; trouble with it."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lab3
from lab3.app.pipeline.expected import Expected
from lab3.config.sections import TrackingSection
from lab3.errors import ConfigError
from lab3.inputs.training import Epoch
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.rank import ChannelStats
from lab3.tracking import Event, RowEvent, RunSettings, Tracker, choose_mode, open_tracker
from lab3.tracking.client import has_key
from lab3.tracking.events import Alert, Asset, ChannelTable, Compacted, Finished, MediaReady
from lab3.tracking.offline import ShownRun, find_offline_run, offline_runs, read_offline
from lab3.tracking.remote import Project
from lab3.tracking.wandb_tracker import WandbTracker
from tests.points import make_counted
from tests.wandb_files import history_of, read_back
from tests.wandb_server import WandbServer

POINTS = make_counted([0, 1, 2], [0, 0, 0], 10)
TABLE = ChannelTable(
    [ChannelStats(1, 0.5, 0, 1), ChannelStats(0, 0.75, 1, None)], [np.full((4, 4), v, np.uint8) for v in (9, 200)]
)
PICTURE = object()  # stands for one in a row, or for a table in the summary
ROWS: list[dict[str, Any]] = [
    {"epoch": 1, "train/loss": 0.7, "train/accuracy": 0.6, "train/val_loss": 0.8, "train/val_accuracy": 0.5},
    {"feature_maps": PICTURE},
    *(
        {"K": k, "n_pruned": k, "correct": 10 - k, "accuracy": 1 - k / 10, "loss": k / 10, "top5_accuracy": 1.0}
        | {"n_changed": k, "n_lost": k, "n_gained": 0}
        for k in range(3)
    ),
    {"accuracy_curve": PICTURE},
    {
        "plan": 1,
        "frontier/n_pruned": 5,
        "frontier/lost": 0.25,
        "frontier/cost_share": 0.5,
        "frontier/is_certified": True,
    },
]
SUMMARY = {"baseline/K": 0, "baseline/accuracy": 1.0, "exact": True, "channels": PICTURE}
SUMMARY |= {"compact/K": 2, "compact/parameters": 90, "compact/largest_difference": 1e-7}
ARTIFACTS = {"model-m", "results-run-1", "run-run-1-channels", "model-run-1-compact"}

pytestmark = pytest.mark.usefixtures("fresh_client")


def events_of_a_run(folder: Path) -> list[Event]:
    """Each kind of event, in the order of a run."""
    picture, model = folder / "curve.png", folder / "model.h5"
    Image.new("L", (4, 4)).save(picture)
    model.write_bytes(b"weights")
    return [
        Epoch(1, 0.7, 0.6, 0.8, 0.5),
        Asset("input", "model", "model-m", {"sha256": "abc"}, reference=model.as_uri()),
        TABLE,
        MediaReady({"feature_maps": picture}),
        POINTS[0],
        Alert("low baseline", "accuracy 1.0"),
        *POINTS[1:],
        MediaReady({"accuracy_curve": picture}),
        Asset("output", "results", "results-run-1", {"run": "run-1"}, {"model.h5": model}),
        FrontierPoint(1, 5, 0.25, 0.5, True),
        Finished({"baseline": {"accuracy": 1.0, "k": 0}, "exact": True}),
        Asset("output", "model", "model-run-1-compact", {"run": "run-1"}, {"model.h5": model}),
        Compacted({"k": 2, "parameters": 90, "largest_difference": 1e-7}),
    ]


def track(tracker: Tracker, events: Sequence[Event], exit_code: int = 0) -> str | None:
    step = 0
    for event in events:
        tracker.log(step, event)
        step += isinstance(event, RowEvent)
    return tracker.close(exit_code)


Content = tuple[list[dict[str, Any]], dict[str, Any], set[str], bool]


def stands_for(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: PICTURE if isinstance(value, Path | ChannelTable | dict) else value for name, value in values.items()}


class TestTrackerContract:
    """Nothing, W&B offline, W&B online, and what `publish` expects of W&B: the same events show the same run."""

    @pytest.fixture(params=["disabled", "offline", "online", "expected"])
    def tracker(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracker:
        if request.param == "expected":
            return Expected("run-1")
        if request.param == "online":
            server: WandbServer = request.getfixturevalue("server")
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
        return open_tracker(request.param, RunSettings(tmp_path, "run-1"), pytest.fail)

    def shown(self, tracker: Tracker, folder: Path) -> ShownRun | None:
        if isinstance(tracker, WandbTracker):
            online = tracker.mode == "online"
            return Project("lab3", None).read("run-1") if online else read_offline(find_offline_run(folder, "run-1"))
        return None

    def content(self, tracker: Tracker, folder: Path) -> Content:
        """Rows, summary, artifacts, and whether it is finished, in one form for all trackers."""
        if isinstance(tracker, Expected):
            rows = [stands_for(row) for row in tracker.rows]
            return rows, stands_for(tracker.summary), tracker.artifacts, tracker.is_finished
        shown = self.shown(tracker, folder)
        if shown is None:
            return [], {}, set(), False
        assert [row["_step"] for row in shown.rows] == list(range(shown.n_lines))
        # W&B's own names start with an underscore; its summary has the last values of the rows too.
        rows = [stands_for({name: row[name] for name in row if not name.startswith("_")}) for row in shown.rows]
        summary = {name: value for name, value in shown.summary.items() if name in SUMMARY}
        return rows, stands_for(summary), set(shown.artifacts), shown.state == "finished"

    def test_each_event_is_shown_once_and_in_order(
        self, tracker: Tracker, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        events = events_of_a_run(tmp_path)
        place = track(tracker, events)
        assert (place is not None) == isinstance(tracker, WandbTracker)
        everything: Content = (ROWS, SUMMARY, ARTIFACTS, True)
        assert self.content(tracker, tmp_path) == (([], {}, set(), False) if type(tracker) is Tracker else everything)
        if shown := self.shown(tracker, tmp_path):
            expected = Expected("run-1")
            track(expected, events)
            assert expected.compare(shown).differences == []
        if isinstance(tracker, WandbTracker) and tracker.mode == "online":
            alerts = request.getfixturevalue("server").runs["run-1"].alerts
            assert [(alert["title"], alert["text"]) for alert in alerts] == [("low baseline", "accuracy 1.0")]

    def test_a_run_that_is_stopped_shows_what_it_logged_and_is_not_finished(
        self, tracker: Tracker, tmp_path: Path
    ) -> None:
        track(tracker, events_of_a_run(tmp_path)[:6], exit_code=75)
        logged: Content = (ROWS[:3], {"channels": PICTURE}, {"model-m", "run-run-1-channels"}, False)
        assert self.content(tracker, tmp_path) == (([], {}, set(), False) if type(tracker) is Tracker else logged)


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def open_offline(tmp_path: Path, warnings: list[str]) -> Callable[..., Tracker]:
    return lambda **settings: open_tracker("offline", RunSettings(tmp_path, "run-1", **settings), warnings.append)


def test_an_offline_run_holds_config_rows_table_and_images(
    open_offline: Callable[..., Tracker], tmp_path: Path, warnings: list[str]
) -> None:
    config = {"seed": 3, "prune": {"bias": "zero"}}
    tracker = open_offline(tracking=TrackingSection(tags=["a"], project="p"), config=config)
    place = track(tracker, events_of_a_run(tmp_path))
    assert warnings == [] and place is not None and place.endswith("(send it with `lab3 publish`)")
    records = read_back(tmp_path)
    run = next(record["run"] for record in records if record["type"] == "run")
    assert (run["run_id"], run["project"], run["tags"]) == ("run-1", "p", ["a"])
    assert run["config"]["update"]["prune"] == {"bias": "zero"}
    captured, end = [row for row in history_of(tmp_path) if not {"K", "epoch", "plan"} & row.keys()]
    assert (captured["feature_maps._type"], end["accuracy_curve._type"]) == ("image-file", "image-file")
    tables = [record["summary"]["update"].get("channels") for record in records if record["type"] == "summary"]
    assert [table["nrows"] for table in tables if table] == [2]
    metrics = [record["metric"] for record in records if record["type"] == "metric"]
    assert {metric.get("name"): metric.get("step_metric") for metric in metrics}["accuracy"] == "K"
    artifacts = {record["artifact"]["name"]: record["artifact"] for record in records if record["type"] == "artifact"}
    assert "model-m" in artifacts and "weights" not in json.dumps(artifacts["model-m"])
    # The table with its images is an artifact, staged inside the run's folder until it is synced.
    staged = {path.read_bytes() for path in (tmp_path / "wandb" / "data").rglob("*") if path.is_file()}
    (table,) = [json.loads(content) for content in staged if content.startswith(b'{"_type": "table"')]
    assert sum(content.startswith(b"\x89PNG") for content in staged) == 2
    assert table["columns"] == ["channel", "importance", "rank", "pruned_at_k", "mean_feature_map"]
    assert [row[:4] for row in table["data"]] == [[1, 0.5, 0, 1], [0, 0.75, 1, None]]
    assert [row[4]["_type"] for row in table["data"]] == ["image-file", "image-file"]


def test_a_resumed_offline_run_is_one_complete_run(open_offline: Callable[..., Tracker], tmp_path: Path) -> None:
    track(open_offline(), POINTS[:1], exit_code=1)
    track(open_offline(is_resumed=True), events_of_a_run(tmp_path))
    assert [row["K"] for row in history_of(tmp_path) if "K" in row] == [0, 1, 2]


def test_a_part_beside_what_was_sent_is_found(open_offline: Callable[..., Tracker], tmp_path: Path) -> None:
    started_s = time.time() - 3600
    track(open_offline(started_s=started_s), POINTS[:1], exit_code=1)
    (sent,) = offline_runs(tmp_path, "run-1")
    (sent / "run-run-1.wandb.synced").touch()
    track(open_offline(is_resumed=True, started_s=started_s), events_of_a_run(tmp_path))
    found = offline_runs(tmp_path, "run-1")
    assert len(found) == 2 and found[0] == sent
    # The epoch has the number of the row that was sent.
    assert [[row["_step"] for row in read_offline(run).rows] for run in found] == [[0], [1, 2, 3, 4, 5, 6]]


def test_environment_variables_of_wandb_are_stronger(
    open_offline: Callable[..., Tracker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "from-env")
    monkeypatch.setenv("WANDB_TAGS", "x,y")
    tracking = TrackingSection(project="from-file", tags=["z"])
    track(open_offline(tracking=tracking), events_of_a_run(tmp_path))
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
    assert track(tracker, events_of_a_run(tmp_path)) is None
    assert warnings == [
        "W&B could not log (CommError: the service is gone); the run goes on, `lab3 publish` brings W&B up to date"
    ]


def test_no_server_means_offline(tmp_path: Path, warnings: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 9 of this machine: nothing listens there.
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    tracker = open_tracker("online", RunSettings(tmp_path, "run-1"), warnings.append)
    place = track(tracker, events_of_a_run(tmp_path))
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
    tracker = open_tracker("disabled", RunSettings(tmp_path, "run-1"), print)
    assert type(tracker) is Tracker and track(tracker, events_of_a_run(tmp_path)) is None
    assert not (tmp_path / "wandb").exists()


def test_private_names_of_the_client_stand_in_one_file_and_fail_loudly(monkeypatch: pytest.MonkeyPatch) -> None:
    package = Path(lab3.__file__).parent
    assert [path.name for path in package.rglob("*.py") if "wandb.sdk" in path.read_text()] == ["client.py"]
    monkeypatch.setitem(sys.modules, "wandb.sdk.lib.wbauth.wbnetrc", None)
    with pytest.raises(ImportError):
        has_key()
