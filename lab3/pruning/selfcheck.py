"""A sweep proves itself before its first point: the cut model against the whole one, on a sample of the test images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.arrays import blocks_of, read_rows
from lab3.base.backend import count_gpus, to_numpy
from lab3.errors import ModelError
from lab3.pruning.capture import Preprocess
from lab3.pruning.engine import logits_of, margins_of
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import Split

N_IMAGES = 256
_BLOCK = 64


@dataclass(frozen=True)
class SelfCheck:
    """What was compared, of `n_images` images: K = 0 with the model as it is, the other `ks` with the literal way.

    `n_tied`: images predicted otherwise because their two best scores differ by rounding alone. `largest_difference`:
    of a score, as a share of the largest score.
    """

    n_images: int
    ks: tuple[int, ...]
    n_tied: int
    largest_difference: float

    def summary(self) -> dict[str, Any]:
        """For `summary.json` and W&B."""
        return {
            "n_images": self.n_images,
            "compared": ", ".join(f"K={k}" for k in self.ks),
            "n_different": 0,  # else there is no run
            "n_tied": self.n_tied,
            "largest_difference": self.largest_difference,
        }


def check_split(
    split: Split,
    model: Any,
    features: Sequence[np.ndarray],
    images_nhwc: np.ndarray,
    preprocess: Preprocess,
    steps: Sequence[PruneStep],
    *,
    batch_size: int,
    seed: int = 0,
    on_block: Callable[[], None] = lambda: None,
) -> SelfCheck:
    """Compare the sweep's own logits, from the captured `features`, with those of the whole network.

    `images_nhwc`: the images that were captured, before `preprocess`; a sample of up to 256 is drawn with `seed`. K = 0
    is held against `model(images, training=False)`, a third and two thirds of `steps` against the network run step by
    step with zero weights or masked channels. Raises `ModelError` if a prediction differs by more than rounding, or a
    score by more than a thousandth of the largest score (3 % in float16 and on a GPU, 10 % in bfloat16).
    """
    import keras

    n = min(N_IMAGES, len(images_nhwc))
    rows = np.sort(np.random.default_rng(seed).choice(len(images_nhwc), n, replace=False))
    chosen = [PruneStep(0, ()), *_two_further(steps)]
    ours_knl = logits_of(split, features, rows, chosen, min(batch_size, len(images_nhwc)))
    scores, tolerances = split.anatomy.scores, _tolerances(split)
    whole, literal, is_sequential = [], [], isinstance(model, keras.Sequential)
    for part in blocks_of(n, _BLOCK):
        on_block()
        block_nhwc = split.anatomy.graph.feed(preprocess(read_rows(images_nhwc, rows[part])))
        # Some Functional models take their one input in a list.
        inputs = block_nhwc if is_sequential else keras.tree.pack_sequence_as(model.input, [block_nhwc])
        output = model(inputs, training=False)
        whole.append(to_numpy(scores.both_classes(keras.tree.flatten(output)[0])))
        literal.append(split.anatomy.literal_logits(block_nhwc, [step.pruned_channels for step in chosen[1:]]))
    pairs = [(to_numpy(scores.outputs(ours_knl[0])), np.concatenate(whole))]
    pairs += zip(ours_knl[1:], np.concatenate(literal, axis=1), strict=True)
    found = [
        _compare(f"K={step.k}", ours_nl, theirs_nl, tolerances, split.layer_name)
        for step, (ours_nl, theirs_nl) in zip(chosen, pairs, strict=True)
    ]
    n_tied, differences = zip(*found, strict=True)
    return SelfCheck(n, tuple(step.k for step in chosen), sum(n_tied), max(differences))


def _two_further(steps: Sequence[PruneStep]) -> list[PruneStep]:
    """The steps at a third and at two thirds of those that prune something."""
    pruning = [step for step in steps if step.pruned_channels]
    return [pruning[i] for i in sorted({len(pruning) // 3, 2 * len(pruning) // 3})] if pruning else []


def _tolerances(split: Split) -> tuple[float, float]:
    """How far scores may differ, and how near the two best may be for either to be predicted; of the largest score.

    A few roundings of the shortest numbers that are multiplied: a GPU's products of float32 are as short as float16.
    """
    dtypes = {getattr(step.layer, "compute_dtype", None) for step in split.anatomy.scores.steps}
    if "bfloat16" in dtypes:
        return 0.1, 0.05
    return (0.03, 0.01) if count_gpus() or "float16" in dtypes else (1e-3, 1e-4)


def _compare(
    at: str, ours_nl: np.ndarray, theirs_nl: np.ndarray, tolerances: tuple[float, float], layer_name: str
) -> tuple[int, float]:
    """Images predicted otherwise, all of them ties, and the largest difference of a score."""
    largest = float(np.abs(theirs_nl).max()) or 1.0
    difference = float(np.abs(ours_nl - theirs_nl).max()) / largest
    differs_n = ours_nl.argmax(axis=1) != theirs_nl.argmax(axis=1)
    n_wrong = int((differs_n & (margins_of(theirs_nl) > tolerances[1] * largest)).sum())
    if n_wrong or not difference <= tolerances[0]:
        raise ModelError(
            f"the network cut at layer {layer_name!r} must give what the whole network gives, but at {at} {n_wrong} of "
            f"{len(ours_nl)} test images are predicted otherwise, scores differ by {difference:.2g} of the largest; "
            "no number of this run could be trusted, so it ends here: please report it, and try another layer"
        )
    return int(differs_n.sum()), difference
