"""One model held against another on images: a compact one against the masked one, an exported one against Keras."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import count_gpus, fill_block, map_blocks, to_numpy
from lab3.errors import ModelError
from lab3.inputs.class_scores import compile_logits
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.capture import Preprocess
from lab3.pruning.engine import margins_of
from lab3.pruning.engine.block import Block
from lab3.pruning.joint import JointNetwork
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import Split


@dataclass(frozen=True)
class Proof:
    """Of `n_images` images `n_equal` are predicted the same by both models.

    `n_tied`: others, whose two best scores differ by rounding alone. `largest_difference`: of a score, as a share of
    the largest. `correct`: images that the tested model gets right. It `holds` where all images are equal or tied
    and scores differ by at most `tolerance`; `n_wrong` are the others.
    """

    n_images: int
    n_equal: int
    n_tied: int
    largest_difference: float
    tolerance: float
    correct: int

    @property
    def n_wrong(self) -> int:
        return self.n_images - self.n_equal - self.n_tied

    @property
    def holds(self) -> bool:
        return self.n_wrong == 0 and self.largest_difference <= self.tolerance


@dataclass(frozen=True)
class Masked:
    """A model with channels masked: `what` is pruned, in words, the logits `(n, L)` of a block of images, and how far
    rounding can move them.
    """

    what: str
    tolerance: float
    logits: Callable[[np.ndarray, Preprocess], np.ndarray]


def mask_layer(split: Split, pruned_channels: Sequence[int]) -> Masked:
    """The model of `split` with `pruned_channels` masked."""
    step = PruneStep(len(pruned_channels), tuple(pruned_channels))

    def logits(block_nhwc: np.ndarray, preprocess: Preprocess) -> np.ndarray:
        _, *features = map(to_numpy, split.trunk.run(preprocess(block_nhwc)))
        return Block(split, [step], features, len(block_nhwc), len(block_nhwc)).run_all(0)

    return Masked(f"{len(pruned_channels)} channels of {split.layer_name!r}", _tolerance(split.anatomy), logits)


def mask_network(network: JointNetwork, pruned: Sequence[Sequence[int]]) -> Masked:
    """The model of `network` with `pruned` channels of each of its layers masked."""

    def logits(block_nhwc: np.ndarray, preprocess: Preprocess) -> np.ndarray:
        return network.logits(block_nhwc, preprocess, pruned, batch_size=len(block_nhwc))

    what = f"{sum(map(len, pruned))} channels of {sum(len(channels) > 0 for channels in pruned)} layers"
    return Masked(what, _tolerance(network.anatomies[0]), logits)


def prove_compact(
    masked: Masked,
    compact: Any,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    preprocess: Preprocess,
    *,
    batch_size: int = 500,
    on_block: Callable[[int], None] = lambda n_images: None,
) -> Proof:
    """Compare `compact` with `masked`, of which it must give the logits, on every image.

    `images_nhwc` `(N, H, W, C)`, before `preprocess`; `labels_n` int `(N,)`; `on_block` gets the number of images done.
    Raises `ModelError` if a prediction differs by more than rounding, or a logit by more than 1e-5 of the largest
    logit; 1e-2 where a layer computes in 16 bits, as a GPU's products of float32 do.
    """
    size, run = min(batch_size, len(images_nhwc)), compile_logits(compact)
    blocks = map_blocks(lambda block: run(preprocess(block)), images_nhwc, size)
    scores = (
        (rows, masked.logits(fill_block(images_nhwc[rows], size), preprocess)[: rows.stop - rows.start], compact_nl)
        for rows, (compact_nl,) in blocks
    )
    proof = compare_scores(scores, labels_n, masked.tolerance, on_block)
    if not proof.holds:
        raise ModelError(
            f"the compact model must give what the model with {masked.what} pruned gives, but {proof.n_wrong} of "
            f"{proof.n_images:,} images are predicted otherwise, and logits differ by "
            f"{proof.largest_difference:.2g} of the largest, where {proof.tolerance:g} is allowed; it is not "
            "written: please report it, and keep the model as it is and its channels masked"
        )
    return proof


def compare_scores(
    blocks: Iterable[tuple[slice, np.ndarray, np.ndarray]],
    labels_n: np.ndarray,
    tolerance: float,
    on_block: Callable[[int], None],
) -> Proof:
    """Hold scores against those of a reference: each block has its rows, the reference's scores `(n, L)`, and the
    tested model's.
    """
    n_equal, correct, difference, largest = 0, 0, 0.0, 0.0
    margins: list[float] = []
    for rows, reference_nl, tested_nl in blocks:
        differs_n = tested_nl.argmax(axis=1) != reference_nl.argmax(axis=1)
        n_equal += int((~differs_n).sum())
        margins += margins_of(reference_nl)[differs_n].tolist()
        correct += int((tested_nl.argmax(axis=1) == labels_n[rows]).sum())
        # Unlike Python's own, this maximum is NaN where one of the two is.
        difference = float(np.maximum(difference, np.abs(tested_nl - reference_nl).max()))
        largest = max(largest, float(np.abs(reference_nl).max()))
        on_block(rows.stop - rows.start)
    n_tied = sum(margin <= tolerance * largest for margin in margins)
    return Proof(len(labels_n), n_equal, n_tied, difference / (largest or 1.0), tolerance, correct)


def _tolerance(anatomy: Anatomy) -> float:
    dtypes = {getattr(step.layer, "compute_dtype", None) for step in anatomy.scores.steps}
    return 1e-2 if count_gpus() or dtypes & {"float16", "bfloat16"} else 1e-5
