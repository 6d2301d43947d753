"""`lab3 compact`: what it writes, what it proves, what `lab3 verify` says of it."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from click.testing import Result

import lab3
from lab3.app.pipeline import compact_folder, compacting
from lab3.base.files import sha256_file
from lab3.inputs.data import load_dataset
from lab3.inputs.preprocess import Preprocessing
from lab3.pruning.capture import capture, image_weights
from lab3.pruning.compact import build_compact, mask_layer, measure_cost, plan_compaction, prove_compact
from lab3.pruning.rank import rank_channels
from lab3.pruning.split import split_model
from lab3.record.journal import read_journal
from tests.conftest import shared_file


@pytest.fixture(autouse=True)
def _quick_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact_folder, "TIMING_S", 0.0)


def test_a_run_gets_its_compact_model_with_a_proof(own: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("compact", own, "--k", "8", "--json")
    assert result.exit_code == 0, result.output
    printed, written = json.loads(result.stdout), json.loads((own / "compact" / "proof.json").read_text())
    assert printed == {name: value for name, value in written.items() if name != "sha256"}
    point = read_journal(own / "journal.jsonl")[8]
    (layer,) = written["layers"]
    assert (written["k"], written["chosen_by"], layer["pruned_channels"]) == (8, "k", point["pruned_channels"])
    assert written["model"] == json.loads((own / "manifest.json").read_text())["model"]["sha256"]
    proof = written["proof"]
    assert (proof["n_images"], proof["n_equal"], proof["n_tied"]) == (point["total"], point["total"], 0)
    assert proof["correct"] == point["correct"] and proof["largest_difference"] <= 1e-5

    before, after = written["before"], written["after"]
    assert (before["n_channels"], after["n_channels"], layer["constant_channels"]) == (32, 24, [])
    # Behind the layer of 16 x 9 weights a channel: normalisation, and 4 x 4 positions that 64 units read.
    assert before["parameters"] - after["parameters"] == 8 * (16 * 9 + 1 + 4 + 16 * 64)
    assert before["multiply_adds"] - after["multiply_adds"] == 8 * (64 * 16 * 9 + 16 * 64)
    assert after["file_bytes"] < before["file_bytes"] and [each["batch_size"] for each in after["speeds"]] == [1, 256]
    assert min(each["seconds"] for each in (*before["speeds"], *after["speeds"])) > 0

    folder = own / "compact"
    assert sorted(path.name for path in folder.iterdir()) == ["model.h5", "model.keras", "proof.json"]
    assert written["files"] == {name: sha256_file(folder / name) for name in ("model.h5", "model.keras")}
    assert not list(own.glob(".compact*"))
    verified = invoke("verify", own)
    assert verified.exit_code == 0 and verified.stdout == "own: intact, 32 points, 27 files\n"


def test_the_compact_model_is_keras_alone_without_an_optimiser(own: Path, invoke: Callable[..., Result]) -> None:
    assert invoke("compact", own, "--k", "16").exit_code == 0
    with zipfile.ZipFile(own / "compact" / "model.keras") as file:
        text = file.read("config.json").decode()
    assert "lab3" not in text and not json.loads(text)["compile_config"]
    images = np.random.default_rng(0).random((4, 8, 8, 1)).astype(np.float32)
    first, second = (keras.saving.load_model(own / "compact" / f"model.{each}") for each in ("keras", "h5"))
    np.testing.assert_array_equal(first(images), second(images))
    assert first.get_layer("conv2d_1").filters == 16 and getattr(first, "optimizer", None) is None


def test_the_screen_shows_what_is_saved_and_ends_with_the_folder(own: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("compact", own)
    assert result.exit_code == 0, result.output
    *_, proof, folder = lines = result.stdout.splitlines()
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines}
    certified = json.loads((own / "summary.json").read_text())["certified"]["k"]
    assert rows["channels of conv2d_1"] == ["32", str(32 - certified), f"{(32 - certified) / 32:.0%}"]
    assert {"parameters", "multiply-adds of an image", "bytes of the .keras file", "peak activation bytes"} <= set(rows)
    assert {"ms, batch 1 on cpu", "images/s, batch 1 on cpu", "ms, batch 256 on cpu"} <= set(rows)
    assert proof.startswith(
        f"proof: K={certified} (certified), 445 of 445 predictions equal, largest logit difference "
    )
    assert folder == str(own / "compact")


def test_a_rounded_width_says_what_it_costs_and_takes_the_place_of_the_earlier_model(
    own: Path, invoke: Callable[..., Result]
) -> None:
    assert invoke("compact", own, "--k", "16").exit_code == 0
    result = invoke("compact", own, "--k", "24", "--round-to", "5")
    assert result.exit_code == 0, result.output
    assert "--round-to 5 keeps 10 channels in place of 8: 2 fewer are pruned, 2,346 more parameters" in result.stdout
    written = json.loads((own / "compact" / "proof.json").read_text())
    assert (written["k"], len(written["layers"][0]["pruned_channels"]), written["after"]["n_channels"]) == (24, 22, 10)
    assert invoke("verify", own).exit_code == 0


BAD: dict[str, tuple[list[str], int, str]] = {
    "no channels": (["--k", "0"], 78, "--k must be a K of the run's schedule from 0 to 31 and above 0, got 0 (k)"),
    "not swept": (["--k", "40"], 78, "got 40 (k), which is not of the run"),
    "no number": (["--k", "many"], 2, "must be a number of channels, certified or observed, got 'many'"),
    "too wide": (["--k", "8", "--round-to", "64"], 78, "--round-to must leave fewer channels than the 32"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_writes_nothing(name: str, own: Path, invoke: Callable[..., Result]) -> None:
    options, code, text = BAD[name]
    result = invoke("compact", own, *options)
    assert result.exit_code == code and text in " ".join(result.output.split())
    assert not (own / "compact").exists() and not list(own.glob(".compact*"))


def test_without_a_certificate_a_k_must_be_given(toy: Path, invoke: Callable[..., Result]) -> None:
    result = invoke("compact", toy)
    assert result.exit_code == 78 and " ".join(result.output.split()).endswith(
        "--k certified must be a K that prunes a channel, got none, because a tolerance of 0.01 needs at least 299 "
        "images, got 4; give more images, or a tolerance of at least 0.53. Give a K, as --k 100 or --k observed"
    )
    assert invoke("compact", toy, "--k", "observed").exit_code == 0
    assert json.loads((toy / "compact" / "proof.json").read_text())["layers"][0]["pruned_channels"] == [0]


def test_other_inputs_and_unfinished_runs_are_refused(own: Path, invoke: Callable[..., Result]) -> None:
    shutil.copyfile(own / "summary.json", own.parent / "summary.json")
    (own / "summary.json").unlink()
    result = invoke("compact", own)
    assert result.exit_code == 75 and "only a finished run can be compacted" in result.output
    shutil.move(own.parent / "summary.json", own)
    model = lab3.load_model(own / "model.h5")
    model.layers[-1].bias.assign_add(np.ones(10, np.float32))
    model.save(own / "model.h5")
    result = invoke("compact", own)
    assert result.exit_code == 78 and "the model must be what the run was started with" in result.output


def test_a_model_that_does_not_match_is_not_written(
    own: Path, invoke: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_wrongly(plan: Any) -> Any:
        model = build_compact(plan)
        bias = model.get_layer("dense_1").bias
        bias.assign(bias + np.eye(10, dtype=np.float32)[3])
        return model

    monkeypatch.setattr(compacting, "build_compact", build_wrongly)
    result = invoke("compact", own, "--k", "8")
    assert result.exit_code == 65 and "it is not written" in result.output
    assert not (own / "compact").exists() and not list(own.glob(".compact*"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte of a model": (lambda path: (path / "model.h5").write_bytes(b"another"), "compact/model.h5 is not what"),
    "a missing model": (lambda path: (path / "model.keras").unlink(), "compact/model.keras is missing"),
    "no proof": (lambda path: (path / "proof.json").unlink(), "make it again with `lab3 compact"),
    "another figure": (
        lambda path: (path / "proof.json").write_text((path / "proof.json").read_text().replace('"k": 8', '"k": 16')),
        "its checksum does not fit",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_verify_finds_what_changed_of_a_compact_model(name: str, own: Path, invoke: Callable[..., Result]) -> None:
    assert invoke("compact", own, "--k", "8").exit_code == 0
    damage, text = DAMAGE[name]
    damage(own / "compact")
    result = invoke("verify", own)
    assert result.exit_code == 65 and text in result.output


@pytest.mark.large
def test_a_process_with_keras_alone_loads_it(own: Path, invoke: Callable[..., Result], tmp_path: Path) -> None:
    assert invoke("compact", own, "--k", "8").exit_code == 0
    for ending in ("keras", "h5"):
        path = own / "compact" / f"model.{ending}"
        script = (
            "import sys; sys.modules['lab3'] = None; import keras, numpy; "
            f"m = keras.saving.load_model({str(path)!r}); print(m.predict(numpy.ones((1, 8, 8, 1)), verbose=0).shape)"
        )
        done = subprocess.run([sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.strip() == "(1, 10)", done.stderr


@pytest.mark.shared
@pytest.mark.parametrize(("effect", "ks"), [("remove", (100, 230, 300, 400)), ("zero_weights", (100, 161, 300, 400))])
def test_the_vgg_is_compacted_exactly(effect: Any, ks: tuple[int, ...]) -> None:
    model = lab3.load_model(shared_file("models/vgg16_cifar10_keras2.h5"))
    test = load_dataset(str(shared_file("data/cifar10-test.zip")), "test", "rgb")
    preprocess = Preprocessing(255.0)
    split = split_model(model, effect=effect, measured="output")
    weights_n = image_weights(len(test), "images", 64)
    found = capture(split, test.images_nhwc, preprocess, weights_n=weights_n, batch_size=500, keep_features=False)
    whole = measure_cost(model, (32, 32, 3))
    for k in ks:
        plan = plan_compaction(split.anatomy, rank_channels(found.importance_c)[:k].tolist())
        compact = build_compact(plan)
        masked = mask_layer(split, plan.pruned_channels)
        proof = prove_compact(masked, compact, test.images_nhwc, test.labels_n, preprocess)
        cost = measure_cost(compact, (32, 32, 3))
        print(
            f"{effect} K={k}: {plan.n_channels} channels, {proof.n_equal} equal, {proof.largest_difference:.1e}, "
            f"{proof.correct} right, parameters {cost.parameters:,} of {whole.parameters:,}, multiply-adds "
            f"{cost.multiply_adds:,} of {whole.multiply_adds:,}"
        )
        assert (proof.n_equal, proof.n_tied) == (10_000, 0) and proof.largest_difference <= 1e-5
