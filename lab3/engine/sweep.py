"""The sweep: blocks of K over blocks of images."""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal

import numpy as np

from lab3.backend import blocks_of
from lab3.engine.block import Block
from lab3.engine.bounds import Bounds, LineExceededError
from lab3.engine.point import SweepPoint, cross_entropy
from lab3.errors import ModelError
from lab3.rank import PruneStep
from lab3.split import Split

Shortcut = Literal["none", "unchanged", "margins"]

_FIRST_BLOCK, _BLOCK = 8, 32
_N_CALIBRATION = 256


def sweep_points(
    split: Split,
    features: Sequence[np.ndarray],
    labels_n: np.ndarray,
    steps: Sequence[PruneStep],
    *,
    done: Collection[int] = (),
    batch_size: int = 2000,
    shortcut: Shortcut = "margins",
    predictions_kn: np.ndarray | None = None,
) -> Iterator[SweepPoint]:
    """The points of `steps` whose K is not in `done`, in their order; nothing is printed or written.

    `features` are those of `capture`; `labels_n` int `(N,)`; `batch_size` images are held on the device at a time.
    `predictions_kn`, uint16 `(len(steps), N)`, is filled with the predicted classes if given. Raises `ModelError` if an
    output is not finite.
    """
    engine = _Engine(split, features, steps, batch_size, shortcut)
    baseline_n: np.ndarray | None = None
    for block in _k_blocks(len(steps)):
        if all(steps[i].k in done for i in block):
            continue
        if baseline_n is None:
            baseline_n = engine.predict_unpruned()
        tally = _Tally(labels_n, baseline_n, split.n_labels, len(block))
        try:
            for rows, logits_knl, was_run_kn in engine.run(block):
                tally.add(rows, logits_knl, was_run_kn)
        except LineExceededError:
            tally = _Tally(labels_n, baseline_n, split.n_labels, len(block))
            for rows, logits_knl, was_run_kn in engine.run(block, without_margins=True):
                tally.add(rows, logits_knl, was_run_kn)
        if predictions_kn is not None:
            predictions_kn[block.start : block.stop] = tally.predicted_kn
        for number, i in enumerate(block):
            if steps[i].k not in done:
                yield tally.point(number, steps[i])


def channel_losses(
    split: Split, features: Sequence[np.ndarray], labels_n: np.ndarray, batch_size: int = 2000
) -> np.ndarray:
    """By how much the mean cross-entropy rises when each channel alone goes, in nats, float64 `(C,)`.

    Source: the oracle that Molchanov et al., ICLR 2017, section 2.2, hold criteria against. One run of the head a
    channel.
    """
    steps = [PruneStep(0, ()), *(PruneStep(1, (channel,)) for channel in range(split.n_channels))]
    sums = np.zeros(len(steps))
    engine = _Engine(split, features, steps, batch_size, "none")
    for rows in blocks_of(len(labels_n), min(batch_size, len(labels_n))):
        block = engine.block(steps, rows)
        for i in range(len(steps)):
            sums[i] += cross_entropy(block.run_all(i), labels_n[rows]).sum()
    rises_c: np.ndarray = (sums[1:] - sums[0]) / len(labels_n)
    return rises_c


def _k_blocks(n_steps: int) -> Iterator[range]:
    """Blocks of indices into the steps; the first is short, so that the first points are soon seen."""
    start, size = 0, _FIRST_BLOCK
    while start < n_steps:
        yield range(start, min(start + size, n_steps))
        start, size = start + size, _BLOCK


class _Tally:
    """Adds up a block of points over blocks of images."""

    def __init__(self, labels_n: np.ndarray, baseline_n: np.ndarray, n_labels: int, n_steps: int) -> None:
        self._labels_n, self._baseline_n, self._n_labels = labels_n, baseline_n, n_labels
        self.predicted_kn = np.zeros((n_steps, len(labels_n)), np.uint16)
        self._loss_k, self._top5_k, self._n_run_k = np.zeros(n_steps), np.zeros(n_steps, int), np.zeros(n_steps, int)

    def add(self, rows: slice, logits_knl: np.ndarray, was_run_kn: np.ndarray) -> None:
        labels_n = self._labels_n[rows]
        self.predicted_kn[:, rows] = logits_knl.argmax(axis=2)
        self._n_run_k += was_run_kn.sum(axis=1)
        for k, logits_nl in enumerate(logits_knl):
            self._loss_k[k] += cross_entropy(logits_nl, labels_n).sum()
            n_better = (logits_nl > logits_nl[np.arange(len(labels_n)), labels_n][:, np.newaxis]).sum(axis=1)
            self._top5_k[k] += (n_better < 5).sum()

    def point(self, number: int, step: PruneStep) -> SweepPoint:
        if not np.isfinite(self._loss_k[number]):
            raise ModelError(
                f"the model's scores must be finite, got NaN or infinity at K={step.k}; check weights and data.scale"
            )
        predicted_n = self.predicted_kn[number]
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
            n_run=int(self._n_run_k[number]),
        )


class _Engine:
    def __init__(
        self,
        split: Split,
        features: Sequence[np.ndarray],
        steps: Sequence[PruneStep],
        batch_size: int,
        shortcut: Shortcut,
    ) -> None:
        self._split, self._features, self._steps = split, features, steps
        self._n_images = len(features[0])
        self._batch_size = min(batch_size, self._n_images)
        # Where a quarter of the images would be calibration, nothing is gained.
        self._shortcut = "unchanged" if shortcut == "margins" and self._n_images < 4 * _N_CALIBRATION else shortcut

    def block(self, steps: Sequence[PruneStep], rows: slice) -> Block:
        """The images of `rows`, ready to be run at `steps`."""
        return Block(self._split, steps, self._features_of(rows), self._batch_size)

    def predict_unpruned(self) -> np.ndarray:
        """The class predicted for each image with no channel gone, `(N,)`."""
        predicted_n = np.empty(self._n_images, np.int64)
        for rows in blocks_of(self._n_images, self._batch_size):
            block = self.block([PruneStep(0, ())], rows)
            predicted_n[rows] = block.run_all(0).argmax(axis=1)
        return predicted_n

    def run(self, indices: range, without_margins: bool = False) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(rows, logits `(K, n, L)`, which were computed `(K, n)`) for each block of images."""
        steps = [self._steps[i] for i in indices]
        bounds = None
        if self._shortcut == "margins" and len(steps) > 2 and not without_margins:
            bounds = self._calibrate(steps, indices.start)
        for rows in blocks_of(self._n_images, self._batch_size):
            block = self.block(steps, rows)
            if bounds is not None:
                yield rows, *block.run_bisected(bounds)
            else:
                yield rows, *block.run_every_step(skip_unchanged=self._shortcut != "none")

    def _calibrate(self, steps: Sequence[PruneStep], seed: int) -> Bounds:
        rows = np.random.default_rng(seed).choice(self._n_images, _N_CALIBRATION, replace=False)
        rows.sort()
        block = Block(self._split, steps, self._features_of(rows), _N_CALIBRATION)
        logits_knl, _ = block.run_every_step(skip_unchanged=True)
        return Bounds(logits_knl)

    def _features_of(self, rows: slice | np.ndarray) -> list[np.ndarray]:
        return [feature if len(feature) != self._n_images else np.asarray(feature[rows]) for feature in self._features]
