"""A compact model held against the masked one, on images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import compile_function, count_gpus, map_blocks
from lab3.base.graph import flatten_model, run_steps
from lab3.errors import ModelError
from lab3.inputs.class_scores import read_class_scores
from lab3.pruning.capture import Preprocess
from lab3.pruning.engine import is_tied
from lab3.pruning.engine.block import Block
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import Split


@dataclass(frozen=True)
class Proof:
    """Of `n_images` images `n_equal` are predicted the same by the compact and the masked model.

    `n_tied`: the others, whose two best scores differ by rounding alone. `largest_difference`: of a logit, as a share
    of the largest; at most `tolerance`. `correct`: images that the compact model gets right.
    """

    n_images: int
    n_equal: int
    n_tied: int
    largest_difference: float
    tolerance: float
    correct: int


def prove_compact(
    split: Split,
    compact: Any,
    pruned_channels: Sequence[int],
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    on_block: Callable[[int], None] = lambda n_images: None,
) -> Proof:
    """Compare `compact` with the model of `split` where `pruned_channels` are masked, on every image.

    `images_nhwc` `(N, H, W, C)`, before `preprocess`; `labels_n` int `(N,)`; `on_block` gets the number of images done.
    Raises `ModelError` if a prediction differs by more than rounding, or a logit by more than 1e-5 of the largest
    logit; 1e-2 where a layer computes in 16 bits, as a GPU's products of float32 do.
    """
    graph = flatten_model(compact)
    scores = read_class_scores(graph)

    def run_compact(images: Any) -> list[Any]:
        return [scores.logits(run_steps(scores.steps, {graph.input_slot: graph.feed(images)})[scores.slot])]

    run, tolerance = compile_function(run_compact), _tolerance(split)
    size = min(batch_size, len(images_nhwc))
    step = PruneStep(len(pruned_channels), tuple(pruned_channels))
    n_equal, n_tied, correct, difference, largest = 0, 0, 0, 0.0, 0.0

    def run_both(block_nhwc: np.ndarray) -> list[Any]:
        inputs = preprocess(block_nhwc)
        return [*run(inputs), *split.trunk.run(inputs)]

    for rows, (compact_nl, _, *features) in map_blocks(run_both, images_nhwc, size):
        masked_nl = Block(split, [step], features, size, size).run_all(0)
        differs_n = compact_nl.argmax(axis=1) != masked_nl.argmax(axis=1)
        n_equal += int((~differs_n).sum())
        n_tied += int((differs_n & is_tied(masked_nl, tolerance)).sum())
        correct += int((compact_nl.argmax(axis=1) == labels_n[rows]).sum())
        # Unlike Python's own, this maximum is NaN where one of the two is.
        difference = float(np.maximum(difference, np.abs(compact_nl - masked_nl).max()))
        largest = max(largest, float(np.abs(masked_nl).max()))
        on_block(rows.stop - rows.start)
    proof = Proof(len(images_nhwc), n_equal, n_tied, difference / (largest or 1.0), tolerance, correct)
    if proof.n_equal + proof.n_tied < proof.n_images or not proof.largest_difference <= tolerance:
        n_wrong = proof.n_images - proof.n_equal - proof.n_tied
        raise ModelError(
            f"the compact model must give what the model with {len(pruned_channels)} channels of "
            f"{split.layer_name!r} pruned gives, but {n_wrong} of {proof.n_images:,} images are predicted otherwise, "
            f"and logits differ by {proof.largest_difference:.2g} of the largest, where {tolerance:g} is allowed; "
            "it is not written: please report it, and keep the model as it is and its channels masked"
        )
    return proof


def _tolerance(split: Split) -> float:
    dtypes = {getattr(step.layer, "compute_dtype", None) for step in split.anatomy.scores.steps}
    return 1e-2 if count_gpus() or dtypes & {"float16", "bfloat16"} else 1e-5
