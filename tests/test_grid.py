"""Grids: which cells there are, what comes out of them, and on a real cluster of two nodes that nothing is lost."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from benchmarks.spot import Cell, simulate
from lab3.app.grid import results, work
from lab3.app.grid.plan import Plan, grid_id, make_plan, write_plan
from lab3.app.grid.work import Task, work_cell
from lab3.app.pipeline import Session
from lab3.config import Grid, load_config, load_grid
from lab3.errors import RunStateError
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import save_model
from lab3.pruning.engine import sweep_points
from lab3.record.attempts import read_attempts
from lab3.record.journal import read_journal
from lab3.record.readers import read_summary
from lab3.record.rundir import RunDir
from tests.folders import DIGITS, read_csv

RECORD = ("results.csv", "metrics.csv", "channels.csv", "scores.csv", "certificate.csv")


def plan_of(folder: Path, model: Path, **grid: Any) -> Plan:
    settings = {"model.path": str(model), "sweep.feature_maps_k": [], "data.scale": 16.0, "sweep.schedule": "0:C:4"}
    found = Grid(**{"experiment": str(DIGITS), "set": settings, **grid})
    write_plan(folder, found)
    return make_plan(folder, found, DIGITS, None, Session())


def test_cells_are_the_product_and_named_by_what_varies(fitted_model: Path, tmp_path: Path) -> None:
    vary = {"prune.layer": ["first", "conv"], "prune.criterion": ["apoz"], "seed": [1, 2]}
    plan = plan_of(tmp_path / "g", fitted_model, vary=vary)
    assert list(plan.cells) == ["first-seed1", "first-seed2", "conv-seed1", "conv-seed2"]
    config = plan.cells["conv-seed2"].config
    assert (config.prune.layer, config.prune.criterion, config.seed) == ("conv", "apoz", 2)
    assert config.sweep.n_compared == 4 and config.tracking.group == "g"
    assert plan.run_of("conv-seed2").path == tmp_path / "g" / "g-conv-seed2"
    plan = plan_of(tmp_path / "all", fitted_model, vary={"prune.layer": "all"})
    assert list(plan.cells) == ["first", "conv"]


def test_cells_that_train_the_same_network_train_it_once(tmp_path: Path) -> None:
    grid = Grid(experiment="digits", vary={"seed": [1, 2], "prune.criterion": ["apoz", "random"]})
    plan = make_plan(tmp_path / "g", grid, DIGITS, None, Session())
    kinds = [cell.kind for cell in plan.cells.values()]
    assert kinds == ["train"] * 2 + ["sweep"] * 4 and len(plan.sweeps) == 4
    first, second, *sweeps = plan.cells.values()
    assert [cell.trained for cell in sweeps] == [first.label] * 2 + [second.label] * 2


BAD: list[tuple[dict[str, Any], str]] = [
    ({"vary": {}}, "vary: must name a setting at least"),
    ({"vary": {"seed": []}}, "seed must have a list of values, and one at least"),
    ({"vary": {"seed": "all"}}, "seed must have a list of values"),
    ({"vary": {"seed": [1, 1]}}, "seed must have each value once"),
    ({"vary": {"seed": [1]}, "shrads": 2}, "shrads: unknown key, did you mean shards"),
    ({"vary": {"seed": [1]}, "cpus": 0}, "cpus: must be greater than 0"),
    ({"vary": {"prune.layr": ["a"]}}, "prune.layr: unknown key"),
    ({"vary": {"seed": list(range(200)), "sweep.batch_size": list(range(1, 100))}}, "at most 10,000 cells"),
]


@pytest.mark.parametrize(("grid", "text"), BAD)
def test_a_grid_that_cannot_be_is_refused_before_anything_is_written(
    grid: dict[str, Any], text: str, tmp_path: Path, invoke: Callable[..., Result]
) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(json.dumps({"experiment": "digits", **grid}))
    result = invoke("grid", path)
    assert result.exit_code == 78 and text in result.stderr, result.output
    assert not (tmp_path / "runs").exists()


def test_an_address_where_nobody_listens_is_refused_at_once(tmp_path: Path, invoke: Callable[..., Result]) -> None:
    (tmp_path / "grid.yaml").write_text(json.dumps({"experiment": "digits", "vary": {"seed": [1]}}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for given in (address, "127.0.0.1:99999", f"ray://{address}"):
        result = invoke("grid", tmp_path / "grid.yaml", "--address", given)
        assert result.exit_code == 78 and f"a Ray cluster that answers, got {given}: " in result.stderr, result.output
    assert not (tmp_path / "runs").exists()


def test_a_folder_holds_one_grid_and_the_same_file_has_the_same_folder(tmp_path: Path) -> None:
    grid = Grid(experiment="digits", vary={"seed": [1]})
    assert grid_id(grid, DIGITS) == grid_id(Grid(**grid.model_dump()), DIGITS)
    assert grid_id(grid, DIGITS) != grid_id(Grid(experiment="digits", vary={"seed": [2]}), DIGITS)
    write_plan(tmp_path / "g", grid)
    write_plan(tmp_path / "g", grid)
    assert load_grid(tmp_path / "g" / "grid.yaml") == grid
    with pytest.raises(RunStateError, match="is another grid"):
        write_plan(tmp_path / "g", Grid(experiment="digits", vary={"seed": [2]}))


def task_of(plan: Plan, label: str) -> Task:
    run = plan.run_of(label)
    log = plan.log_of(label)
    return Task(label, plan.cells[label].config, "sweep", plan.path, run.run_id, log, "auto", "disabled", None)


def test_a_cell_is_started_resumed_left_alone_or_fails_with_its_log(
    fitted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tmp_path / "g", fitted_model, vary={"prune.layer": ["conv", "none"]})
    task = task_of(plan, "conv")
    assert work_cell(task, {}).state == "finished"
    run = plan.run_of("conv")
    before = [(run.path / name).read_bytes() for name in RECORD]
    run.summary_json.unlink()
    assert work_cell(task, {}).state == "finished" and len(read_attempts(run)) == 2
    assert work_cell(task, {}).state == "finished" and len(read_attempts(run)) == 2
    assert [(run.path / name).read_bytes() for name in RECORD] == before
    failed = work_cell(task_of(plan, "none"), {})
    assert (failed.state, failed.exit_code) == ("failed", 78) and "'none'" in failed.message
    assert failed.message in plan.log_of("none").read_text()

    with monkeypatch.context() as patch:
        patch.setattr(work, "resume_run", lambda *args, **named: 1 // 0)
        broken = work_cell(task, {})
    assert (broken.state, broken.exit_code) == ("failed", 1)
    assert "ZeroDivisionError" in plan.log_of("conv").read_text()


def test_cells_of_one_process_that_take_other_outputs_of_a_file_do_not_share_its_model(tmp_path: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(images))
    outputs = [keras.layers.Dense(10, activation="softmax", name=name)(features) for name in ("one", "two")]
    save_model(keras.Model(images, outputs), tmp_path / "two.h5")
    plan = plan_of(tmp_path / "g", tmp_path / "two.h5", vary={"model.output": ["one", "two"]})
    assert [work_cell(task_of(plan, label), {}).state for label in plan.cells] == ["finished"] * 2
    one, two = (read_summary(plan.run_of(label))["baseline"]["correct"] for label in plan.cells)
    digits = load_dataset("digits", "test")
    scores = keras.Model(images, outputs).predict(digits.images_nhwc / np.float32(16), verbose=0)
    assert [one, two] == [int((each.argmax(axis=1) == digits.labels_n).sum()) for each in scores] and one != two


def test_results_are_those_of_the_cells(fitted_model: Path, tmp_path: Path, invoke: Callable[..., Result]) -> None:
    vary = {"prune.layer": ["first", "conv"], "seed": [1, 2]}
    plan = plan_of(tmp_path / "g", fitted_model, vary=vary)
    for label in plan.cells:
        assert work_cell(task_of(plan, label), {}).state == "finished"
    rows, winner = results.write_results(plan)
    table = read_csv(plan.path / "grid.csv")
    assert [row["layer"] for row in table] == [row.layer for row in rows] and len(rows) == 2
    shares = {row["run"]: float(row["share"]) for row in read_csv(plan.path / "certificates.csv")}
    for row in rows:
        of_seeds = [shares[f"{row.layer}-seed{seed}"] for seed in (1, 2)]
        assert (row.n_seeds, row.certified_share) == (2, pytest.approx(np.mean(of_seeds), abs=1e-6))
        assert row.certified_share_sd == pytest.approx(np.std(of_seeds, ddof=1), abs=1e-6)
        baseline = read_summary(plan.run_of(f"{row.layer}-seed1"))["baseline"]["accuracy"]
        assert row.accuracy_0 == pytest.approx(baseline, abs=1e-6)
    assert shares[winner.label] == max(shares.values()) and set(winner.p) == set(shares) - {winner.label}
    page = json.loads((plan.path / "report.json").read_text())
    assert (page["kind"], len(page["members"])) == ("group", 4)
    assert {row["path"] for row in json.loads(invoke("runs", tmp_path / "g", "--json").stdout)} == {
        f"g-{label}" for label in plan.cells
    }


def test_a_block_computed_elsewhere_is_the_block_computed_here(fitted_model: Path, rng: np.random.Generator) -> None:
    from lab3.inputs.model_files import load_model
    from lab3.inputs.preprocess import Preprocessing
    from lab3.pruning.capture import capture, image_weights
    from lab3.pruning.rank import plan_pruning
    from lab3.pruning.split import split_model

    config = load_config(None, ["data.scale=16.0", "prune.layer=conv", "sweep.shortcut=inferred"])
    images = load_dataset("digits", "train")
    split = split_model(load_model(str(fitted_model)), "conv")
    weights_n = image_weights(len(images), "images", 1)
    captured = capture(split, images.images_nhwc, Preprocessing(16.0, 0.0, 1.0), weights_n=weights_n, batch_size=250)
    steps = plan_pruning(rng.normal(size=16), np.zeros(16), range(16), "once")
    arguments = (split, captured.features, images.labels_n, steps)
    here = list(sweep_points(*arguments, shortcut="inferred"))

    def elsewhere(blocks: Any) -> Iterator[Any]:
        for block in blocks:
            yield work.tally_block(config, str(fitted_model), captured.features, images.labels_n, steps, block, None)

    there = list(sweep_points(*arguments, shortcut="inferred", tally_blocks=elsewhere))
    assert there == here and len(here) == 16
    # Also where some points are known, and only the blocks that lack one are computed.
    asked: list[range] = []

    def noted(blocks: Any) -> Iterator[Any]:
        asked.extend(blocks)
        return elsewhere(blocks)

    rest = list(sweep_points(*arguments, shortcut="inferred", done=here[:8], tally_blocks=noted))
    assert rest == here[8:] and asked == [range(8, 16)]


def test_a_simulated_grid_keeps_the_laws_of_work() -> None:
    cell = Cell(before_s=60.0, sweep_s=400.0, block_s=25.0)
    quiet = simulate(10, 4, cell, 1e12, 0.0, 0)
    # Three rounds of four machines.
    assert (quiet.hours, quiet.n_preemptions) == (pytest.approx(3 * 460 / 3600), 0)
    assert quiet.machine_hours == pytest.approx(10 * 460 / 3600) and quiet.wasted_hours == pytest.approx(0)
    lost = simulate(50, 4, cell, 600.0, 60.0, 0)
    restarted = simulate(50, 4, cell, 600.0, 60.0, 0, resumes=False)
    assert lost.n_preemptions > 5 and 0 < lost.wasted_hours < restarted.wasted_hours
    # Of each preemption at most a start and a block are done again.
    assert lost.wasted_hours <= lost.n_preemptions * (60 + 25) / 3600


# From here on a real cluster: two nodes of one core each on this machine.


def narrow_vgg(folder: Path) -> Path:
    """A network of 13 convolutions, as VGG-16, that knows the digits."""
    import keras

    keras.utils.set_random_seed(0)
    layers: list[Any] = [keras.Input((8, 8, 1))]
    for number, width in enumerate((4, 4, 6, 6, 8, 8, 8, 12, 12, 12, 12, 12, 12), start=1):
        layers += [keras.layers.Conv2D(width, 3, padding="same", name=f"conv{number}")]
        layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
        layers += [keras.layers.MaxPooling2D(2)] * (number in (2, 4))
    model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    digits = load_dataset("digits", "train")
    model.fit(digits.images_nhwc / np.float32(16), digits.labels_n, epochs=8, verbose=0)
    save_model(model, folder / "vgg.h5")
    return folder / "vgg.h5"


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return narrow_vgg(tmp_path_factory.mktemp("vgg"))


@contextmanager
def two_nodes() -> Iterator[Any]:
    pytest.importorskip("ray", reason="the package ray is not here: pip install -e '.[test,grid]'")
    from ray.cluster_utils import Cluster

    os.environ["RAY_AUTH_MODE"] = "disabled"
    store = {"num_cpus": 1, "object_store_memory": 256 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=store)
    try:
        cluster.add_node(**store)
        yield cluster
    finally:
        cluster.shutdown()


def write_grid(path: Path, model: Path, **grid: Any) -> Path:
    values = {
        "experiment": str(DIGITS),
        "set": {"model.path": str(model), "sweep.feature_maps_k": [], "data.scale": 16.0},
        "vary": {
            "prune.layer": [f"conv{number}" for number in range(1, 14)],
            "prune.criterion": ["mean_activation", "filter_l1"],
        },
        **grid,
    }
    path.write_text(json.dumps(values))
    return path


def start_lab3(*args: object) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-m", "lab3", *map(str, args)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish_grid(*args: object, expect: int = 0) -> tuple[str, str]:
    process = start_lab3("grid", *args)
    output, errors = process.communicate(timeout=900)
    assert process.returncode == expect, errors[-3000:]
    return output, errors


def records_of(grid: Path) -> dict[str, dict[str, bytes]]:
    runs = [RunDir(path) for path in sorted(grid.glob(f"{grid.name}-*"))]
    return {
        run.run_id.removeprefix(grid.name): {name: (run.path / name).read_bytes() for name in RECORD}
        | {"points": json.dumps(read_journal(run.journal_jsonl)).encode()}
        for run in runs
        if run.is_finished
    }


def grids_in(folder: Path) -> Path:
    (path,) = folder.glob("grid-*")
    return path


def processes_of(marks: tuple[str, ...]) -> list[int]:
    """Ids of processes whose command has one of the marks."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if int(path.name) != os.getpid() and any(mark in command for mark in marks):
            found.append(int(path.name))
    return found


