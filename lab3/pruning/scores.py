"""Score every channel by a criterion, with what the criterion needs: moments, weights, gradients or evaluations."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lab3.base.arrays import blocks_of
from lab3.base.backend import fill_block, to_numpy, to_tensor
from lab3.errors import ModelError
from lab3.pruning.capture import Capture
from lab3.pruning.criteria import OF_KERNEL, OF_MOMENTS, ChannelMoments, batchnorm_scale, random_scores
from lab3.pruning.engine import channel_losses
from lab3.pruning.split import Split
from lab3.vocabulary import Criterion

NEED_FEATURES = ("taylor", "oracle")


@dataclass(frozen=True)
class Scores:
    """`importance_c`: float64 `(C,)`, the least go first; `pruned_importance_c`: that of pruned channels."""

    importance_c: np.ndarray
    pruned_importance_c: np.ndarray


def score_channels(
    criterion: Criterion,
    split: Split,
    captured: Capture,
    labels_n: np.ndarray,
    *,
    seed: int,
    batch_size: int,
    on_block: Callable[[], None] = lambda: None,
) -> Scores:
    """The scores of `criterion` on the images of `captured` with `labels_n` int `(N,)`.

    `captured` must hold features for the criteria in `NEED_FEATURES`. `on_block` is called before each block of images
    that taylor and the oracle run. Raises `ModelError` for `batchnorm_scale` where no BatchNormalization follows the
    layer.
    """
    below_all_c = np.full(split.n_channels, -np.inf)
    if criterion in OF_MOMENTS:
        # What is removed, or whose measure is not its own, cannot be ranked again.
        pruned_c = below_all_c
        if split.anatomy.effect == "zero_weights" and not np.isnan(split.pruned_map).any():
            pruned_c = OF_MOMENTS[criterion](ChannelMoments.of_map(split.pruned_map))
        return Scores(OF_MOMENTS[criterion](captured.moments), pruned_c)
    if criterion in OF_KERNEL:
        return Scores(OF_KERNEL[criterion](split.anatomy.kernel), below_all_c)
    if criterion == "batchnorm_scale":
        if split.anatomy.batchnorm_scale_c is None:
            raise ModelError(
                f"criterion batchnorm_scale needs a BatchNormalization with a scale behind layer {split.layer_name!r}, "
                "found none; choose another criterion"
            )
        return Scores(batchnorm_scale(split.anatomy.batchnorm_scale_c), below_all_c)
    if criterion == "taylor":
        return Scores(_taylor(split, captured.features, labels_n, batch_size, on_block), below_all_c)
    if criterion == "oracle":
        return Scores(channel_losses(split, captured.features, labels_n, batch_size, on_block), below_all_c)
    return Scores(random_scores(split.n_channels, seed), below_all_c)


def cheap_scores(split: Split, captured: Capture) -> dict[str, np.ndarray]:
    """Every channel's scores `(C,)` by the criteria that take next to no time once the layer is captured."""
    scores = {name: of_moments(captured.moments) for name, of_moments in OF_MOMENTS.items()}
    scores |= {name: OF_KERNEL[name](split.anatomy.kernel) for name in ("filter_l1", "filter_l2")}
    if split.anatomy.batchnorm_scale_c is not None:
        scores["batchnorm_scale"] = batchnorm_scale(split.anatomy.batchnorm_scale_c)
    return scores


def _taylor(
    split: Split, features: Sequence[np.ndarray], labels_n: np.ndarray, batch_size: int, on_block: Callable[[], None]
) -> np.ndarray:
    """The mean over images of the absolute first-order change of the loss when a channel is pruned, `(C,)`.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
    equation 8, with the change to what a pruned channel leaves behind in place of the change to zero.
    """
    n = len(labels_n)
    size = min(batch_size, n)
    total_c = np.zeros(split.n_channels)
    if split.head.loss_gradient is None:
        raise ModelError(
            f"criterion taylor needs one place where the channels of layer {split.layer_name!r} are removed, but they "
            "are read at several; choose another criterion, or prune.effect=zero_weights"
        )
    for rows in blocks_of(n, size):
        on_block()
        own, pruned, *carried = split.read_features(features, rows)
        filled = (fill_block(each, size) for each in (own, *carried, labels_n[rows]))
        own_block, *others = (to_tensor(each) for each in filled)
        pruned_block = to_tensor(fill_block(pruned, size) if split.pruned_varies else pruned)
        (gradient,) = split.head.loss_gradient(own_block, pruned_block, *others)
        n_rows = rows.stop - rows.start
        change = to_numpy(gradient)[:n_rows].astype(np.float64) * (pruned - own)
        per_channel_nc = change.reshape(n_rows, -1, split.n_channels).sum(axis=1)
        total_c += np.abs(per_channel_nc).sum(axis=0)
    return total_c / n
