"""Measure lab3 against its own limits, the best honest loop and the reports' loop, in one process, on one model.

    python benchmarks/sweep.py --model vgg16_cifar10_keras2.h5 --data cifar10-test.zip --more-data cifar10-train.zip

writes RESULTS.md and results.json beside this file. The machine should be idle. To try it, `--images 1000 --k 64 --parts
sweeps` measures some of it on fewer images and K (those in the middle), and only prints. The limit of a sweep is the time of the
matrix products behind the mixing layer, of the same shapes. They are timed again and again while the sweep goes on, as
the machine's speed changes from minute to minute; the mean counts, and their time is not the sweep's.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # tests.reference is not installed

import numpy as np

from benchmarks.bench import DEVICE, Bench, Limit, peak_mb, seconds_of
from benchmarks.loops import HonestLoop, measure_analysis, measure_honest
from benchmarks.render import render
from lab3.app.pipeline import Session, start_run
from lab3.base.backend import backend_versions, compile_function, map_blocks
from lab3.base.graph import list_layers
from lab3.config import load_config
from lab3.pruning.engine import is_tied
from lab3.record.journal import open_journal
from lab3.record.tables import row_of_point
from lab3.tracking import RunSettings, open_tracker
from lab3.tracking.events import Finished
from lab3.vocabulary import Shortcut
from tests.reference import literal_sweep

PARTS = (
    "sweeps", "literal", "capture", "random_k", "block_sizes", "threads", "command", "growth", "analysis", "memory",
)  # fmt: skip
SHORTCUTS: tuple[Shortcut, ...] = ("none", "unchanged", "inferred")


def measure_capture(bench: Bench) -> dict[str, float]:
    images_nhwc = bench.preprocess(bench.dataset.images_nhwc)
    predict = compile_function(lambda block: [bench.model(block, training=False)])
    raw_nhwc = bench.dataset.images_nhwc

    def whole_network() -> None:
        for _ in map_blocks(lambda block: predict(bench.preprocess(block)), raw_nhwc, 250):
            pass

    def model_predict() -> None:
        bench.model.predict(images_nhwc, batch_size=250, verbose=0)

    capture_s, predict_s, whole_s = (_best_of(3, action) for action in (bench.capture, model_predict, whole_network))
    return {"capture_s": capture_s, "predict_s": predict_s, "ratio": capture_s / predict_s, "whole_network_s": whole_s}


def measure_sweeps(bench: Bench, limit: Limit) -> dict[str, dict[str, Any]]:
    """Each shortcut, and the best honest loop, its predictions held against those of `none`."""
    rows: dict[str, dict[str, Any]] = {}
    exact: dict[str, Any] = {}
    loop = HonestLoop(bench.model, bench.split.layer_name, bench.dataset.images_nhwc, bench.preprocess)
    honest = measure_honest(loop, bench.steps, limit.sample)
    honest_ratio = honest["seconds"] / limit.seconds(honest["limit_samples"], bench.n, len(bench.steps))
    for shortcut in SHORTCUTS:
        done = bench.sweep(shortcut, bench.steps, limit=limit)
        limit_s = limit.seconds(done["limit_samples"], bench.n, len(bench.steps))
        exact = exact or done
        losses, exact_losses = (np.array([point.loss for point in each["points"]]) for each in (done, exact))
        rows[shortcut] = {
            "sweep_s": done["sweep_s"],
            "limit_s": limit_s,
            "ratio": done["sweep_s"] / limit_s,
            "ratio_to_fastest": done["sweep_s"]
            / limit.seconds([min(done["limit_samples"])], bench.n, len(bench.steps)),
            "first_point_s": done["first_s"],
            "n_tied": sum(point.n_tied for point in done["points"]),
            "share_run": sum(point.n_run for point in done["points"]) / done["predictions"].size,
            # The machine's speed changes from one to the next: both are counted in limits of their own time.
            "honest_over_sweep": honest_ratio / (done["sweep_s"] / limit_s),
            "n_inferred": sum(point.n_inferred or 0 for point in done["points"]),
            "loss_se_max": max(point.loss_se or 0.0 for point in done["points"]),
            "n_predictions_unlike_none": int((done["predictions"] != exact["predictions"]).sum()),
            "loss_difference_mean": float(np.abs(losses - exact_losses).mean()),
            "loss_difference_max": float(np.abs(losses - exact_losses).max()),
        }
    rows["honest loop"] = {
        "sweep_s": honest["seconds"],
        "ratio": honest_ratio,
        "n_predictions_unlike_none": int((honest["predictions"] != exact["predictions"]).sum()),
    }
    return rows


def measure_literal(bench: Bench) -> dict[str, Any]:
    """The reports' loop at five K, each ranked and evaluated by the whole network, held against the sweep."""
    numbers = [int(number) for number in np.linspace(0, len(bench.steps) - 1, 5)]
    chosen = [bench.steps[number].k for number in numbers]
    images_nhwc = bench.preprocess(bench.dataset.images_nhwc)
    start = time.perf_counter()
    reference = literal_sweep(bench.model, images_nhwc, bench.dataset.labels_n, bench.split.layer_name, chosen)
    per_k = (time.perf_counter() - start) / len(chosen)
    predictions = bench.sweep("unchanged", bench.steps)["predictions"]
    return {
        "k": chosen,
        "s_per_k": per_k,
        "extrapolated_s": per_k * len(bench.steps),
        "correct": [point.correct for point in reference],
        "n_predictions_unlike": [
            int((predictions[number] != p.predictions_n).sum()) for number, p in zip(numbers, reference, strict=True)
        ],
    }


