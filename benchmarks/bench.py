"""What every part of the benchmark starts from: model, images, one capture pass, and the limit."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from lab3.base.backend import compile_function, load_backend, to_numpy, to_tensor
from lab3.vocabulary import Shortcut

DEVICE = load_backend("auto")

import keras

from lab3.base.graph import list_layers
from lab3.inputs.data import load_dataset
from lab3.inputs.model_files import load_model
from lab3.inputs.preprocess import Preprocessing
from lab3.pruning.capture import Capture, capture, image_weights
from lab3.pruning.engine import SweepPoint, sweep_points
from lab3.pruning.rank import PruneStep, plan_pruning
from lab3.pruning.split import Split, split_model

K_BLOCK = 32


class Bench:
    """The model, the images, and what one capture pass gives."""

    def __init__(self, model_path: str, data: str, n_images: int | None = None, n_k: int | None = None) -> None:
        self.model_path, self.data = model_path, data
        self.model = load_model(model_path)
        self.peak_mb_of_model = peak_mb()
        dataset = load_dataset(data, "test")
        self.dataset = replace(
            dataset, images_nhwc=dataset.images_nhwc[:n_images], labels_n=dataset.labels_n[:n_images]
        )
        self.n = len(self.dataset)
        self.preprocess = Preprocessing()
        self.split: Split = split_model(self.model, effect="zero_weights", measured="output")
        self.captured = self.capture()
        n_channels = self.split.n_channels
        steps = plan_pruning(self.captured.importance_c, self.split.pruned_map, range(n_channels), "iterative")
        first = (n_channels - (n_k or n_channels)) // 2
        self.steps = steps[first : first + (n_k or n_channels)]

    def capture(self) -> Capture:
        weights_n = image_weights(self.n, "images", 1)
        images_nhwc = self.dataset.images_nhwc
        return capture(self.split, images_nhwc, self.preprocess, weights_n=weights_n, batch_size=250)

    def sweep(
        self,
        shortcut: Shortcut,
        steps: tuple[PruneStep, ...],
        n: int | None = None,
        batch_size: int = 2000,
        limit: "Limit | None" = None,
    ) -> dict[str, Any]:
        n = n or self.n
        own, *others = self.captured.features
        predictions_kn = np.zeros((len(steps), n), np.uint16)
        points: list[SweepPoint] = []
        limit_samples: list[float] = []
        start, first_s = time.perf_counter(), 0.0
        for point in sweep_points(
            self.split, (own[:n], *others), self.dataset.labels_n[:n], steps, shortcut=shortcut,
            batch_size=batch_size, predictions_kn=predictions_kn,
        ):  # fmt: skip
            first_s = first_s or time.perf_counter() - start
            points.append(point)
            if limit is not None and (point.k - steps[0].k) % K_BLOCK == K_BLOCK - 1:
                limit_samples += limit.sample(3)
        if limit is not None and not limit_samples:
            limit_samples = limit.sample(3)
        return {
            "points": points,
            "predictions": predictions_kn,
            "first_s": first_s,
            "sweep_s": time.perf_counter() - start - sum(limit_samples),
            "limit_samples": limit_samples,
        }


class Limit:
    """The matrix products that no sweep of every image at every K avoids."""

    n_rows = 2000

    def __init__(self, model: Any) -> None:
        dense = [layer for layer in list_layers(model) if isinstance(layer, keras.layers.Dense)]
        shapes = [tuple(layer.kernel.shape) for layer in dense[1:]]
        rng = np.random.default_rng(0)
        kernels = [to_tensor(rng.normal(size=shape).astype(np.float32)) for shape in shapes]
        self._inputs = [to_tensor(rng.normal(size=(self.n_rows, rows)).astype(np.float32)) for rows, _ in shapes]
        self._products = compile_function(
            lambda *inputs: [keras.ops.matmul(x, kernel) for x, kernel in zip(inputs, kernels, strict=True)]
        )
        self.gflop_per_image = sum(2 * a * b for a, b in shapes) / 1e9
        self.sample(3)

    def sample(self, n: int) -> list[float]:
        """Seconds of the products for `n_rows` images at one K, measured `n` times."""
        return [seconds_of(lambda: to_numpy(self._products(*self._inputs)[-1])) for _ in range(n)]

    def seconds(self, samples: list[float], n_images: int, n_steps: int) -> float:
        return sum(samples) / len(samples) * n_images / self.n_rows * n_steps


def seconds_of(action: Callable[[], Any]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def peak_mb() -> float:
    """Not getrusage's: that is handed on from a parent process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM: memory is measured on Linux only")
