"""Measure the pruned model at every K: the trunk's features are fixed, so only the head runs."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lab3.backend import map_blocks
from lab3.errors import ModelError
from lab3.rank import PruneStep
from lab3.split import Split


@dataclass(frozen=True)
class SweepPoint:
    """The model with `pruned_channels` gone: `correct` of `total` images, mean cross-entropy `loss` in nats."""

    k: int
    pruned_channels: tuple[int, ...]
    correct: int
    total: int
    loss: float

    @property
    def n_pruned(self) -> int:
        """Channels actually gone."""
        return len(self.pruned_channels)

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in 0..1."""
        return self.correct / self.total


def sweep_points(
    split: Split,
    features: Sequence[np.ndarray],
    labels_n: np.ndarray,
    steps: Sequence[PruneStep],
    *,
    done: Collection[int] = (),
    batch_size: int = 1000,
) -> Iterator[SweepPoint]:
    """The points of `steps` whose K is not in `done`, in their order; nothing is printed or written.

    `features` are those of `capture`, `(N, ...)` each; `labels_n` int `(N,)`. Raises `ModelError` if an output is not
    finite.
    """
    n = len(labels_n)
    for step in steps:
        if step.k in done:
            continue
        is_pruned_c = np.zeros(split.n_channels, bool)
        is_pruned_c[list(step.pruned_channels)] = True
        correct, loss_sum = 0, 0.0
        for rows, (logits_nl,) in map_blocks(split.run_head, features, min(batch_size, n), is_pruned_c):
            correct += int((logits_nl.argmax(axis=1) == labels_n[rows]).sum())
            loss_sum += float(cross_entropy(logits_nl, labels_n[rows]).sum())
        if not np.isfinite(loss_sum):
            raise ModelError(
                f"the model's scores must be finite, got NaN or infinity at K={step.k}; check weights and data.scale"
            )
        yield SweepPoint(step.k, step.pruned_channels, correct, n, loss_sum / n)


def cross_entropy(logits_nl: np.ndarray, labels_n: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of each image in nats, float64 `(N,)`."""
    shifted_nl = logits_nl.astype(np.float64)
    shifted_nl -= shifted_nl.max(axis=1, keepdims=True)
    log_sum_n = np.log(np.exp(shifted_nl).sum(axis=1))
    losses_n: np.ndarray = log_sum_n - shifted_nl[np.arange(len(labels_n)), labels_n]
    return losses_n