def measure_random_k(bench: Bench, n_k: int = 20) -> dict[str, Any]:
    """Every image's prediction at K drawn at random, against weights zeroed and the whole network run."""
    predictions = bench.sweep("unchanged", bench.steps)["predictions"]
    chosen = sorted(np.random.default_rng(0).choice(len(bench.steps), n_k, replace=False).tolist())
    images_nhwc = bench.preprocess(bench.dataset.images_nhwc)
    layer = next(layer for layer in list_layers(bench.model) if layer.name == bench.split.layer_name)
    original = layer.get_weights()
    n_unlike = n_tied = 0
    for k in chosen:
        weights = [weight.copy() for weight in original]
        for weight in weights:
            weight[..., list(bench.steps[k].pruned_channels)] = 0
        layer.set_weights(weights)
        scores_nl = bench.model.predict(images_nhwc, batch_size=250, verbose=0)
        unlike_n = predictions[k] != scores_nl.argmax(axis=1)
        n_unlike += int(unlike_n.sum())
        n_tied += int(is_tied(np.log(np.maximum(scores_nl[unlike_n], 1e-30))).sum())
    layer.set_weights(original)
    return {
        "k": [bench.steps[k].k for k in chosen],
        "n_predictions": n_k * bench.n,
        "n_unlike": n_unlike,
        "n_tied_of_unlike": n_tied,
    }


def measure_block_sizes(bench: Bench, n: int = 40) -> dict[str, int]:
    """Predictions of the first images at every K that differ from those in blocks of 2,000, for each block size."""
    whole = bench.sweep("none", bench.steps, 2000)["predictions"][:, :n]
    return {
        str(size): int((bench.sweep("none", bench.steps, n, size)["predictions"] != whole).sum()) for size in (1, 7, n)
    }


def measure_threads(bench: Bench) -> dict[str, Any]:
    """The command line's counts and predictions at every eighth K, on 1 and on 2 threads."""
    results = []
    for threads in ("1", "2"):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lab3", "sweep", bench.model_path, "--data", bench.data, "--out", folder]
            settings = ["--set", "sweep.schedule=0:C:8", "--set", "sweep.save_predictions=true", "--mode", "disabled"]
            start = time.perf_counter()
            subprocess.run([*command, *settings, "--run-id", "run", "--threads", threads], check=True)
            seconds = time.perf_counter() - start
            with np.load(Path(folder) / "run" / "predictions.npz") as arrays:
                results.append((seconds, arrays["predicted"]))
    (one_s, one), (two_s, two) = results
    return {"one_s": one_s, "two_s": two_s, "n_predictions": one.size, "n_unlike": int((one != two).sum())}


