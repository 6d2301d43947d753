"""The real client and the real command line against a stand-in server: nothing is lost, doubled or out of order."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab3.inputs.model_files import load_model, save_model
from lab3.record.journal import read_journal
from lab3.record.readers import read_epochs
from lab3.record.rundir import RunDir
from lab3.tracking.offline import ShownRun, read_offline
from tests.folders import DIGITS
from tests.processes import Process, start
from tests.wandb_server import ENTITY, KEY, Fault, Run, WandbServer

pytestmark = pytest.mark.forks

C = 24


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder with a small trained-looking model of 24 channels and labelled images."""
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            keras.layers.Conv2D(C, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(0)
    images_nhwc = rng.integers(0, 256, (200, 6, 6, 3)).astype(np.uint8)
    labels_n = np.asarray(model(images_nhwc / np.float32(255))).argmax(axis=1)
    save_model(model, tmp_path / "m.h5")
    np.savez(tmp_path / "d.npz", x_test=images_nhwc, y_test=labels_n)
    return tmp_path


def times_of(shown: ShownRun) -> dict[int, float]:
    """When each row was logged, by its step."""
    return {row["_step"]: row["_timestamp"] for row in shown.rows}


class Client:
    """The command line in processes of its own, with the server's address or without."""

    def __init__(self, folder: Path, server: WandbServer, *arguments: Any) -> None:
        self.folder, self.server, self.arguments = folder, server, arguments
        self.run = folder / "runs" / "r"
        self.errors = ""

    def start(self, *args: Any, mode: str = "online", **environment: str) -> Process:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        chosen = {**inherited, **self.server.environment, "WANDB_MODE": mode, **environment}
        return start(*args, cwd=self.folder, environment=chosen)

    def do(self, *args: Any, expect: int = 0, mode: str = "online", **environment: str) -> str:
        process = self.start(*args, mode=mode, **environment)
        output, self.errors = process.communicate(timeout=240)
        assert process.returncode == expect, output + self.errors
        return output

    def sweep(self, *args: Any, **settings: Any) -> str:
        return self.do(*self.sweep_arguments(*args), **settings)

    def sweep_arguments(self, *args: Any) -> tuple[Any, ...]:
        return (*self.arguments, "--run-id", "r", "--set", "tracking.finish_timeout_s=20.0", *args)

    @property
    def up_to_date(self) -> str:
        """What publish says of a run that is."""
        # Rows of media stand before and behind the points.
        n_rows = len(read_epochs(RunDir(self.run))) + len(read_journal(self.run / "journal.jsonl")) + 2
        return f"r: up to date, {n_rows} rows\n"

    def stop_in_sweep(
        self, number: signal.Signals, *args: Any, mode: str = "online", n_points: int = 3, **environment: str
    ) -> int:
        """Start, send a signal after some points, and return the exit code."""
        slowly = ("--set", "sweep.batch_size=8") if args[0] != "resume" else ()
        process = self.start(*args, *slowly, mode=mode, **environment)
        assert process.stderr is not None
        seen = 0
        for line in process.stderr:
            seen += line.startswith("sweep: ")
            if seen >= n_points:
                break
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode

    def sync(self) -> None:
        """As a user does who does not know better."""
        offline = sorted((self.run / "wandb").glob("offline-run-*"))[-1]
        environment = {**os.environ, **self.server.environment}
        wandb = Path(sys.executable).with_name("wandb")
        subprocess.run([wandb, "sync", str(offline)], env=environment, check=True, capture_output=True, timeout=120)

    @property
    def shown(self) -> str:
        """The id under which the server has the run, behind all that are damaged; kills can leave pictures unsent."""
        run_id = "r"
        while replaced_by := self.server.runs[run_id].config.get("replaced_by"):
            run_id = replaced_by["value"]
        return run_id

    def check_whole(self, run_id: str = "r") -> None:
        """The server holds every epoch and K once and in order, tables, pictures, artifacts, summary and state."""
        recorded = read_journal(self.run / "journal.jsonl")
        n_channels = len(read_journal(self.run / "journal.jsonl"))
        assert [row["k"] for row in recorded] == list(range(n_channels))
        found = self.server.runs[run_id]
        epochs = read_epochs(RunDir(self.run))
        assert [row["_step"] for row in found.history] == list(range(len(epochs) + n_channels + 2))
        trained, (captured, *swept, end) = found.history[: len(epochs)], found.history[len(epochs) :]
        assert [(row["epoch"], row["train/loss"]) for row in trained] == [(each.epoch, each.loss) for each in epochs]
        for name, name_there in (("k", "K"), ("correct", "correct"), ("n_changed", "n_changed"), ("loss", "loss")):
            assert [row[name_there] for row in swept] == [row[name] for row in recorded], name
        drawn = RunDir(self.run).read_config().sweep.feature_maps_k
        maps = {"feature_map_0", "feature_maps", *(f"feature_maps_k{k}" for k in drawn)}
        ends = {"accuracy_curve", "class_accuracy", "flips", *(f"confusion_k{k}" for k in [0, *drawn])}
        for row, names in ((captured, maps | ({"learning_curves"} if epochs else set())), (end, ends)):
            media = {name: value for name, value in row.items() if isinstance(value, dict)}
            assert set(media) == names and "K" not in row
            assert {value["_type"] for value in media.values()} == {"image-file"}
            assert all(value["path"] in found.files for value in media.values())
        table = found.summary["channels"]
        assert (table["_type"], table["nrows"]) == ("table-file", n_channels) and table["path"] in found.files
        assert "accuracy_at_k" in json.loads(found.files[table["path"]])["columns"]
        lost = found.summary["lost"]
        assert (lost["_type"], lost["nrows"]) == ("table-file", 24) and lost["path"] in found.files
        artifacts = [self.server.artifacts[each] for _, each in found.artifacts]
        assert {each.state for each in artifacts} == {"COMMITTED"}
        assert {each.type for each in artifacts} == {"dataset", "model", "results", "run_table"}
        (results,) = [each for each in artifacts if each.type == "results"]
        assert results.files["results.csv"] == (self.run / "results.csv").read_bytes()
        assert found.summary["baseline/correct"] == recorded[0]["correct"]
        assert found.summary["best/accuracy"] == max(row["correct"] / row["total"] for row in recorded)
        observed = found.summary["observed/K"]
        tolerance = RunDir(self.run).read_config().sweep.tolerance
        floor = recorded[0]["correct"] - tolerance * recorded[0]["total"]
        kept = [row["correct"] >= floor for row in recorded[: observed + 2]]
        assert kept == [True] * (observed + 1) + [False]
        assert found.summary["sentence"].startswith(("How many of", f"{found.summary['certified/n_pruned']} of"))
        assert found.state == "finished"
        assert found.config["prune"]["value"]["criterion"] == "mean_activation"


@pytest.fixture
def client(work: Path, server: WandbServer) -> Client:
    """Sweeps the small model."""
    return Client(work, server, "sweep", "m.h5", "--data", "d.npz")


@pytest.fixture
def digits(tmp_path: Path, server: WandbServer) -> Client:
    """Runs the digits experiment."""
    return Client(tmp_path, server, "run", DIGITS)


def test_an_online_run_arrives_whole_and_publishing_it_changes_nothing(client: Client, server: WandbServer) -> None:
    client.sweep()
    assert f"W&B: {server.url}" in client.errors and "warning" not in client.errors
    client.check_whole()
    before = len(server.requests)
    assert client.do("publish", "runs/r") == client.up_to_date
    asked = {operation for _, operation, _ in server.requests[before:]}
    assert not any(operation.startswith(("Upsert", "Create", "Commit")) for operation in asked)
    client.check_whole()


@pytest.mark.online
def test_an_offline_run_moved_elsewhere_is_published_once(client: Client, server: WandbServer) -> None:
    client.sweep(mode="offline")
    assert server.runs == {}
    moved = client.folder / "elsewhere" / "r"
    moved.parent.mkdir()
    client.run.rename(moved)
    client.run = moved
    assert client.do("publish", "--check", moved, expect=75).startswith("r: the server has no such run")
    assert client.do("publish", moved) == f"r: sent {C + 2} of {C + 2} rows\n"
    client.check_whole()
    assert client.do("publish", moved) == client.up_to_date
    client.check_whole()


@pytest.mark.online
def test_publishing_keeps_the_original_offline_run_with_its_system_metrics(client: Client, server: WandbServer) -> None:
    client.sweep(mode="offline")
    (original,) = (client.run / "wandb").glob("offline-run-*-r")
    record = original / "run-r.wandb"
    content = record.read_bytes()
    for _ in range(2):
        said = client.do("publish", "runs/r", expect=75, WANDB_API_KEY="")
        assert said.endswith(f"; the run's own offline run is complete: runs/r/wandb/{original.name}\n")
        assert record.read_bytes() == content
    assert client.do("publish", "runs/r") == f"r: sent {C + 2} of {C + 2} rows\n"
    assert record.read_bytes() == content
    client.check_whole()
    assert any("system.memory_percent" in row for row in server.runs["r"].events), "system metrics"
    # Somebody has sent it: it is still the original.
    assert "own offline run is complete" in client.do("publish", "runs/r", expect=75, WANDB_API_KEY="")
    assert record.read_bytes() == content


@pytest.mark.parametrize(
    "damage", [pytest.param("torn", marks=pytest.mark.online), "killed", pytest.param("two", marks=pytest.mark.online)]
)
def test_an_offline_run_that_is_not_whole_is_rebuilt_with_its_times(client: Client, damage: str) -> None:
    if damage == "killed":
        assert client.stop_in_sweep(signal.SIGKILL, *client.sweep_arguments(), mode="offline") == -signal.SIGKILL
    else:
        client.sweep(mode="offline")
    (original,) = (client.run / "wandb").glob("offline-run-*-r")
    if damage == "torn":
        os.truncate(original / "run-r.wandb", (original / "run-r.wandb").stat().st_size - 3000)
    if damage == "two":
        shutil.copytree(original, original.with_name(original.name.replace("offline-run-2", "offline-run-3")))
    before = read_offline(original)
    # As if that was an hour ago.
    manifest = RunDir(client.run).read_manifest()
    created_s = datetime.fromisoformat(manifest.created_at).timestamp() - 3600
    earlier = replace(manifest, created_at=datetime.fromtimestamp(created_s, UTC).isoformat())
    RunDir(client.run).write_manifest(earlier)
    # A client that is killed early may have written nothing yet.
    started_s = pytest.approx(created_s if before.started_s is None else before.started_s, abs=3)
    assert before.started_s is not None or damage == "killed"
    had = {"torn": "a torn offline run", "killed": "a torn offline run", "two": "2 offline runs"}[damage]
    said = client.do("publish", "runs/r", expect=75, WANDB_API_KEY="")
    assert f"; the folder had {had}, and has a rebuilt one: " in said
    (rebuilt,) = (client.run / "wandb").glob("offline-run-*-r")
    assert said.endswith(f"{rebuilt.relative_to(client.folder)}\n")
    after = read_offline(rebuilt)
    assert after.started_s == started_s
    assert times_of(before).items() <= times_of(after).items()
    n_points = len(read_journal(client.run / "journal.jsonl"))
    assert len(after.rows) == n_points + (1 if damage == "killed" else 2)
    if damage == "killed":
        client.do("resume", "runs/r", mode="offline")
        (resumed,) = (client.run / "wandb").glob("offline-run-*-r")
        after = read_offline(resumed)
        assert (len(after.rows), after.started_s) == (C + 2, started_s)
    assert "own offline run is complete" in client.do("publish", "runs/r", expect=75, WANDB_API_KEY="")


@pytest.mark.online
def test_a_table_that_was_not_sent_before_a_kill_is_sent_by_publish(client: Client, server: WandbServer) -> None:
    client.sweep()
    run = server.runs["r"]
    content = run.files.pop(run.summary["channels"]["path"])
    assert client.do("publish", "--check", "runs/r", expect=75) == "r: the summary differs in channels\n"
    assert client.do("publish", "runs/r") == f"r: sent 0 of {C + 2} rows\n"
    assert run.files[run.summary["channels"]["path"]] == content
    client.check_whole()


@pytest.mark.online
def test_a_run_that_lacks_pictures_is_tagged_and_published_once_more(client: Client, server: WandbServer) -> None:
    client.sweep("--set", "tracking.group=g", "--set", "tracking.tags=[a]")
    run = server.runs["r"]
    lost = run.history[0]["feature_maps"]["path"]
    del run.files[lost]
    wrong = f"the files of 1 pictures are missing, as {lost}"
    assert client.do("publish", "--check", "runs/r", expect=75) == f"r: {wrong}\n"
    # Of another run of the user's.
    server.runs["r-2"] = Run("r-2", "lab3", 2, exit_code=0)
    said = f"r: r is damaged ({wrong}) and tagged so, r-3 takes its place; sent {C + 2} of {C + 2} rows\n"
    assert client.do("publish", "runs/r") == said
    assert (server.runs["r"].fields["tags"], server.runs["r"].state) == (["a", "damaged"], "finished")
    assert server.runs["r-2"].history == [] and "tags" not in server.runs["r-2"].fields
    copy = server.runs["r-3"].fields
    assert (copy["groupName"], copy["tags"], copy["displayName"]) == ("g", ["a"], "r-3")
    client.check_whole("r-3")
    for flags in ((), ("--check",)):
        assert client.do("publish", *flags, "runs/r") == client.up_to_date
    # The copy can be damaged too.
    server.runs["r-3"].history[5]["correct"] -= 1
    assert "r-3 is damaged (of its 26 rows only the first 5 are right) and tagged so, r-4 takes its place" in client.do(
        "publish", "runs/r"
    )
    client.check_whole("r-4")
    assert client.do("publish", "runs/r") == client.up_to_date and set(server.runs) == {"r", "r-2", "r-3", "r-4"}


@pytest.mark.online
def test_model_and_data_come_from_the_server_and_are_linked(client: Client, server: WandbServer) -> None:
    for name, type, file in (("net", "model", "m.h5"), ("images", "dataset", "d.npz")):
        server.add_artifact(name, type, {file: (client.folder / file).read_bytes()})
    named = ("sweep", "wandb://tester/lab3/net:latest", "--data", "wandb://tester/lab3/images:latest", "--run-id", "r")
    client.do(*named)
    fetched = client.folder / "runs" / ".artifacts" / "tester-lab3-net-v0" / "m.h5"
    assert fetched.read_bytes() == (client.folder / "m.h5").read_bytes()
    manifest = RunDir(client.run).read_manifest()
    assert (manifest.model.path, manifest.model.artifact) == (str(fetched), "tester/lab3/net:v0")
    assert manifest.data.test.artifact == "tester/lab3/images:v0"
    used = {server.artifacts[each].name for how, each in server.runs["r"].artifacts if how == "used"}
    assert used == {"net", "images"}
    client.check_whole()
    assert client.do("publish", "runs/r") == client.up_to_date
    server.runs["r"].artifacts = [link for link in server.runs["r"].artifacts if link[0] != "used"]
    assert "it is not linked with tester/lab3/images:v0, tester/lab3/net:v0" in client.do(
        "publish", "--check", "runs/r", expect=75
    )
    client.do("publish", "runs/r")
    client.check_whole()
    client.do("sweep", "wandb://tester/lab3/other:latest", "--data", "d.npz", expect=75)
    assert "Error: W&B did not give wandb://tester/lab3/other:latest (" in client.errors
    client.do("sweep", named[1], "--data", "d.npz", mode="offline", expect=78)
    assert "needs W&B online, but it is offline" in client.errors and "Traceback" not in client.errors


@pytest.mark.online
def test_a_run_that_is_worse_than_results_of_the_server_alerts(client: Client, server: WandbServer) -> None:
    client.sweep()
    address = f"wandb://{ENTITY}/lab3/results-r:latest"
    assert client.do("compare", "runs/r", "--against", address, "--alert").count("(p = 1)") == 1
    model = load_model(client.folder / "m.h5")
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.roll(kernel, 1, axis=1), np.roll(bias, 1)])
    save_model(model, client.folder / "m.h5")
    client.do(*client.arguments, "--run-id", "later", mode="offline")
    assert "results-r-v0" in client.do("compare", "runs/later", "--against", address, "--alert", expect=1)
    assert "worse: accuracy fell from 1.0000 to " in client.errors and f"W&B: {server.url}" in client.errors
    (watch,) = [run for name, run in server.runs.items() if name.startswith("watch-later-")]
    (alert,) = watch.alerts
    assert alert["title"] == "worse than the earlier run" and "accuracy fell from 1.0000" in alert["text"]
    assert (watch.fields["jobType"], watch.state) == ("watch", "finished")
    assert [name for name, run in server.runs.items() if run.alerts and run is not watch] == ["r"]
    # An alert that cannot be sent is a warning, and the run is worse all the same.
    server.faults = [Fault("graphql", 500, 10**9)]
    slow = {"WANDB_INIT_TIMEOUT": "3"}
    client.do("compare", "runs/later", "--against", "runs/r", "--alert", expect=1, **slow)
    assert "warning: no alert was sent: W&B could not start online" in client.errors and "publish" not in client.errors
    server.faults = []
    model_there = f"wandb://{ENTITY}/lab3/model-m:latest"
    client.do("compare", "runs/later", "--against", model_there, expect=78)
    assert "must be the results of a run, got an artifact of the type model" in client.errors
    server.add_artifact("results-old", "results", {"results.csv": b"K"})
    client.do("compare", "runs/later", "--against", f"wandb://{ENTITY}/lab3/results-old:latest", expect=78)
    assert "results-old:latest must be the results of a sweep of this version of lab3" in client.errors
    client.do("compare", "runs/later", "--against", "wandb://a/b/results-none:latest", expect=75)


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_the_digits_experiment_arrives_whole(digits: Client, mode: str) -> None:
    digits.sweep(mode=mode)
    digits.do("publish", "runs/r")
    digits.check_whole()
    assert digits.do("publish", "runs/r") == digits.up_to_date


