"""The same model file gives the same counts on every backend that is installed here."""

import csv
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from lab3.base.backend import load_backend
from lab3.base.devices import use_gpus
from lab3.inputs.architectures import build_model
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import save_model

BACKENDS = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]


@pytest.mark.skipif(len(BACKENDS) < 2, reason="only one Keras backend is installed; `make test-jax` needs JAX too")
def test_counts_of_the_digits_network_are_equal_on_all_backends(tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    model, train = build_model("digits_cnn"), load_dataset("digits", "train")
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy())
    model.fit(train.images_nhwc / 16, train.labels_n, epochs=8, verbose=0)
    save_model(model, tmp_path / "digits.h5")
    counts = {}
    for backend in BACKENDS:
        out = tmp_path / backend
        command = "-m lab3 sweep digits.h5 --data digits --set data.scale=16.0".split()
        environment = {**os.environ, "KERAS_BACKEND": backend}
        done = subprocess.run(
            [sys.executable, *command, "--out", out, "--run-id", "r"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        with (out / "r" / "results.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        counts[backend] = [(row["k"], row["n_pruned"], row["correct"]) for row in rows]
    assert len(counts[BACKENDS[0]]) == 32 and int(counts[BACKENDS[0]][0][2]) > 400
    for backend in BACKENDS[1:]:
        assert counts[backend] == counts[BACKENDS[0]], backend


def test_float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("reads TensorFlow's setting")
    import tensorflow

    is_enabled = tensorflow.config.experimental.tensor_float_32_execution_enabled
    load_backend("cpu")
    assert not is_enabled()
    use_gpus.cache_clear()
    monkeypatch.setenv("LAB3_ALLOW_TF32", "1")
    assert use_gpus("tensorflow") == 0 and is_enabled()
    use_gpus.cache_clear()
    monkeypatch.delenv("LAB3_ALLOW_TF32")
    use_gpus("tensorflow")
    assert not is_enabled()
