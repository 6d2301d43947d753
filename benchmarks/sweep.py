"""Measure lab3 against its own limits and against the reports' loop, all in one process on the same model and images.

    python benchmarks/sweep.py --model vgg16_cifar10_keras2.h5 --data cifar10-test.zip

writes benchmarks/RESULTS.md and benchmarks/results.json. The machine should be idle. Ratios are of times taken one after the
other in this process; the limit is timed anew around every sweep, and the fastest of its timings counts.
"""

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from lab3.backend import backend_versions, compile_function, load_backend, map_blocks, to_tensor

DEVICE = load_backend("auto")

import keras

from lab3.capture import Capture, capture, image_weights
from lab3.config import load_config
from lab3.data import load_dataset
from lab3.engine import Shortcut, SweepPoint, sweep_points
from lab3.graph import list_layers
from lab3.model_files import load_model
from lab3.outputs import row_of_point
from lab3.pipeline import start_run
from lab3.preprocess import Preprocessing
from lab3.progress import SilentProgress
from lab3.rank import PruneStep, plan_pruning
from lab3.split import Split, split_model
from tests.reference import literal_sweep


def peak_mb() -> float:
    """Peak resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(action: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = action()
    return time.perf_counter() - start, result


class Limit:
    """The matrix products that a sweep cannot avoid: the dense layers behind the mixing layer, at every K."""

    def __init__(self, model: Any, split: Split) -> None:
        dense = [layer for layer in list_layers(model) if isinstance(layer, keras.layers.Dense)]
        shapes = [tuple(layer.kernel.shape) for layer in dense[1:]]
        self.block = 2000
        rng = np.random.default_rng(0)
        kernels = [to_tensor(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
        self._inputs = [rng.normal(size=(self.block, shape[0])).astype(np.float32) for shape in shapes]
        self._inputs = [to_tensor(inputs) for inputs in self._inputs]
        self._products = compile_function(
            lambda *inputs: [keras.ops.matmul(x, w) for x, w in zip(inputs, kernels, strict=True)]
        )
        self.flop_per_image = sum(2 * a * b for a, b in shapes)
        self._products(*self._inputs)

    def seconds(self, n_images: int, n_steps: int) -> float:
        """Time of the products for `n_images` at `n_steps` K, the fastest of five timings of 2,000 images, scaled."""
        best = min(timed(lambda: [np.asarray(y) for y in self._products(*self._inputs)])[0] for _ in range(5))
        return best * n_images / self.block * n_steps


def sweep(
    split: Split, captured: Capture, labels_n: np.ndarray, steps: tuple[PruneStep, ...], shortcut: Shortcut, **settings: Any
) -> tuple[list[SweepPoint], np.ndarray, float]:
    """(points, predicted classes, seconds until the first point)."""
    predictions_kn = np.zeros((len(steps), len(labels_n)), np.uint16)
    start, first, points = time.perf_counter(), 0.0, []
    for point in sweep_points(
        split, captured.features, labels_n, steps, shortcut=shortcut, predictions_kn=predictions_kn, **settings
    ):
        first = first or time.perf_counter() - start
        points.append(point)
    return points, predictions_kn, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()

    result: dict[str, Any] = {
        "machine": {"processor": _processor(), "n_cpus": os.cpu_count(), "device": DEVICE, "python": platform.python_version()},
        "versions": backend_versions(),
    }
    model = load_model(args.model)
    dataset = load_dataset(args.data, "test")
    preprocess = Preprocessing()
    n = len(dataset)
    split = split_model(model)
    schedule = tuple(range(split.n_channels))
    ready_mb = peak_mb()

    def run_capture() -> Capture:
        weights_n = image_weights(n, "images", 1)
        return capture(split, dataset.images_nhwc, preprocess, weights_n=weights_n, batch_size=250, cache_mb=2048)

    run_capture()
    capture_s, captured = min((timed(run_capture) for _ in range(3)), key=lambda pair: pair[0])
    predict = compile_function(lambda images_nhwc: [model(images_nhwc, training=False)])
    same_blocks_s = min(
        timed(lambda: list(map_blocks(lambda b: predict(preprocess(b)), dataset.images_nhwc, 250)))[0] for _ in range(3)
    )
    images_nhwc = preprocess(dataset.images_nhwc)
    predict_s = min(timed(lambda: model.predict(images_nhwc, batch_size=250, verbose=0))[0] for _ in range(3))
    result["capture"] = {"capture_s": capture_s, "predict_s": predict_s, "whole_network_same_blocks_s": same_blocks_s}

    limit = Limit(model, split)
    steps = plan_pruning(captured.importance_c, split.pruned_output_c, schedule, "iterative")
    result["sweeps"], predictions = {}, {}
    for shortcut in ("none", "unchanged", "margins"):
        before = limit.seconds(n, len(steps))
        sweep_s, (points, predictions[shortcut], first_s) = timed(
            lambda shortcut=shortcut: sweep(split, captured, dataset.labels_n, steps, shortcut)
        )
        limit_s = min(before, limit.seconds(n, len(steps)))
        result["sweeps"][shortcut] = {
            "sweep_s": sweep_s,
            "limit_s": limit_s,
            "ratio": sweep_s / limit_s,
            "first_point_s": first_s,
            "share_run": sum(point.n_run for point in points) / (n * len(steps)),
            "n_predictions_unlike_none": int((predictions[shortcut] != predictions["none"]).sum()),
            "max_loss_difference": 0.0,
        }
        losses = np.array([point.loss for point in points])
        if shortcut == "none":
            exact_losses = losses
        result["sweeps"][shortcut]["max_loss_difference"] = float(np.abs(losses - exact_losses).max())
    result["limit_gflops"] = limit.flop_per_image * n * len(steps) / result["sweeps"]["none"]["limit_s"] / 1e9
    result["peak_mb_above_model"] = peak_mb() - ready_mb

    chosen = [int(k) for k in np.linspace(0, split.n_channels - 1, 5)]
    literal_s, reference = timed(
        lambda: literal_sweep(model, images_nhwc, dataset.labels_n, split.layer_name, chosen)
    )
    per_k = literal_s / len(chosen)
    result["literal"] = {
        "k": chosen,
        "seconds_per_k": per_k,
        "extrapolated_s": per_k * len(steps),
        "correct": [point.correct for point in reference],
        "correct_lab3": [int((predictions["margins"][k] == dataset.labels_n).sum()) for k in chosen],
        "n_predictions_unlike": [int((predictions["margins"][p.k] != p.predictions_n).sum()) for p in reference],
    }

    overrides = [f"model.path='{args.model}'", f"data.test='{args.data}'"]
    with tempfile.TemporaryDirectory() as folder:
        command_s, run = timed(
            lambda: start_run(
                load_config(None, overrides), out=Path(folder), run_id="bench", mode="offline", progress=SilentProgress()
            )
        )
        elapsed = run.read_manifest()["elapsed_s"]
    # The same points told to the journal alone, without computing them.
    result["command"] = {
        "seconds": command_s,
        "times_faster_than_literal": per_k * len(steps) / command_s,
        **elapsed,
        "journal_bytes": len(json.dumps([row_of_point(point) for point in points])),
    }

    growth: dict[str, list[tuple[int, float]]] = {"images": [], "k": []}
    for share in (4, 2, 1):
        rows = slice(0, n // share)
        part = Capture(captured.mean_map_hwc, (captured.features[0][rows], *captured.features[1:]))
        some = steps[:72]
        growth["images"].append((n // share, timed(lambda p=part, s=some, r=rows: sweep(split, p, dataset.labels_n[r], s, "none"))[0]))
    for count in (40, 72, 136):
        growth["k"].append((count, timed(lambda c=count: sweep(split, captured, dataset.labels_n, steps[:c], "none"))[0]))
    result["growth_none_s"] = growth

    args.out.mkdir(exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    text = render(result)
    (args.out / "RESULTS.md").write_text(text)
    print(text)
