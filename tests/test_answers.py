"""What a run answers: certificate and sentence, a sweep that stops, flips, and runs that are compared."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from lab3.inputs.model_files import save_model
from lab3.record.journal import read_journal
from tests.folders import edit_json, edit_point

SENTENCE = (
    "1 of 4 channels of conv can be removed: accuracy falls by at most 2 points (95 % confidence, 400 images). "
    "No class lost accuracy."
)


@pytest.fixture
def many(tmp_path: Path, toy_model: Any, toy_images: Any) -> tuple[Any, ...]:
    """A sweep of the toy images, each a hundred times: K = 1 loses none, K = 2 a quarter, K = 3 a half."""
    images_nhwc, labels_n = toy_images
    save_model(toy_model, tmp_path / "toy.h5")
    np.savez(tmp_path / "many.npz", x_test=images_nhwc.repeat(100, axis=0), y_test=labels_n.repeat(100))
    return ("sweep", tmp_path / "toy.h5", "--data", tmp_path / "many.npz", "--set", "data.scale=1.0")


def read_summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "summary.json").read_text()))


def cut(run: Path, n_lines: int) -> None:
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (run / "journal.jsonl").write_bytes(b"".join(lines[:n_lines]))
    (run / "summary.json").unlink()


def test_the_answer_stands_before_the_folder_and_in_the_summary(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke(*many, "--tolerance", "0.02", "--run-id", "r")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2:] == [SENTENCE, "runs/r"]
    summary = read_summary(tmp_path / "runs" / "r")
    level = summary["certified"].pop("level")
    assert 0.03 < level <= 0.05
    assert summary["sentence"] == SENTENCE and summary["certified"] == {
        "k": 1, "n_pruned": 1, "share": 0.25, "tolerance": 0.02, "confidence": 0.95, "n_images": 400, "failed_k": 2,
        "reason": None,
    }  # fmt: skip
    assert summary["observed"] == {"k": 1, "n_pruned": 1, "correct": 400, "accuracy": 1.0, "share": 0.25}
    with (tmp_path / "runs" / "r" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "k", "top5_correct", "n_changed", "n_tied", "n_run", "correct_0", "correct_1", "n_lost", "n_gained", "lost_0",
        "lost_1", "gained_0", "gained_1",
    ]  # fmt: skip
    assert [(row["n_lost"], row["lost_0"], row["lost_1"], row["n_gained"]) for row in rows] == [
        ("0", "0", "0", "0"), ("0", "0", "0", "0"), ("100", "0", "100", "0"), ("200", "100", "100", "0"),
    ]  # fmt: skip
    with (tmp_path / "runs" / "r" / "certificate.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["k"], row["n_lost"], row["n_gained"], row["drop"]) for row in rows[1:3]] == [
        ("1", "0", "0", "0.000000"), ("2", "100", "0", "0.250000"),
    ]  # fmt: skip
    # Without a change the limit d solves d / (1 - d) = z^2 / 400.
    limit = 1.959964**2 / 400 / (1 + 1.959964**2 / 400)
    assert float(rows[1]["drop_high"]) == pytest.approx(limit, abs=1e-6) == -float(rows[1]["drop_low"])
    assert float(rows[1]["p"]) < level < float(rows[2]["p"])
    assert invoke("verify", tmp_path / "runs" / "r").stdout.startswith("r: intact, 4 points, ")


@pytest.mark.parametrize("saves", [False, True])
def test_a_sweep_until_certified_stops_behind_the_first_k_that_fails(
    saves: bool, many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    settings = ("--tolerance", "0.02", "--until", "certified", "--set", f"sweep.save_predictions={str(saves).lower()}")
    result = invoke(*many, *settings, "--run-id", "r", "--mode", "offline")
    assert result.exit_code == 0, result.output
    assert (
        "the sweep ends at K=2: that accuracy falls by at most 2 points cannot be certified there (100 images lost, 0 "
        "gained)"
    ) in result.stderr.replace("\n", " ")
    run = tmp_path / "runs" / "r"
    assert [row["k"] for row in read_journal(run / "journal.jsonl")] == [0, 1, 2]
    assert (read_summary(run)["sentence"], read_summary(run)["n_points"]) == (SENTENCE, 3)
    assert invoke("verify", run).stdout.startswith("r: intact, 3 points, ")
    if saves:
        with np.load(run / "predictions.npz") as saved:
            assert (saved["k"].tolist(), saved["predicted"].shape) == ([0, 1, 2], (3, 400))
    names: tuple[str, ...] = (
        "journal.jsonl",
        "results.csv",
        "metrics.csv",
        "lost.npz",
        "figures/flips.png",
        "summary.json",
    )
    names += ("predictions.npz",) * saves
    whole = {name: (run / name).read_bytes() for name in names}
    for n_lines in (1, 3, 4):
        cut(run, n_lines)
        assert invoke("verify", run).stdout == f"r: unfinished, {n_lines - 1} points, 0 files\n"
        assert invoke("resume", run, "--mode", "disabled").exit_code == 0
        assert {name: (run / name).read_bytes() for name in names} == whole
        assert invoke("verify", run).stdout.startswith("r: intact, 3 points, ")
    again = invoke("rerun", run)
    assert again.stdout.startswith("identical: 3 points\n"), again.output


def test_a_sweep_until_certified_has_no_point_behind_its_end(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke(*many, "--tolerance", "0.02", "--until", "certified", "--run-id", "r").exit_code == 0
    assert invoke(*many, "--tolerance", "0.02", "--run-id", "all").exit_code == 0
    run = tmp_path / "runs" / "r"
    last = (tmp_path / "runs" / "all" / "journal.jsonl").read_bytes().splitlines(keepends=True)[-1]
    (run / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes() + last)
    assert "K=3 must be of the schedule" in invoke("verify", run).stdout
    (run / "summary.json").unlink()
    result = invoke("resume", run)
    assert result.exit_code == 78 and "points that this sweep cannot have: K=3 must be of the schedule" in result.stderr
    cut_run = tmp_path / "runs" / "cut"
    shutil.copytree(tmp_path / "runs" / "all", cut_run)
    (cut_run / "journal.jsonl").write_bytes((run / "journal.jsonl").read_bytes().replace(last, b""))
    assert "K=3 must be there" in invoke("verify", cut_run).stdout


def test_a_sweep_until_certified_needs_what_can_be_certified(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    for other, reason in (
        (("--tolerance", "0.005"), "a tolerance of 0.005 needs at least 598 images, got 400; give more images, or a"),
        (("--tolerance", "0"), "no number of images can show that nothing at all is lost"),
        (("--criterion", "taylor"), "criterion taylor ranked the channels by the labels of the images"),
        (("--infer",), "predictions were inferred"),
    ):
        result = invoke(*many, "--until", "certified", *other)
        assert result.exit_code == 78 and "sweep.until must be all where nothing can be certified" in result.stderr
        assert reason in result.stderr.replace("\n", " "), result.stderr
        assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_a_ranking_by_the_labels_of_the_images_certifies_nothing(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke(*many, "--tolerance", "0.02", "--criterion", "taylor", "--run-id", "r")
    assert result.exit_code == 0 and "is not certified: criterion taylor ranked" in result.stdout.splitlines()[-2]
    summary = read_summary(tmp_path / "runs" / "r")
    assert summary["certified"]["k"] == 0 and summary["observed"]["k"] == 1
    assert invoke("verify", tmp_path / "runs" / "r").exit_code == 0


def test_machines_get_the_summary(many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke(*many, "--json", "--run-id", "r")
    assert json.loads(result.stdout) == {"path": "runs/r", **read_summary(tmp_path / "runs" / "r")}
    result = invoke(*many, "--json", "--criterion", "apoz", "--criterion", "filter_l1", "--run-id", "g")
    printed = json.loads(result.stdout)
    assert (printed["path"], set(printed["runs"]), set(printed["certified"])) == (
        "runs/g", {"apoz", "filter_l1"}, {"apoz", "filter_l1"},
    )  # fmt: skip


def test_runs_that_are_compared_share_the_error(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    result = invoke(
        *many, "--tolerance", "0.02", "--criterion", "mean_activation", "--criterion", "filter_l1", "--run-id", "g"
    )
    assert result.exit_code == 0, result.output
    assert (
        "certified: so many channels can be pruned and accuracy falls by at most 2 points, for all runs at once (95 % "
        "confidence, 400 images)"
    ) in result.stdout
    group = tmp_path / "runs" / "g"
    with (group / "certificates.csv").open(newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    one = read_summary(group / "g-mean_activation")
    assert rows["mean_activation"]["k"] == "1" and float(rows["mean_activation"]["level"]) == one["certified"]["level"]
    assert one["certified"]["level"] < 0.026 and "(95 % confidence for 2 sweeps at once," in one["sentence"]
    assert "n_compared: 2" in (group / "g-filter_l1" / "config.yaml").read_text()
    assert "n_compared: 1" in (group / "experiment.yaml").read_text()
    assert invoke("verify", group).exit_code == 0
    again = invoke("resume", group)
    assert again.exit_code == 0 and again.stdout.splitlines()[:-1] == result.stdout.splitlines()[:-1]


DAMAGE: dict[str, tuple[dict[str, Any], str]] = {
    "lost by class": ({"class_lost": [1, 99]}, "K=2 must have the counts that its turned images give"),
    "gained by class": ({"class_lost": [0, 101], "class_gained": [0, 1]}, "K=2 must have the counts that its turned"),
    "images of a class": ({"class_total": [101, 300]}, "K=2 must be of 400 images"),
    "an image that turned": ({"turned_wrong": list(range(100, 199))}, "K=2 must have the counts that its turned"),
    "an image that is not there": ({"turned_wrong": [10**6]}, "K=2 must name images that are there"),
    "other classes": ({"class_gained": [0]}, "K=2 must have 2 classes"),
}


@pytest.mark.parametrize(("changes", "message"), DAMAGE.values(), ids=DAMAGE)
def test_counts_that_do_not_fit_each_other_are_refused(
    changes: dict[str, Any], message: str, many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke(*many, "--run-id", "r").exit_code == 0
    run = tmp_path / "runs" / "r"
    edit_point(run, 2, **changes)
    assert message in invoke("verify", run).stdout
    (run / "summary.json").unlink()
    result = invoke("resume", run)
    assert result.exit_code == 78 and message in result.stderr, result.output


def test_an_edited_certificate_is_seen(many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path) -> None:
    assert invoke(*many, "--tolerance", "0.02", "--run-id", "r").exit_code == 0
    run = tmp_path / "runs" / "r"
    edit_json(run / "summary.json", lambda summary: summary["certified"].update(k=2))
    assert "summary.json: certified must be {'k': 1, " in invoke("verify", run).stdout
    edit_json(run / "summary.json", lambda summary: summary.update(sentence=SENTENCE.replace("1 of", "3 of")))
    assert "summary.json: sentence must be '1 of 4 channels" in invoke("verify", run).stdout


def test_a_run_of_an_earlier_version_is_refused_in_words(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke(*many, "--run-id", "r").exit_code == 0
    run = tmp_path / "runs" / "r"
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("  tolerance: 0.01\n", "  safe_drop: 0.01\n"))
    result = invoke("verify", run)
    assert result.exit_code == 65 and "sweep.safe_drop: unknown key, did you mean sweep.tolerance?" in result.stdout
    (run / "config.yaml").write_text(config)
    lines = (run / "journal.jsonl").read_bytes().splitlines(keepends=True)
    rows = read_journal(run / "journal.jsonl")
    from lab3.record.journal import encode_row

    new = ("class_total", "class_lost", "class_gained", "turned_wrong", "turned_right", "crc32")
    old = [encode_row({name: value for name, value in row.items() if name not in new}) for row in rows]
    (run / "journal.jsonl").write_bytes(b"".join([lines[0], *old]))
    (run / "summary.json").unlink()
    for command in ("verify", "resume"):
        result = invoke(command, run)
        assert "journal.jsonl cannot be read (class_total: " in result.output and "start a new run" in result.output


def test_the_images_lost_first_are_kept_with_their_pictures(
    many: tuple[Any, ...], invoke: Callable[..., Result], tmp_path: Path
) -> None:
    assert invoke(*many, "--run-id", "r").exit_code == 0
    with np.load(tmp_path / "runs" / "r" / "lost.npz") as saved:
        arrays = dict(saved)
    # K = 2 takes channel 1, by which the second hundred of images, of class 1, are told.
    assert (arrays["image"].tolist(), set(arrays["k"]), set(arrays["label"])) == (list(range(100, 124)), {2}, {1})
    assert arrays["picture"].shape == (24, 64, 64) and arrays["picture"].dtype == np.uint8
