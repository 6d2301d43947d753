"""What is inferred is not exact, and says so wherever its numbers are shown."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result
from keras import layers

import lab3
from lab3.app.pipeline.record import replay_record
from lab3.inputs.model_files import save_model
from lab3.record.rundir import RunDir
from lab3.record.tables import comparison_csv
from lab3.tracking import RunSettings, open_tracker
from lab3.views.drawings import draw_comparison
from tests.conftest import MakeOnce, run_lab3
from tests.folders import edit_point
from tests.reference import literal_sweep
from tests.wandb_files import read_back

N_CHANNELS, N_IMAGES, RARE = 48, 2000, (700, 1500)
WRONG = range(13, 31)  # of the rare images, behind channel 12 and before channel 30


def rare_task() -> tuple[Any, np.ndarray, np.ndarray]:
    """Two classes; channel c goes at K = c + 1. Two rare images are wrong at the K in `WRONG`, and only there.

    Scores of all others move along straight lines. A hidden unit that no other image wakes fires in the rare ones from
    the K at which channel 12 goes, which held it down, to the K at which channel 30 goes, which drives it.
    """
    inputs = keras.Input((1, 1, N_CHANNELS))
    x = layers.Conv2D(N_CHANNELS, 1, activation="relu", name="pruned")(inputs)
    x = layers.Dense(3, activation="relu", name="hidden")(layers.Flatten()(x))
    model = keras.Model(inputs, layers.Dense(2, name="scores")(x))
    model.get_layer("pruned").set_weights([np.eye(N_CHANNELS)[np.newaxis, np.newaxis], np.zeros(N_CHANNELS)])
    kernel = np.zeros((N_CHANNELS, 3))
    kernel[:, 0] = 1
    kernel[[12, 30], 1] = -200, 10
    kernel[-1, 2] = 1
    model.get_layer("hidden").set_weights([kernel, np.array([0.0, -200.0, 0.0])])
    # Class 0 has a lead that only shrinks with K; the unit gives class 1 much more than that.
    model.get_layer("scores").set_weights([np.array([[0.02, 0], [0, 0.05], [0.3, 0]]), np.zeros(2)])
    rng = np.random.default_rng(0)
    means_c = 1 + 0.1 * np.arange(N_CHANNELS)
    images_nc = means_c * rng.uniform(0.999, 1.001, (N_IMAGES, N_CHANNELS))
    images_nc[list(RARE), 30] = 50
    return model, images_nc.reshape(-1, 1, 1, N_CHANNELS).astype(np.float32), np.zeros(N_IMAGES, int)


@pytest.fixture(scope="module")
def task() -> tuple[Any, np.ndarray, np.ndarray]:
    return rare_task()


@pytest.fixture(scope="module")
def expected(task: tuple[Any, np.ndarray, np.ndarray]) -> list[int]:
    points = literal_sweep(*task, "pruned", range(N_CHANNELS), ranking="once")
    assert all(point.pruned_channels == tuple(range(point.k)) for point in points)
    return [point.correct for point in points]


def test_rare_images_that_are_wrong_between_two_k_alone_are_seen_by_exact_sweeps(
    task: tuple[Any, np.ndarray, np.ndarray], expected: list[int]
) -> None:
    assert expected == [N_IMAGES - 2 * (k in WRONG) for k in range(N_CHANNELS)]
    for shortcut in ("none", "unchanged"):
        points = list(lab3.sweep(*task, shortcut=shortcut).points.values())
        assert [point.correct for point in points] == expected
        assert {point.n_inferred for point in points} == {None}
    assert list(lab3.sweep(*task).points.values()) == points, "unchanged is the default"


def test_a_sweep_that_infers_misses_them_and_says_that_it_inferred(
    task: tuple[Any, np.ndarray, np.ndarray], expected: list[int]
) -> None:
    result = lab3.sweep(*task, shortcut="inferred")
    wrong = [point for point, correct in zip(result.points.values(), expected, strict=True) if point.correct != correct]
    # Neither is among the images run at every K, nor audited: this is how a sweep that infers can be wrong.
    assert [point.k for point in wrong] == list(WRONG)
    assert all((point.n_inferred or 0) > 1000 and (point.n_audited or 0) > 0 for point in wrong)
    assert (
        result.plot().axes[0].get_title().endswith("inferred, not exact: up to 1,733 predictions a K were not computed")
    )


def test_an_audit_of_one_of_them_has_the_block_done_again(
    task: tuple[Any, np.ndarray, np.ndarray], expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab3.pruning.engine.bisect.AUDITED_SHARE", 0.5)
    points = list(lab3.sweep(*task, shortcut="inferred").points.values())
    assert [point.correct for point in points] == expected
    assert {(point.n_inferred, point.n_audited, point.loss_se) for point in points if point.k in WRONG} == {(0, 0, 0.0)}


@pytest.fixture(scope="module")
def inferred_run(task: tuple[Any, np.ndarray, np.ndarray], make_once: MakeOnce) -> Path:
    """A finished run of the rare images, inferred, and what it printed."""
    model, images_nhwc, labels_n = task
    labels_n = labels_n.copy()
    labels_n[0] = 1  # both classes are there

    def make(folder: Path) -> None:
        save_model(model, folder / "rare.h5")
        np.savez(folder / "rare.npz", x_test=images_nhwc, y_test=labels_n)
        args = ["sweep", folder / "rare.h5", "--data", folder / "rare.npz", "--set", "data.scale=1.0", "--infer"]
        result = run_lab3(*args, "--set", "sweep.feature_maps_k=[20]", "--run-id", "rare")
        (folder / "stdout").write_text(result.stdout)
        (folder / "stderr").write_text(result.stderr)

    return make_once("rare", make) / "runs" / "rare"


def test_the_files_of_a_run_say_what_was_inferred(inferred_run: Path, invoke: Callable[..., Result]) -> None:
    with (inferred_run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "k", "n_pruned", "correct", "total", "accuracy", "loss_estimate", "loss_se", "n_inferred", "n_audited",
    ]  # fmt: skip
    assert all(int(rows[k]["n_inferred"]) > 1000 and float(rows[k]["loss_se"]) > 0 for k in WRONG)
    with (inferred_run / "metrics.csv").open() as file:
        assert [row["n_inferred"] for row in csv.DictReader(file)] == [row["n_inferred"] for row in rows]
    summary = json.loads((inferred_run / "summary.json").read_text())
    assert (summary["exact"], summary["shortcut"]) == (False, "inferred")
    assert invoke("verify", inferred_run).exit_code == 0
    stdout, stderr = ((inferred_run.parents[1] / name).read_text() for name in ("stdout", "stderr"))
    assert "est. loss  inferred" in stdout and "inferred, not exact: that many predictions were not" in stdout
    assert "sweep.shortcut is inferred: not every prediction is computed" in stderr


@pytest.mark.usefixtures("fresh_client")
def test_wandb_says_what_was_inferred(inferred_run: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    tracker = open_tracker("offline", RunSettings(tmp_path, "rare"), warnings.append)
    replay_record(RunDir(inferred_run), tracker)
    assert warnings == []
    records = read_back(tmp_path)
    points = [r["history"]["item"] for r in records if r["type"] == "history" and "K" in r["history"]["item"]]
    assert len(points) == N_CHANNELS and not any("loss" in point for point in points)
    assert all(points[k]["n_inferred"] > 1000 and points[k]["n_audited"] > 0 for k in WRONG)
    assert all(points[k]["loss_se"] > 0 and points[k]["loss_estimate"] > 0 for k in WRONG)
    summary = {}
    for record in records:
        if record["type"] == "summary":
            summary.update(record["summary"].get("update", {}))
    assert (summary["exact"], summary["shortcut"]) == (False, "inferred")
    metrics = {
        record["metric"].get("name"): record["metric"].get("step_metric")
        for record in records
        if record["type"] == "metric"
    }
    assert metrics["n_inferred"] == metrics["loss_estimate"] == "K"


@pytest.mark.renders
def test_a_comparison_names_what_was_inferred(inferred_run: Path, tmp_path: Path) -> None:
    runs = {"rare": RunDir(inferred_run)}
    (tmp_path / "comparison.csv").write_bytes(comparison_csv(runs))
    draw_comparison(tmp_path, runs)
    assert (tmp_path / "comparison.png").stat().st_size > 1_000
    with (tmp_path / "comparison.csv").open() as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"rare (inferred)"}


def test_points_that_do_not_fit_the_shortcut_are_refused(toy: Path, invoke: Callable[..., Result]) -> None:
    edit_point(toy, 2, n_inferred=1, n_audited=0, loss_se=0.0)
    result = invoke("verify", toy)
    assert "journal.jsonl is not what the run wrote" in result.stdout
    (toy / "summary.json").unlink()
    assert "K=2 must say what was inferred only where the run infers" in invoke("resume", toy).stderr
    edit_point(toy, 2, loss_se=None)
    assert "K=2 must have all of n_inferred, n_audited and loss_se, or none" in invoke("resume", toy).stderr
