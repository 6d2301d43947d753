"""A compact model held against the masked one, on images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import compile_function, count_gpus, fill_block, map_blocks, to_numpy
from lab3.base.graph import flatten_model, run_steps
from lab3.errors import ModelError
from lab3.inputs.class_scores import read_class_scores
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.capture import Preprocess
from lab3.pruning.engine import is_tied
from lab3.pruning.engine.block import Block
from lab3.pruning.joint import JointNetwork
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
    size = min(batch_size, len(images_nhwc))
    step = PruneStep(len(pruned_channels), tuple(pruned_channels))

    def run_masked(block_nhwc: np.ndarray) -> np.ndarray:
        _, *features = map(to_numpy, split.trunk.run(preprocess(block_nhwc)))
        return Block(split, [step], features, size, size).run_all(0)

    comparison = _Comparison(f"{len(pruned_channels)} channels of {split.layer_name!r}", _tolerance(split.anatomy))
    comparison.run(compact, run_masked, images_nhwc, labels_n, preprocess, size, on_block)
    return comparison.finish()


def prove_joint(
    network: JointNetwork,
    compact: Any,
    pruned: Sequence[Sequence[int]],
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    on_block: Callable[[int], None] = lambda n_images: None,
) -> Proof:
    """As `prove_compact`, with `pruned` channels of each layer of `network` masked."""
    size = min(batch_size, len(images_nhwc))

    def run_masked(block_nhwc: np.ndarray) -> np.ndarray:
        return network.logits(block_nhwc, preprocess, pruned, batch_size=size)

    what = f"{sum(map(len, pruned))} channels of {sum(len(channels) > 0 for channels in pruned)} layers"
    comparison = _Comparison(what, _tolerance(network.anatomies[0]))
    comparison.run(compact, run_masked, images_nhwc, labels_n, preprocess, size, on_block)
    return comparison.finish()


class _Comparison:
    """Logits of a compact and a masked model, block by block. `what`: is pruned, in words."""

    def __init__(self, what: str, tolerance: float) -> None:
        self._what, self._tolerance = what, tolerance
        self._n_images, self._n_equal, self._n_tied, self._correct = 0, 0, 0, 0
        self._difference, self._largest = 0.0, 0.0

    def run(
        self,
        compact: Any,
        run_masked: Callable[[np.ndarray], np.ndarray],
        images_nhwc: np.ndarray,
        labels_n: np.ndarray,
        preprocess: Preprocess,
        size: int,
        on_block: Callable[[int], None],
    ) -> None:
        graph = flatten_model(compact)
        scores = read_class_scores(graph)

        def run_compact(images: Any) -> list[Any]:
            return [scores.logits(run_steps(scores.steps, {graph.input_slot: graph.feed(images)})[scores.slot])]

        run = compile_function(run_compact)
        for rows, (compact_nl,) in map_blocks(lambda block: run(preprocess(block)), images_nhwc, size):
            masked_nl = run_masked(fill_block(images_nhwc[rows], size))
            self._add(compact_nl, masked_nl[: rows.stop - rows.start], labels_n[rows])
            on_block(rows.stop - rows.start)

    def _add(self, compact_nl: np.ndarray, masked_nl: np.ndarray, labels_n: np.ndarray) -> None:
        differs_n = compact_nl.argmax(axis=1) != masked_nl.argmax(axis=1)
        self._n_images += len(labels_n)
        self._n_equal += int((~differs_n).sum())
        self._n_tied += int((differs_n & is_tied(masked_nl, self._tolerance)).sum())
        self._correct += int((compact_nl.argmax(axis=1) == labels_n).sum())
        # Unlike Python's own, this maximum is NaN where one of the two is.
        self._difference = float(np.maximum(self._difference, np.abs(compact_nl - masked_nl).max()))
        self._largest = max(self._largest, float(np.abs(masked_nl).max()))

    def finish(self) -> Proof:
        share = self._difference / (self._largest or 1.0)
        proof = Proof(self._n_images, self._n_equal, self._n_tied, share, self._tolerance, self._correct)
        n_wrong = proof.n_images - proof.n_equal - proof.n_tied
        if n_wrong or not proof.largest_difference <= self._tolerance:
            raise ModelError(
                f"the compact model must give what the model with {self._what} pruned gives, but {n_wrong} of "
                f"{proof.n_images:,} images are predicted otherwise, and logits differ by "
                f"{proof.largest_difference:.2g} of the largest, where {self._tolerance:g} is allowed; it is not "
                "written: please report it, and keep the model as it is and its channels masked"
            )
        return proof


def _tolerance(anatomy: Anatomy) -> float:
    dtypes = {getattr(step.layer, "compute_dtype", None) for step in anatomy.scores.steps}
    return 1e-2 if count_gpus() or dtypes & {"float16", "bfloat16"} else 1e-5
