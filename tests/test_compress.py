"""`lab3 compress`: what it chooses, certifies and writes, how it goes on after a kill, what `lab3 verify` says."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result

from lab3.app.pipeline import compact_folder
from lab3.inputs.data import load_dataset
from lab3.record.journal import decode_row, encode_row, read_journal
from tests.folders import edit_json, read_csv


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_folder, "TIMING_S", 0.0)


@pytest.fixture
def run(compressed_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(compressed_folder / "runs" / "c", tmp_path / "runs" / "c"))


def right_of(model_file: Path) -> np.ndarray:
    images = load_dataset("digits", "test")
    model = keras.saving.load_model(model_file, compile=False)
    scores_nl = keras.ops.convert_to_numpy(model(images.images_nhwc.astype(np.float32) / 16, training=False))
    return np.asarray(scores_nl.argmax(axis=1) == images.labels_n)


def test_the_smaller_network_is_within_the_budget_and_counted_as_keras_counts(
    run: Path, compressed_folder: Path, fitted_model: Path
) -> None:
    summary = json.loads((run / "summary.json").read_text())
    before_n, after_n = map(right_of, (fitted_model, run / "compact" / "model.keras"))
    assert summary["is_certified"] and summary["n_certifying"] == len(before_n) == 445
    assert summary["accuracy_before"] == before_n.mean()
    assert sum(summary["class_lost"]) == (before_n & ~after_n).sum()
    assert sum(summary["class_gained"]) == (after_n & ~before_n).sum()
    assert before_n.mean() - after_n.mean() < 0.1

    proof = json.loads((run / "compact" / "proof.json").read_text())
    assert (proof["k"], proof["chosen_by"], proof["proof"]["n_equal"]) == (None, "budget", 445)
    assert proof["proof"]["correct"] == after_n.sum()
    plan = {row["layer"]: row for row in read_csv(run / "plan.csv")}
    assert [row["n_channels"] for row in plan.values()] == ["8", "16"]
    assert {layer["name"]: len(layer["pruned_channels"]) for layer in proof["layers"]} == {
        name: int(row["n_pruned"]) for name, row in plan.items() if row["n_pruned"] != "0"
    }
    model = keras.saving.load_model(run / "compact" / "model.keras", compile=False)
    assert model.count_params() == proof["after"]["parameters"] < proof["before"]["parameters"]
    for name, row in plan.items():
        assert model.get_layer(name).bias.shape[0] == int(row["n_kept"])
    shares = [proof["after"][name] / proof["before"][name] for name in ("multiply_adds", "parameters")]
    assert summary["cost_share"] == shares[0]
    flops, parameters = (f"{100 * share:.0f} %" for share in shares)
    sentence = (
        f"{summary['n_pruned']} channels of {summary['n_layers']} layers can be removed, which leaves {flops} of the "
        f"multiply-adds and {parameters} of the parameters: accuracy falls by at most 10 points "
        "(95 % confidence, 445 images that chose nothing)."
    )
    assert (compressed_folder / "output").read_text().splitlines()[-2:] == [sentence, "runs/c"]


def test_plans_grow_and_cost_less(run: Path) -> None:
    rows = read_csv(run / "frontier.csv")
    pruned, lost, shares = ([float(row[name]) for row in rows] for name in ("n_pruned", "lost", "cost_share"))
    assert pruned[0] == lost[0] == 0 and shares[0] == 1 and len(rows) >= 3
    assert pruned == sorted(set(pruned)) and shares == sorted(shares, reverse=True) and max(lost) <= 0.1
    certified = [row["is_certified"] == "True" for row in rows]
    assert certified == sorted(certified, reverse=True) and certified[1]
    assert pruned[sum(certified) - 1] == json.loads((run / "summary.json").read_text())["n_pruned"]
    page = (run / "report.html").read_text()
    assert "the last that is certified" in page and "the one that was taken" not in page


@pytest.mark.renders
def test_the_frontier_is_drawn_again_from_the_folder(run: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    result = invoke("figures", run, "--format", "svg", "--out", tmp_path / "again")
    assert result.exit_code == 0, result.output
    (drawn,) = (tmp_path / "again").iterdir()
    assert drawn.name == "frontier.svg" and drawn.read_text().startswith("<?xml")


def as_a_kill_leaves_it(run: Path, n_rows: int) -> None:
    """With `n_rows` measurements and half of the next."""
    lines = (run / "measured.jsonl").read_bytes().splitlines(keepends=True)
    (run / "measured.jsonl").write_bytes(b"".join(lines[: n_rows + 1]) + lines[n_rows + 1][:9])
    for name in ("summary.json", "plan.csv", "frontier.csv"):
        (run / name).unlink()
    shutil.rmtree(run / "compact")


@pytest.mark.parametrize("n_rows", [1, 20])
def test_killed_it_goes_on_to_the_same_plan_and_model(n_rows: int, run: Path, invoke: Callable[..., Result]) -> None:
    names = ("measured.jsonl", "plan.csv", "frontier.csv")
    whole = [(run / name).read_bytes() for name in names]
    model = keras.saving.load_model(run / "compact" / "model.keras", compile=False)
    as_a_kill_leaves_it(run, n_rows)
    result = invoke("resume", run, "--mode", "disabled")
    assert result.exit_code == 0, result.output
    assert [(run / name).read_bytes() for name in names] == whole
    again = keras.saving.load_model(run / "compact" / "model.keras", compile=False)
    for old, new in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert invoke("verify", run).exit_code == 0


def edit_measurement(run: Path, what: str, change: Callable[[Any], Any]) -> None:
    """Another value of the last such row, with the checksum that fits it."""
    rows = [decode_row(line) for line in (run / "measured.jsonl").read_bytes().splitlines(keepends=True)]
    row = next(row for row in reversed(rows) if row is not None and row.get("what") == what)
    row["value"] = change(row["value"])
    (run / "measured.jsonl").write_bytes(b"".join(encode_row(row) for row in rows if row is not None))


def test_verify_repeats_the_choice_from_what_was_measured(run: Path, invoke: Callable[..., Result]) -> None:
    intact = invoke("verify", run)
    n_rows = len(read_journal(run / "measured.jsonl"))
    assert intact.exit_code == 0 and intact.stdout.startswith(f"c: intact, {n_rows} measurements, ")
    edit_measurement(run, "flips certifying", lambda flips: [[9] * 10, [0] * 10])
    edit_json(run / "manifest.json", lambda values: values["files"].pop("measured.jsonl"))
    result = invoke("verify", run)
    assert result.exit_code == 65 and "by the journal" in result.stdout
    repeated = invoke("rerun", run, "--mode", "disabled")
    assert repeated.exit_code == 65 and "flips certifying" in repeated.stdout


def test_without_training_images_half_of_the_test_images_choose(
    fitted_model: Path, invoke: Callable[..., Result]
) -> None:
    settings = ("--set", "data.scale=16", "--set", "prune.score_on=test", "--mode", "disabled", "--run-id", "h")
    result = invoke("compress", fitted_model, "--data", "digits", *settings, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["n_choosing"] + summary["n_certifying"], summary["path"]) == (445, "runs/h")
    # Fewer than 299 images certify nothing at a budget of one point.
    assert not summary["is_certified"] and summary["reason"].startswith("a tolerance of 0.01 needs at least 299 images")
    assert "That is not certified" in summary["sentence"] or summary["n_pruned"] == 0


BAD: dict[str, tuple[list[str], int, str]] = {
    "zero weights": (["--set", "prune.effect=zero_weights"], 78, "prune.effect must be one that compression"),
    "ranks again": (["--set", "prune.ranking=iterative"], 78, "prune.ranking must be one that compression"),
    "oracle": (["--set", "prune.criterion=oracle"], 78, "prune.criterion must be one that compression"),
    "no budget": (["--budget", "0"], 78, "--budget"),
    "no such cost": (["--for", "joules"], 2, "'joules' is not one of"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name: str, fitted_model: Path, invoke: Callable[..., Result]) -> None:
    options, code, text = BAD[name]
    result = invoke("compress", fitted_model, "--data", "digits", "--mode", "disabled", *options)
    assert result.exit_code == code and text in " ".join(result.output.split()), result.output


def test_a_model_needs_data(fitted_model: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("compress", fitted_model)
    assert result.exit_code == 2 and "Missing option '--data'" in result.output
