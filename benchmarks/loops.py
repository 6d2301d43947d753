"""What lab3 is held against besides its limit: the best honest loop, and an analysis of every layer in AIMET's manner."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import compile_function, map_blocks, to_numpy, to_tensor
from lab3.base.graph import list_layers
from lab3.pruning.capture import capture_layers, image_weights
from lab3.pruning.criteria import filter_l1
from lab3.pruning.engine import sweep_points
from lab3.pruning.layers import prunable_layers
from lab3.pruning.rank import PruneStep, plan_pruning
from lab3.pruning.split import split_model

Preprocess = Callable[[np.ndarray], np.ndarray]


@dataclass
class HonestLoop:
    """The loop that somebody writes who knows what is repeated: for a Sequential model, one layer.

    The pruned layer's output is computed once and kept, everything behind it is compiled, and for each K the channels
    gone are set to 0 and all images run, in blocks as large as serve best. Nothing is carried over from one K to the
    next, and no image is left out.
    """

    model: Any
    layer_name: str
    images_nhwc: np.ndarray
    preprocess: Preprocess
    batch_size: int = 2000

    def __post_init__(self) -> None:
        layers = list_layers(self.model)
        at = next(number for number, layer in enumerate(layers) if layer.name == self.layer_name)
        before, behind = layers[: at + 1], layers[at + 1 :]

        def run(some: Sequence[Any], tensor: Any) -> Any:
            for layer in some:
                tensor = layer(tensor, training=False)
            return tensor

        self._head = compile_function(lambda block, kept_c: [run(behind, block * kept_c)])
        prefix = compile_function(lambda block: [run(before, block)])
        blocks = map_blocks(lambda block: prefix(self.preprocess(block)), self.images_nhwc, 250)
        output = np.concatenate([output for _, (output,) in blocks])
        self._n_channels = output.shape[-1]
        self._blocks = [to_tensor(output[i : i + self.batch_size]) for i in range(0, len(output), self.batch_size)]

    def predict(self, step: PruneStep) -> np.ndarray:
        """The class of every image at one K, `(N,)`."""
        kept_c = np.ones(self._n_channels, np.float32)
        kept_c[list(step.pruned_channels)] = 0
        return np.concatenate([to_numpy(self._head(block, kept_c)[0]).argmax(axis=1) for block in self._blocks])


def measure_honest(
    loop: HonestLoop, steps: Sequence[PruneStep], sample_limit: Callable[[int], list[float]], k_block: int = 32
) -> dict[str, Any]:
    """Seconds of the loop over `steps`, the limit sampled in between, and its predictions `(K, N)`."""
    loop.predict(steps[0])
    limit_samples: list[float] = []
    predictions, start = [], time.perf_counter()
    for number, step in enumerate(steps):
        predictions.append(loop.predict(step))
        if number % k_block == k_block - 1:
            limit_samples += sample_limit(3)
    seconds = time.perf_counter() - start - sum(limit_samples)
    limit_samples = limit_samples or sample_limit(3)
    return {"seconds": seconds, "limit_samples": limit_samples, "predictions": np.array(predictions)}


def measure_analysis(
    model: Any, images_nhwc: np.ndarray, labels_n: np.ndarray, preprocess: Preprocess, n_levels: int = 10
) -> dict[str, Any]:
    """Accuracy of every layer at ten ratios, as AIMET's analysis of sensitivity to channel pruning has it.

    There, the layer's channels of the smallest norm are pruned at each ratio and the whole network is evaluated. lab3
    captures all layers in one pass and runs what follows each. Both rank by `filter_l1`; the counts must be equal.
    """
    found = prunable_layers(model)
    splits = [split_model(model, layer.name, effect="zero_weights", measured="output") for layer in found]
    plans = []
    for split in splits:
        ks = sorted({round(level / n_levels * split.n_channels) for level in range(n_levels)})
        plans.append(plan_pruning(filter_l1(split.anatomy.kernel), np.zeros(split.n_channels), ks, "once"))
    start = time.perf_counter()
    weights_n = image_weights(len(labels_n), "images", 1)
    captured = capture_layers(splits, images_nhwc, preprocess, weights_n=weights_n, batch_size=250, cache_mb=64)
    ours = [
        [point.correct for point in sweep_points(split, each.features, labels_n, steps, batch_size=250)]
        for split, each, steps in zip(splits, captured, plans, strict=True)
    ]
    ours_s = time.perf_counter() - start
    predict = compile_function(lambda block: [model(block, training=False)])
    start = time.perf_counter()
    theirs = [
        [_count(model, layer, step, images_nhwc, labels_n, preprocess, predict) for step in steps]
        for layer, steps in zip(found, plans, strict=True)
    ]
    return {
        "n_images": len(labels_n),
        "n_layers": len(found),
        "n_evaluations": sum(map(len, plans)),
        "lab3_s": ours_s,
        "whole_network_s": time.perf_counter() - start,
        "n_counts_unlike": sum(
            a != b for one, other in zip(ours, theirs, strict=True) for a, b in zip(one, other, strict=True)
        ),
    }


def _count(
    model: Any,
    layer: Any,
    step: PruneStep,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    preprocess: Preprocess,
    predict: Callable[..., list[Any]],
) -> int:
    """Correct images with a layer's channels set to 0, the whole network run."""
    original = layer.get_weights()
    weights = [weight.copy() for weight in original]
    for weight in weights:
        weight[..., list(step.pruned_channels)] = 0
    layer.set_weights(weights)
    blocks = map_blocks(lambda block: predict(preprocess(block)), images_nhwc, 250)
    n_correct = sum(int((scores.argmax(axis=1) == labels_n[rows]).sum()) for rows, (scores,) in blocks)
    layer.set_weights(original)
    return n_correct