@pytest.mark.online
def test_the_clients_own_variables_are_stronger(client: Client, server: WandbServer) -> None:
    chosen: dict[str, Any] = {
        "WANDB_PROJECT": "p", "WANDB_ENTITY": "tester", "WANDB_RUN_ID": "e", "WANDB_NAME": "n", "WANDB_RUN_GROUP": "g",
        "WANDB_JOB_TYPE": "j", "WANDB_TAGS": "a,b", "WANDB_NOTES": "why", "WANDB_RESUME": "allow",
        "WANDB_DIR": str(client.folder / "elsewhere"),
    }  # fmt: skip
    slowly = ("--set", "sweep.batch_size=1", "--set", "tracking.notes=not this", "--set", "tracking.group=nor this")
    client.run = client.folder / "runs" / "e"
    assert client.stop_in_sweep(signal.SIGTERM, *client.arguments, *slowly, **chosen) == 75
    client.do(*client.arguments, **chosen)
    found = server.runs["e"]
    assert (found.project, found.state, [row["K"] for row in found.rows]) == ("p", "finished", list(range(C)))
    fields = {"displayName": "n", "groupName": "g", "jobType": "j", "tags": ["a", "b"], "notes": "why"}
    assert {name: found.fields[name] for name in fields} == fields
    assert list((client.folder / "elsewhere" / "wandb").glob("run-*-e")) and not (client.run / "wandb").exists()
    client.do("run", DIGITS, "--run-id", "e2", WANDB_MODE="sometimes", expect=78)