def measure_command(bench: Bench, literal_s: float) -> dict[str, float]:
    """`lab3 sweep` from loading to summary, journal and offline W&B on; and what recording its points takes alone."""
    config = load_config(None, [f"model.path='{bench.model_path}'", f"data.test='{bench.data}'"])
    points = bench.sweep("unchanged", bench.steps[:72])["points"]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run = start_run(config, Session(mode="offline"), out=Path(folder), run_id="bench")
        command_s = time.perf_counter() - start
        elapsed = run.read_manifest().elapsed_s or {}
        start = time.perf_counter()
        tracker = open_tracker("offline", RunSettings(Path(folder), "record"), print)
        started_s = time.perf_counter() - start
        start = time.perf_counter()
        with open_journal(Path(folder) / "journal.jsonl", {}) as journal:
            for step, point in enumerate(points):
                journal.append(row_of_point(point))
                tracker.log(step, point)
            tracker.log(len(points), Finished({}))  # sends what is held back
        record_s = (time.perf_counter() - start) / len(points) * len(bench.steps)
        tracker.close(0)
    return {
        "command_s": command_s,
        **elapsed,
        "literal_over_command": literal_s / command_s,
        "record_s": record_s,
        "record_share_of_sweep": record_s / elapsed["sweep_s"],
        "tracker_start_s": started_s,
    }


def measure_growth(bench: Bench) -> dict[str, list[list[float]]]:
    """Seconds of sweeps without shortcut: over the number of images, and over the number of K."""
    some = bench.steps[:40]
    return {
        "images": [[n, bench.sweep("none", some, n)["sweep_s"]] for n in (bench.n // 4, bench.n // 2, bench.n)],
        "k": [
            [len(steps), bench.sweep("none", steps)["sweep_s"]] for steps in (bench.steps[:20], some, bench.steps[:80])
        ],
    }


def peak_memory_in_new_process(model: str, data: str) -> dict[str, float]:
    """Of one capture and exact sweep in a process of its own."""
    command = [sys.executable, __file__, "--model", model, "--data", data, "--only-memory"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def only_memory(model: str, data: str) -> None:
    bench = Bench(model, data)
    bench.sweep("unchanged", bench.steps[:72])
    print(json.dumps({"n_images": bench.n, "mb_above_model": peak_mb() - bench.peak_mb_of_model}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--more-data", help="a larger set of the same kind, for memory")
    parser.add_argument("--images", type=int, help="only the first so many")
    parser.add_argument("--k", type=int, help="only so many K, those in the middle")
    parser.add_argument(
        "--analysis-images", type=int, default=1000, help="the first so many, for the analysis of all layers"
    )
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--only-memory", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only_memory:
        only_memory(args.model, args.data)
        return
    bench = Bench(args.model, args.data, args.images, args.k)
    limit = Limit(bench.model)
    names = " ".join(Path(each).name if "/" in each else each for each in sys.argv[1:])
    result: dict[str, Any] = {
        "command_line": f"python benchmarks/sweep.py {names}",
        "machine": f"{os.cpu_count()} cores of {_processor()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {version}" for name, version in backend_versions().items()),
        "gpu": DEVICE if DEVICE == "gpu" else "not measured, there is none on this machine",
        "n_images": bench.n,
        "n_k": len(bench.steps),
        "limit_tflop": limit.gflop_per_image * bench.n * len(bench.steps) / 1000,
    }
    some, labels_n = bench.dataset.images_nhwc[: args.analysis_images], bench.dataset.labels_n[: args.analysis_images]
    measures: dict[str, Callable[[], Any]] = {
        "sweeps": lambda: measure_sweeps(bench, limit),
        "literal": lambda: measure_literal(bench),
        "capture": lambda: measure_capture(bench),
        "random_k": lambda: measure_random_k(bench),
        "block_sizes": lambda: measure_block_sizes(bench),
        "threads": lambda: measure_threads(bench),
        "command": lambda: measure_command(bench, result.get("literal", {}).get("extrapolated_s", float("nan"))),
        "growth": lambda: measure_growth(bench),
        "analysis": lambda: measure_analysis(bench.model, some, labels_n, bench.preprocess),
        "memory": lambda: [
            peak_memory_in_new_process(args.model, data) for data in (args.data, args.more_data) if data is not None
        ],
    }
    for name in [name for name in PARTS if name in args.parts]:
        result[name] = measures[name]()
        print(name, json.dumps(result[name]), flush=True)
    if args.images is None and args.k is None and set(args.parts) == set(PARTS):
        folder = Path(__file__).parent
        (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
        (folder / "RESULTS.md").write_text(render(result))
    print(render(result))


def _best_of(n: int, action: Callable[[], Any]) -> float:
    return min(seconds_of(action) for _ in range(n))


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
