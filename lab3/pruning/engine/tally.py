"""Logits of blocks of images, added up to points."""

from dataclasses import dataclass

import numpy as np

from lab3.errors import ModelError
from lab3.pruning.engine.block import BlockScores
from lab3.pruning.engine.bounds import Bounds, n_better
from lab3.pruning.engine.point import SweepPoint, cross_entropy, is_tied
from lab3.pruning.rank import PruneStep


@dataclass(frozen=True)
class Calibration:
    """Random images, by ascending number, that were run at every K of a block, and what they tell of the others."""

    rows: np.ndarray
    logits_knl: np.ndarray
    bounds: Bounds


class Tally:
    """Adds up a block of points over blocks of images; `infers` is whether the run may infer, here or elsewhere."""

    def __init__(
        self,
        labels_n: np.ndarray,
        baseline_n: np.ndarray,
        n_labels: int,
        n_steps: int,
        *,
        infers: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        self._labels_n, self._baseline_n, self._n_labels = labels_n, baseline_n, n_labels
        self._infers, self._calibration = infers, calibration
        self.predicted_kn = np.zeros((n_steps, len(labels_n)), np.uint16)
        self._loss_k = np.zeros(n_steps)
        self._missed_kn = np.zeros((n_steps, len(calibration.rows) if calibration else 0))
        self._top5_k, self._n_tied_k, self._n_run_k, self._n_inferred_k, self._n_audited_k = (
            np.zeros(n_steps, int) for _ in range(5)
        )

    def add(self, rows: slice, scores: BlockScores) -> None:
        """Add a block of images; what is known better from calibration is put into `scores`."""
        labels_n = self._labels_n[rows]
        if scores.inferred_kn is not None and scores.audited_kn is not None:
            if self._calibration is not None:
                self._put_in(self._calibration, rows, scores, scores.inferred_kn)
            self._n_inferred_k += scores.inferred_kn.sum(axis=1)
            self._n_audited_k += scores.audited_kn.sum(axis=1)
        self.predicted_kn[:, rows] = scores.logits_knl.argmax(axis=2)
        self._n_run_k += scores.was_run_kn.sum(axis=1)
        for k, logits_nl in enumerate(scores.logits_knl):
            self._loss_k[k] += cross_entropy(logits_nl, labels_n).sum()
            self._top5_k[k] += (n_better(logits_nl, labels_n) < 5).sum()
            self._n_tied_k[k] += is_tied(logits_nl).sum()

    def _put_in(self, calibration: Calibration, rows: slice, scores: BlockScores, inferred_kn: np.ndarray) -> None:
        """The runs of calibration in place of what was inferred of its images; what that missed of the loss is kept."""
        (here,) = np.nonzero((calibration.rows >= rows.start) & (calibration.rows < rows.stop))
        steps, of_p = np.nonzero(inferred_kn[:, calibration.rows[here] - rows.start])
        numbers, local = here[of_p], calibration.rows[here[of_p]] - rows.start
        labels_p, true_pl = self._labels_n[calibration.rows[numbers]], calibration.logits_knl[steps, numbers]
        read_off_p = cross_entropy(scores.logits_knl[steps, local], labels_p)
        self._missed_kn[steps, numbers] = cross_entropy(true_pl, labels_p) - read_off_p
        scores.logits_knl[steps, local] = true_pl
        scores.was_run_kn[steps, local], inferred_kn[steps, local] = True, False

    def _estimate_loss(self, number: int) -> tuple[float, float | None]:
        """The mean loss and, where the run infers, its standard error: the difference estimator.

        With ŷ the losses read off lines where an image was not run, y the true ones and s the n images of calibration,
        a simple random sample of all N, the mean is (Σ ŷ + N/n Σ_s (y - ŷ)) / N, and the square of its standard error
        (1 - n/N) S² / n with S² the sample variance of y - ŷ over s. Source: Särndal, Swensson and Wretman, Model
        Assisted Survey Sampling, 1992, section 6.3. Two things it does not know: that s also chose the bounds, and
        losses of rare images unlike all of s.
        """
        n_images, missed_n = len(self._labels_n), self._missed_kn[number]
        n = len(missed_n)
        if n == 0:
            return float(self._loss_k[number]) / n_images, 0.0 if self._infers else None
        # In the sum over all, those of s are true ones already.
        total = self._loss_k[number] + (n_images / n - 1) * missed_n.sum()
        return float(total) / n_images, float(np.sqrt((1 - n / n_images) * missed_n.var(ddof=1) / n))

    def right(self, number: int) -> np.ndarray:
        """True where the predicted class is the label, `(N,)`."""
        right_n: np.ndarray = self.predicted_kn[number] == self._labels_n
        return right_n

    def point(
        self,
        number: int,
        step: PruneStep,
        unpruned_n: np.ndarray | None,
        before_n: np.ndarray,
        with_confusion: bool = False,
    ) -> SweepPoint:
        """The point of a step; `before_n` says which images are right at the K before, `unpruned_n` which are at K = 0.

        Where the schedule lacks K = 0 that is None, and taken from the baseline.
        """
        if not np.isfinite(self._loss_k[number]):
            raise ModelError(
                f"the model's scores must be finite, got NaN or infinity at K={step.k}; check weights and data.scale"
            )
        if unpruned_n is None:
            unpruned_n = self._baseline_n == self._labels_n
        loss, loss_se = self._estimate_loss(number)
        predicted_n, right_n = self.predicted_kn[number], self.right(number)
        confusion = None
        if with_confusion:
            pairs = np.bincount(self._labels_n * self._n_labels + predicted_n, minlength=self._n_labels**2)
            confusion = tuple(tuple(row) for row in pairs.reshape(self._n_labels, self._n_labels).tolist())
        return SweepPoint(
            k=step.k,
            pruned_channels=step.pruned_channels,
            correct=int(right_n.sum()),
            total=len(self._labels_n),
            loss=loss,
            top5_correct=int(self._top5_k[number]),
            class_correct=self._by_class(right_n),
            n_changed=int((predicted_n != self._baseline_n).sum()),
            n_tied=int(self._n_tied_k[number]),
            n_run=int(self._n_run_k[number]),
            class_total=self._by_class(np.ones_like(right_n)),
            class_lost=self._by_class(unpruned_n & ~right_n),
            class_gained=self._by_class(right_n & ~unpruned_n),
            turned_wrong=tuple(np.flatnonzero(before_n & ~right_n).tolist()),
            turned_right=tuple(np.flatnonzero(right_n & ~before_n).tolist()),
            confusion=confusion,
            n_inferred=int(self._n_inferred_k[number]) if self._infers else None,
            n_audited=int(self._n_audited_k[number]) if self._infers else None,
            loss_se=loss_se,
        )

    def _by_class(self, images_n: np.ndarray) -> tuple[int, ...]:
        return tuple(np.bincount(self._labels_n[images_n], minlength=self._n_labels).tolist())