@pytest.mark.online
def test_three_fragments_each_sent_by_hand_are_one_run(digits: Client) -> None:
    assert digits.stop_in_sweep(signal.SIGKILL, *digits.sweep_arguments(), mode="offline") == -signal.SIGKILL
    digits.sync()
    assert digits.stop_in_sweep(signal.SIGTERM, "resume", "runs/r", mode="offline", n_points=2) == 75
    digits.sync()
    digits.do("resume", "runs/r", mode="offline")
    digits.sync()
    digits.do("publish", "runs/r")
    # Each holds the run from its first row; those who send them all have rows twice, which publish sends once more.
    digits.check_whole(digits.shown)
    assert digits.do("publish", "runs/r") == digits.up_to_date


@pytest.mark.online
def test_three_fragments_never_sent_are_one_run(digits: Client) -> None:
    assert digits.stop_in_sweep(signal.SIGKILL, *digits.sweep_arguments(), mode="offline") == -signal.SIGKILL
    assert digits.stop_in_sweep(signal.SIGTERM, "resume", "runs/r", mode="offline", n_points=2) == 75
    digits.do("resume", "runs/r", mode="offline")
    digits.do("publish", "runs/r")
    digits.check_whole()
    assert digits.do("publish", "runs/r") == digits.up_to_date