@pytest.mark.cluster
def test_killed_workers_nodes_and_drivers_leave_the_same_results(vgg: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "grid.yaml", vgg)
    with two_nodes() as cluster:
        finish_grid(grid, "--address", cluster.address, "--out", tmp_path / "quiet")
    expected = records_of(grids_in(tmp_path / "quiet"))
    assert len(expected) == 26
    # A cell that nobody had to start again was started once.
    quiet = [read_attempts(RunDir(path)) for path in grids_in(tmp_path / "quiet").glob("grid-*")]
    assert [len(each) for each in quiet] == [1] * 26

    rng = random.Random(0)
    out = tmp_path / "killed"
    process = None

    def n_finished() -> int:
        return len(list(out.glob("grid-*/grid-*/summary.json")))

    with two_nodes() as cluster:
        for kind in ("worker", "node", "driver") * 3:
            if process is None:
                process = start_lab3("grid", grid, "--address", cluster.address, "--out", out)
            n_awaited = n_finished() + rng.randrange(1, 3)
            while n_finished() < n_awaited or not processes_of(("ray::work_cell",)):
                assert process.poll() is None, "there must be cells left when it is killed"
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=rng.random())
            if kind == "worker":
                os.kill(rng.choice(processes_of(("ray::work_cell",))), signal.SIGKILL)
            elif kind == "node":
                cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
                cluster.add_node(num_cpus=1, object_store_memory=256 * 2**20)
            else:
                process.kill()
                process.communicate()
                process = None
        finish_grid(grid, "--address", cluster.address, "--out", out)
    found = records_of(grids_in(out))
    assert found == expected
    attempts = [len(read_attempts(RunDir(path))) for path in grids_in(out).glob("grid-*")]
    # Each kill breaks off at most one cell of each worker: one of a worker or a node of one core, two of a command.
    assert len(attempts) == 26 and 0 < sum(attempts) - 26 <= 3 * 1 + 3 * 1 + 3 * 2
    deadline_s = time.monotonic() + 60
    while (left := processes_of(("ray::", "raylet", "gcs_server"))) and time.monotonic() < deadline_s:
        signal.sigtimedwait([], 0.5)
    assert not left


