"""What is known of the pruned model at one K."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, repr=False)
class SweepPoint:
    """The model with `pruned_channels` pruned: `correct` of `total` images, mean cross-entropy `loss` in nats.

    `top5_correct`: images whose label is among the 5 best classes. `class_correct`: correct images of each class.
    `n_changed`: images whose predicted class is not that of K = 0. `n_tied`: images whose two best scores differ by no
    more than rounding, so that their class may be another one elsewhere. `n_run`: images whose scores were computed.
    `class_total`: images of each class; `class_lost` of them were right at K = 0 and are wrong here, `class_gained` the
    other way round. `turned_wrong` and `turned_right`: images, by number, that were not so at the K before; before the
    first K all count as right. `confusion`, where it was asked for: images of each class, by predicted class.

    Without inference the last three are None, and the scores of images that were not run were known, as their input
    was that of an earlier K. With it, `n_inferred` images have a prediction that was neither computed nor known, which
    for `n_audited` others was checked by a run, and `loss` is an estimate with the standard error `loss_se`.
    """

    k: int
    pruned_channels: tuple[int, ...]
    correct: int
    total: int
    loss: float
    top5_correct: int
    class_correct: tuple[int, ...]
    n_changed: int
    n_tied: int
    n_run: int
    class_total: tuple[int, ...]
    class_lost: tuple[int, ...]
    class_gained: tuple[int, ...]
    turned_wrong: tuple[int, ...]
    turned_right: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...] | None = None
    n_inferred: int | None = None
    n_audited: int | None = None
    loss_se: float | None = None

    def __repr__(self) -> str:
        return (
            f"SweepPoint(k={self.k}, n_pruned={self.n_pruned}, correct={self.correct}, total={self.total}, "
            f"loss={self.loss:.6g}{f', n_inferred={self.n_inferred}' if self.is_inferred else ''})"
        )

    @property
    def n_pruned(self) -> int:
        """Channels actually pruned."""
        return len(self.pruned_channels)

    @property
    def n_lost(self) -> int:
        """Images right at K = 0 and wrong here."""
        return sum(self.class_lost)

    @property
    def n_gained(self) -> int:
        """Images wrong at K = 0 and right here."""
        return sum(self.class_gained)

    @property
    def is_inferred(self) -> bool:
        """True for a point of a run that infers predictions, though perhaps none at this K."""
        return self.n_inferred is not None

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in 0..1."""
        return self.correct / self.total


def follow(right_n: np.ndarray, point: SweepPoint) -> np.ndarray:
    """Which images are right at `point`, bool `(N,)`, from those that are at the K before."""
    after_n = right_n.copy()
    after_n[list(point.turned_wrong)] = False
    after_n[list(point.turned_right)] = True
    return after_n


def is_about_chance(accuracy: float, n_labels: int) -> bool:
    """True for less than 1.5 times the accuracy of guessing: unpruned, the input may not be what the model wants."""
    return accuracy < 1.5 / n_labels


def is_tied(logits_nl: np.ndarray, tolerance: float = 1e-5) -> np.ndarray:
    """True where the two best scores differ by at most `tolerance` of the image's largest, as sums err, `(N,)`."""
    tied_n: np.ndarray = margins_of(logits_nl) <= tolerance * np.abs(logits_nl).max(axis=1)
    return tied_n


def margins_of(logits_nl: np.ndarray) -> np.ndarray:
    """By how much the best score of each image leads, `(N,)`."""
    two_best = np.partition(logits_nl, -2, axis=1)[:, -2:]
    margins_n: np.ndarray = two_best[:, 1] - two_best[:, 0]
    return margins_n


def cross_entropy(logits_nl: np.ndarray, labels_n: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of each image in nats, float64 `(N,)`."""
    shifted_nl = logits_nl.astype(np.float64)
    shifted_nl -= shifted_nl.max(axis=1, keepdims=True)
    log_sum_n = np.log(np.exp(shifted_nl).sum(axis=1))
    losses_n: np.ndarray = log_sum_n - shifted_nl[np.arange(len(labels_n)), labels_n]
    return losses_n