@pytest.mark.online
def test_rows_that_came_twice_are_damage(client: Client, server: WandbServer) -> None:
    assert client.stop_in_sweep(signal.SIGTERM, *client.sweep_arguments()) == 75
    client.do("resume", "runs/r", mode="offline")
    client.sync()
    n_lines = len(server.runs["r"].history)
    assert n_lines > C + 2
    said = client.do("publish", "runs/r")
    assert said.startswith(f"r: r is damaged (of its {n_lines} rows only the first ")
    assert said.endswith(f" are right) and tagged so, r-2 takes its place; sent {C + 2} of {C + 2} rows\n")
    client.check_whole("r-2")
    assert client.do("publish", "runs/r") == client.up_to_date
    assert len(server.runs["r"].history) == n_lines and server.runs["r"].fields["tags"] == ["damaged"]


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_killed_run_resumed_and_published_is_whole(digits: Client, mode: str) -> None:
    assert digits.stop_in_sweep(signal.SIGKILL, *digits.sweep_arguments(), mode=mode) == -signal.SIGKILL
    assert digits.stop_in_sweep(signal.SIGKILL, "resume", "runs/r", mode=mode, n_points=2) == -signal.SIGKILL
    digits.do("resume", "runs/r", mode=mode)
    digits.do("publish", "runs/r")
    digits.check_whole(digits.shown)
    assert digits.do("publish", "runs/r") == digits.up_to_date


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_sigterm_ends_soon_as_preempting_and_loses_nothing(client: Client, server: WandbServer, mode: str) -> None:
    assert client.stop_in_sweep(signal.SIGTERM, *client.sweep_arguments(), mode=mode) == 75
    if mode == "online":
        assert server.runs["r"].state == "preempted"
        n_kept = len(read_journal(client.run / "journal.jsonl"))
        assert [row["K"] for row in server.runs["r"].rows] == list(range(n_kept))
    client.do("resume", "runs/r", mode=mode)
    client.do("publish", "runs/r")
    client.check_whole()


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_sigterm_at_random_moments_ends_in_ten_seconds(digits: Client, server: WandbServer, mode: str) -> None:
    rng = np.random.default_rng(7)
    slowly, n_stopped = ("--set", "sweep.batch_size=1"), 0
    while n_stopped < 10:
        is_resumed = digits.run.exists()
        process = digits.start(*(("resume", "runs/r") if is_resumed else digits.sweep_arguments(*slowly)), mode=mode)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(0.5, 12))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=10)
        if process.returncode == 0:
            # It was done before.
            shutil.rmtree(digits.run)
            server.runs.clear()
            continue
        assert process.returncode == 75, errors
        n_stopped += 1
        if mode == "online" and ("train: " in errors or "sweep: " in errors):
            assert server.runs["r"].state == "preempted"
    digits.do(*(("resume", "runs/r") if digits.run.exists() else digits.sweep_arguments()), mode=mode)
    digits.do("publish", "runs/r")
    digits.check_whole(digits.shown)
    assert digits.do("publish", "runs/r") == digits.up_to_date


