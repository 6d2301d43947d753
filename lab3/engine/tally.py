"""Logits of blocks of images, added up to points."""

from dataclasses import dataclass

import numpy as np

from lab3.engine.bounds import Bounds
from lab3.engine.point import SweepPoint, cross_entropy, is_tied
from lab3.errors import ModelError
from lab3.rank import PruneStep


@dataclass(frozen=True)
class Calibration:
    """Images, by ascending number, that were run at every K of a block, and what they tell of all the others."""

    rows: np.ndarray
    logits_knl: np.ndarray
    bounds: Bounds


class Tally:
    """Adds up a block of points over blocks of images."""

    def __init__(
        self,
        labels_n: np.ndarray,
        baseline_n: np.ndarray,
        n_labels: int,
        n_steps: int,
        calibration: Calibration | None = None,
    ) -> None:
        self._labels_n, self._baseline_n, self._n_labels = labels_n, baseline_n, n_labels
        self._calibration = calibration
        self.predicted_kn = np.zeros((n_steps, len(labels_n)), np.uint16)
        self._loss_k = np.zeros(n_steps)
        self._top5_k, self._n_tied_k, self._n_run_k = (np.zeros(n_steps, int) for _ in range(3))

    def add(self, rows: slice, logits_knl: np.ndarray, was_run_kn: np.ndarray) -> None:
        labels_n = self._labels_n[rows]
        self.predicted_kn[:, rows] = logits_knl.argmax(axis=2)
        self._n_run_k += was_run_kn.sum(axis=1)
        for k, logits_nl in enumerate(logits_knl):
            self._loss_k[k] += cross_entropy(logits_nl, labels_n).sum()
            n_better = (logits_nl > logits_nl[np.arange(len(labels_n)), labels_n][:, np.newaxis]).sum(axis=1)
            self._top5_k[k] += (n_better < 5).sum()
            self._n_tied_k[k] += is_tied(logits_nl).sum()
        if self._calibration is not None:
            self._add_calibration(self._calibration, rows, logits_knl, was_run_kn)

    def _add_calibration(
        self, calibration: Calibration, rows: slice, logits_knl: np.ndarray, was_run_kn: np.ndarray
    ) -> None:
        """Count the runs of calibration, and add what scores read off lines miss of the loss, as these tell.

        These are drawn at random, so the corrected sum is unbiased: the difference estimator of survey sampling
        (Särndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, section 6.3).
        """
        here = (calibration.rows >= rows.start) & (calibration.rows < rows.stop)
        numbers = calibration.rows[here]
        self._n_run_k += (~was_run_kn[:, numbers - rows.start]).sum(axis=1)
        weight = len(self._labels_n) / len(calibration.rows)
        for k, logits_nl in enumerate(logits_knl):
            true_n = cross_entropy(calibration.logits_knl[k, here], self._labels_n[numbers])
            missed_n = true_n - cross_entropy(logits_nl[numbers - rows.start], self._labels_n[numbers])
            self._loss_k[k] += weight * missed_n.sum()

    def point(self, number: int, step: PruneStep, with_confusion: bool = False) -> SweepPoint:
        if not np.isfinite(self._loss_k[number]):
            raise ModelError(
                f"the model's scores must be finite, got NaN or infinity at K={step.k}; check weights and data.scale"
            )
        predicted_n = self.predicted_kn[number]
        confusion = None
        if with_confusion:
            pairs = np.bincount(self._labels_n * self._n_labels + predicted_n, minlength=self._n_labels**2)
            confusion = tuple(tuple(row) for row in pairs.reshape(self._n_labels, self._n_labels).tolist())
        right_labels = self._labels_n[predicted_n == self._labels_n]
        return SweepPoint(
            k=step.k,
            pruned_channels=step.pruned_channels,
            correct=len(right_labels),
            total=len(self._labels_n),
            loss=float(self._loss_k[number]) / len(self._labels_n),
            top5_correct=int(self._top5_k[number]),
            class_correct=tuple(np.bincount(right_labels, minlength=self._n_labels).tolist()),
            n_changed=int((predicted_n != self._baseline_n).sum()),
            n_tied=int(self._n_tied_k[number]),
            n_run=int(self._n_run_k[number]),
            confusion=confusion,
        )