@pytest.mark.cluster
def test_a_cell_that_fails_takes_no_other_with_it(vgg: Path, tmp_path: Path) -> None:
    vary = {"prune.layer": ["conv12", "none", "conv13"], "prune.criterion": ["mean_activation", "filter_l1"]}
    grid = write_grid(tmp_path / "grid.yaml", vgg, vary=vary)
    with two_nodes() as cluster:
        output, errors = finish_grid(grid, "--address", cluster.address, "--out", tmp_path / "runs", expect=78)
    path = grids_in(tmp_path / "runs")
    assert len(records_of(path)) == 4 and errors.count("failed: none-") == 2
    log = path / "logs" / "none-filter_l1.log"
    assert str(log) in errors and "'none'" in log.read_text()
    assert "Best of 4" in output


@pytest.mark.cluster
def test_a_sweep_in_shards_has_the_bytes_of_one_process(vgg: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "grid.yaml", vgg, vary={"prune.layer": ["conv13"]}, shards=4)
    with two_nodes() as cluster:
        finish_grid(grid, "--address", cluster.address, "--out", tmp_path / "shards")
    (sharded,) = records_of(grids_in(tmp_path / "shards")).values()
    settings = ("--set", "data.scale=16.0", "--set", "sweep.tolerance=0.05", "--set", "sweep.feature_maps_k=[]")
    # Sums depend on the number of threads, which is that of a worker's cores.
    command = ("sweep", vgg, "--data", "digits", "--layer", "conv13", *settings, "--run-id", "one", "--threads", "1")
    process = start_lab3(*command)
    assert process.communicate() and process.returncode == 0
    run = RunDir(tmp_path / "runs" / "one")
    assert {name: sharded[name] for name in RECORD} == {name: (run.path / name).read_bytes() for name in RECORD}