FAULTS = {
    "500 on the file stream": [Fault("file_stream", 500, 3)],
    "500 on graphql": [Fault("graphql", 500, 3)],
    "500 on upload": [Fault("/storage/", 500, 3)],
    "dropped connection": [Fault("file_stream|graphql", "drop", 3)],
    "answer lost": [Fault("file_stream", "lose", 2)],
    "429": [Fault("file_stream", 429, 2), Fault("graphql", 429, 2)],
    "400 on the file stream": [Fault("file_stream", 400, 10**6)],
    "404 on the file stream": [Fault("file_stream", 404, 10**6)],
}


@pytest.mark.online
@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_in_trouble_loses_nothing(client: Client, server: WandbServer, fault: str) -> None:
    server.faults = [Fault(each.path, each.how, each.times) for each in FAULTS[fault]]
    client.sweep()
    assert any(each.n_done for each in server.faults)
    assert client.errors.count("warning: ") <= 1
    server.faults = []
    client.do("publish", "runs/r")
    client.check_whole(client.shown)
    assert client.do("publish", "runs/r") == client.up_to_date


@pytest.mark.online
def test_a_server_that_vanishes_costs_one_warning(client: Client, server: WandbServer) -> None:
    n_streams = []

    def vanish(path: str, operation: str) -> None:
        n_streams.append(path.endswith("file_stream"))
        if sum(n_streams) == 2:
            server.faults = [Fault(".", "drop", 10**9)]

    server.on_request = vanish
    client.sweep("--set", "sweep.batch_size=1", "--set", "tracking.finish_timeout_s=5.0")
    assert client.errors.count("warning: ") == 1 and "`lab3 publish` brings W&B up to date" in client.errors
    server.on_request, server.faults = (lambda path, operation: None), []
    client.do("publish", "runs/r")
    client.check_whole(client.shown)


