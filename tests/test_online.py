"""The real client and the real command line against a stand-in server: nothing is lost, doubled or out of order."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab3.journal import read_journal
from lab3.model_files import save_model
from tests.wandb_server import KEY, Fault, WandbServer

C = 24


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with WandbServer() as running:
        yield running
        assert running.errors == []


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


class Client:
    """The command line in processes of its own, with the server's address or without."""

    def __init__(self, folder: Path, server: WandbServer) -> None:
        self.folder, self.server = folder, server
        self.run = folder / "runs" / "r"
        self.errors = ""

    def start(self, *args: Any, mode: str = "online", **environment: str) -> "subprocess.Popen[str]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        chosen = {**inherited, **self.server.environment, "WANDB_MODE": mode, **environment}
        command = [sys.executable, "-m", "lab3", *map(str, args)]
        return subprocess.Popen(
            command, cwd=self.folder, env=chosen, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def do(self, *args: Any, expect: int = 0, mode: str = "online", **environment: str) -> str:
        process = self.start(*args, mode=mode, **environment)
        output, self.errors = process.communicate(timeout=240)
        assert process.returncode == expect, output + self.errors
        return output

    def sweep(self, *args: Any, **settings: Any) -> str:
        return self.do(*self.sweep_arguments(*args), **settings)

    def sweep_arguments(self, *args: Any) -> tuple[Any, ...]:
        return ("sweep", "m.h5", "--data", "d.npz", "--run-id", "r", "--set", "tracking.finish_timeout_s=20.0", *args)

    def stop_in_sweep(self, number: signal.Signals, *args: Any, mode: str = "online", n_points: int = 3) -> int:
        """Start, send a signal after some points, and return the exit code."""
        slowly = ("--set", "sweep.batch_size=1") if args[0] == "sweep" else ()
        process = self.start(*args, *slowly, mode=mode)
        assert process.stderr is not None
        seen = 0
        for line in process.stderr:
            seen += line.startswith("sweep: ")
            if seen >= n_points:
                break
        process.send_signal(number)
        process.communicate(timeout=60)
        return process.returncode

    def check_whole(self, summary: bool = True) -> None:
        """The server holds every K once and in order, the table, pictures, artifacts, summary and state."""
        assert [row["k"] for row in read_journal(self.run / "journal.jsonl")] == list(range(C))
        found = self.server.runs["r"]
        assert [row["K"] for row in found.history] == list(range(C))
        assert [row["_step"] for row in found.history] == list(range(C))
        recorded = [(row["correct"], row["n_changed"]) for row in read_journal(self.run / "journal.jsonl")]
        assert [(row["correct"], row["n_changed"]) for row in found.history] == recorded
        assert found.history[0]["channels"]["nrows"] == C
        assert found.history[0]["feature_maps"]["_type"] == "image-file"
        assert found.history[-1]["accuracy_curve"]["_type"] == "image-file"
        for row, name in ((0, "channels"), (0, "feature_maps"), (-1, "accuracy_curve")):
            assert found.history[row][name]["path"] in found.files, name
        artifacts = [self.server.artifacts[each] for _, each in found.artifacts]
        assert {each.state for each in artifacts} == {"COMMITTED"}
        assert {each.type for each in artifacts} >= {"dataset", "model", "results"}
        (results,) = [each for each in artifacts if each.type == "results"]
        assert results.files["results.csv"] == (self.run / "results.csv").read_bytes()
        assert found.summary["baseline/correct"] == 200 and found.summary["best/accuracy"] == 1
        assert found.state == "finished"
        assert found.config["prune"]["value"]["criterion"] == "mean_activation"


@pytest.fixture
def client(work: Path, server: WandbServer) -> Client:
    return Client(work, server)


def test_an_online_run_arrives_whole_and_publishing_it_changes_nothing(client: Client, server: WandbServer) -> None:
    client.sweep()
    assert f"W&B: {server.url}" in client.errors and "warning" not in client.errors
    client.check_whole()
    before = len(server.requests)
    assert client.do("publish", "runs/r") == f"r: up to date, {C} rows\n"
    asked = {operation for _, operation, _ in server.requests[before:]}
    assert not any(operation.startswith(("Upsert", "Create", "Commit")) for operation in asked)
    client.check_whole()


def test_an_offline_run_moved_elsewhere_is_published_once(client: Client, server: WandbServer) -> None:
    client.sweep(mode="offline")
    assert server.runs == {}
    moved = client.folder / "elsewhere" / "r"
    moved.parent.mkdir()
    client.run.rename(moved)
    client.run = moved
    assert client.do("publish", "--check", moved, expect=75).startswith("r: the server has no such run")
    assert client.do("publish", moved) == f"r: sent {C} of {C} rows\n"
    client.check_whole()
    assert client.do("publish", moved) == f"r: up to date, {C} rows\n"
    client.check_whole()


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_killed_run_resumed_and_published_is_whole(client: Client, mode: str) -> None:
    assert client.stop_in_sweep(signal.SIGKILL, *client.sweep_arguments(), mode=mode) == -signal.SIGKILL
    assert client.stop_in_sweep(signal.SIGKILL, "resume", "runs/r", mode=mode, n_points=2) == -signal.SIGKILL
    client.do("resume", "runs/r", mode=mode)
    client.do("publish", "runs/r")
    client.check_whole()
    assert client.do("publish", "runs/r") == f"r: up to date, {C} rows\n"


@pytest.mark.online
@pytest.mark.parametrize("mode", ["online", "offline"])
def test_sigterm_ends_soon_as_preempting_and_loses_nothing(client: Client, server: WandbServer, mode: str) -> None:
    assert client.stop_in_sweep(signal.SIGTERM, *client.sweep_arguments(), mode=mode) == 75
    if mode == "online":
        assert server.runs["r"].state == "preempted"
        n_kept = len(read_journal(client.run / "journal.jsonl"))
        assert [row["K"] for row in server.runs["r"].history] == list(range(n_kept))
    client.do("resume", "runs/r", mode=mode)
    client.do("publish", "runs/r")
    client.check_whole()


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
    client.check_whole()
    assert client.do("publish", "runs/r") == f"r: up to date, {C} rows\n"


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
    client.check_whole()


@pytest.mark.online
def test_kills_at_random_moments_lose_nothing(client: Client) -> None:
    rng = np.random.default_rng(3)
    arguments = (*client.sweep_arguments(), "--set", "sweep.batch_size=1")
    for _ in range(10):
        process = client.start(*arguments)
        try:
            process.communicate(timeout=rng.uniform(4, 12))
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        if client.run.exists():
            arguments = ("resume", "runs/r")
    client.do("resume", "runs/r")
    client.do("publish", "runs/r")
    client.check_whole()


@pytest.mark.online
def test_a_wrong_key_means_offline(client: Client, server: WandbServer) -> None:
    client.sweep(WANDB_API_KEY="0" * 40)
    assert client.errors.count("warning: ") == 1 and "tracking goes on offline" in client.errors
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