@pytest.mark.online
def test_kills_at_random_moments_lose_nothing(digits: Client) -> None:
    rng = np.random.default_rng(3)
    arguments = digits.sweep_arguments("--set", "sweep.batch_size=1")
    for _ in range(10):
        process = digits.start(*arguments)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(2, 12))
        process.kill()
        process.communicate()
        # A kill before the manifest leaves a folder that is started again.
        if (digits.run / "manifest.json").exists():
            arguments = ("resume", "runs/r")
    digits.do(*arguments)
    digits.do("publish", "runs/r")
    digits.check_whole(digits.shown)
    assert digits.do("publish", "runs/r") == digits.up_to_date


@pytest.mark.online
def test_a_wrong_key_means_offline(client: Client, server: WandbServer) -> None:
    client.sweep(WANDB_API_KEY="0" * 40)
    assert client.errors.count("warning: ") == 1 and "tracking goes on offline" in client.errors
    client.do("publish", "runs/r")
    client.check_whole()


@pytest.mark.online
def test_no_server_at_the_start_means_offline(client: Client, server: WandbServer) -> None:
    client.sweep("--set", "tracking.start_timeout_s=2.0", WANDB_BASE_URL="http://127.0.0.1:9")
    assert client.errors.count("warning: ") == 1 and "tracking goes on offline" in client.errors
    assert server.runs == {}
    client.do("publish", "runs/r")
    client.check_whole()


@pytest.mark.online
def test_the_key_is_written_nowhere(client: Client, server: WandbServer) -> None:
    client.sweep()
    client.do("publish", "runs/r")
    for path in client.folder.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path
    assert KEY not in client.errors
    assert not any(KEY.encode() in body for _, _, body in server.requests)
