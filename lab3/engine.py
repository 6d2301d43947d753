"""Measure the pruned model at every K, from features captured once.

K is done in blocks. At the start of a block the mixing layer's output is computed afresh; for each K in it, only the
difference of the channels gone since is added, and the rest of the network is run. What is done for one block depends
on nothing before it, so a sweep resumed anywhere gives the same bits.

Three shortcuts, each on top of the one before:

- `none`: every image at every K. - `unchanged`: an image whose features of the newly gone channels are what these
channels leave behind anyway gives the scores it gave before, and is not run again. - `margins`: between two K at which
an image was run, its scores move close to a straight line. Where the best class is the same at both and leads by more
than the line can be wrong, it is the best class in between; its scores there are read off the line. How wrong the line
can be is measured in every block on images that are run at every K, for each length of interval, in units of the
image's own change over it, and taken `_SAFETY` times. Each run in the middle of an interval is compared with its line,
and so are audits, images that need not have been run: one that exceeds the bound has the whole block done again without
this shortcut.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lab3.backend import blocks_of, fill_block, fill_rows, to_numpy, to_tensor
from lab3.errors import ModelError
from lab3.rank import PruneStep
from lab3.split import Split

Shortcut = Literal["none", "unchanged", "margins"]

_FIRST_BLOCK, _BLOCK = 8, 32
_N_CALIBRATION = 256
_SAFETY = 3.0
_AUDIT_EVERY = 64


@dataclass(frozen=True)
class SweepPoint:
    """The model with `pruned_channels` gone: `correct` of `total` images, mean cross-entropy `loss` in nats.

    `top5_correct`: images whose label is among the 5 best classes. `class_correct`: correct images of each class.
    `n_changed`: images whose predicted class is not that of K = 0. `n_run`: images whose scores were computed; those of
    the others were known without (see the module).
    """

    k: int
    pruned_channels: tuple[int, ...]
    correct: int
    total: int
    loss: float
    top5_correct: int
    class_correct: tuple[int, ...]
    n_changed: int
    n_run: int

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
        except _LineExceededError:
            tally = _Tally(labels_n, baseline_n, split.n_labels, len(block))
            for rows, logits_knl, was_run_kn in engine.run(block, without_margins=True):
                tally.add(rows, logits_knl, was_run_kn)
        if predictions_kn is not None:
            predictions_kn[block.start : block.stop] = tally.predicted_kn
        for number, i in enumerate(block):
            if steps[i].k not in done:
                yield tally.point(number, steps[i])


def cross_entropy(logits_nl: np.ndarray, labels_n: np.ndarray) -> np.ndarray:
    """-log softmax(logits)[label] of each image in nats, float64 `(N,)`."""
    shifted_nl = logits_nl.astype(np.float64)
    shifted_nl -= shifted_nl.max(axis=1, keepdims=True)
    log_sum_n = np.log(np.exp(shifted_nl).sum(axis=1))
    losses_n: np.ndarray = log_sum_n - shifted_nl[np.arange(len(labels_n)), labels_n]
    return losses_n


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


class _LineExceededError(Exception):
    """Scores moved further from a straight line than the bound allows."""


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

    def predict_unpruned(self) -> np.ndarray:
        """The class predicted for each image with no channel gone, `(N,)`."""
        predicted_n = np.empty(self._n_images, np.int64)
        for rows in blocks_of(self._n_images, self._batch_size):
            block = _Block(self._split, [PruneStep(0, ())], self._features_of(rows), self._batch_size)
            predicted_n[rows] = block.run_all(0).argmax(axis=1)
        return predicted_n

    def run(self, indices: range, without_margins: bool = False) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """(rows, logits `(K, n, L)`, which were computed `(K, n)`) for each block of images."""
        steps = [self._steps[i] for i in indices]
        bounds = None
        if self._shortcut == "margins" and len(steps) > 2 and not without_margins:
            bounds = self._calibrate(steps, indices.start)
        for rows in blocks_of(self._n_images, self._batch_size):
            block = _Block(self._split, steps, self._features_of(rows), self._batch_size)
            if bounds is not None:
                yield rows, *block.run_bisected(bounds)
            else:
                yield rows, *block.run_every_step(skip_unchanged=self._shortcut != "none")

    def _calibrate(self, steps: Sequence[PruneStep], seed: int) -> "_Bounds":
        rows = np.random.default_rng(seed).choice(self._n_images, _N_CALIBRATION, replace=False)
        rows.sort()
        block = _Block(self._split, steps, self._features_of(rows), _N_CALIBRATION)
        logits_knl, _ = block.run_every_step(skip_unchanged=True)
        return _Bounds(logits_knl)

    def _features_of(self, rows: slice | np.ndarray) -> list[np.ndarray]:
        return [feature if len(feature) != self._n_images else np.asarray(feature[rows]) for feature in self._features]


class _Block:
    """Some images, on the device, for one block of K."""

    def __init__(self, split: Split, steps: Sequence[PruneStep], features: Sequence[np.ndarray], size: int) -> None:
        self._split, self._steps = split, steps
        self._own, self._pruned = features[0], features[1]
        self.n = len(self._own)
        self._tensors = [to_tensor(fill_block(f, size) if len(f) == self.n else f) for f in features]
        n_positions = self._split.n_units // self._split.n_channels
        self._units_c = np.arange(self._split.n_units).reshape(n_positions, self._split.n_channels)
        is_pruned_u = np.zeros(self._split.n_units, bool)
        is_pruned_u[self._units_c[:, list(steps[0].pruned_channels)].ravel()] = True
        (self._mixed,) = self._split.start(self._tensors[0], self._tensors[1], to_tensor(is_pruned_u))
        self._gone = [sorted(set(step.pruned_channels) - set(steps[0].pruned_channels)) for step in steps]
        self._n_units = n_positions * max(1, *map(len, self._gone))

    def run_all(self, i: int) -> np.ndarray:
        """The logits of all images at step i, `(n, L)`."""
        (logits_nl,) = self._split.finish(self._mixed, *self._tensors, *self._units_gone(i))
        own_rows: np.ndarray = to_numpy(logits_nl)[: self.n]
        return own_rows

    def run_rows(self, i: int, rows: np.ndarray) -> np.ndarray:
        """The logits of the images in `rows` at step i, `(len(rows), L)`."""
        if len(rows) > 0.8 * self.n:
            logits_nl = self.run_all(i)
            return np.take(logits_nl, rows, axis=0)
        filled = to_tensor(fill_rows(rows.astype(np.int32)))
        (filled_logits_nl,) = self._split.finish_rows(filled, self._mixed, *self._tensors, *self._units_gone(i))
        own_rows: np.ndarray = to_numpy(filled_logits_nl)[: len(rows)]
        return own_rows

    def run_every_step(self, skip_unchanged: bool) -> tuple[np.ndarray, np.ndarray]:
        """Logits `(K, n, L)` and which were computed `(K, n)`, every step from the one before."""
        first = self.run_all(0)
        logits_knl = np.empty((len(self._steps), *first.shape), np.float32)
        was_run_kn = np.ones((len(self._steps), self.n), bool)
        logits_knl[0] = first
        for i in range(1, len(self._steps)):
            if skip_unchanged:
                was_run_kn[i] = self._changed(i - 1, i)
                rows = np.flatnonzero(was_run_kn[i])
                logits_knl[i] = logits_knl[i - 1]
                if len(rows):
                    logits_knl[i, rows] = self.run_rows(i, rows)
            else:
                logits_knl[i] = self.run_all(i)
        return logits_knl, was_run_kn

    def run_bisected(self, bounds: "_Bounds") -> tuple[np.ndarray, np.ndarray]:
        """As `run_every_step`, each interval of K halved only for images that its ends do not decide."""
        last = len(self._steps) - 1
        first = self.run_all(0)
        logits_knl = np.empty((last + 1, *first.shape), np.float32)
        was_run_kn = np.zeros((last + 1, self.n), bool)
        logits_knl[0], logits_knl[last] = first, self.run_all(last)
        was_run_kn[[0, last]] = True
        intervals = [(0, last, np.arange(self.n))]
        while intervals:
            low, high, rows = intervals.pop()
            if high - low < 2 or len(rows) == 0:
                continue
            middle = (low + high) // 2
            is_decided = bounds.decide(low, high, logits_knl[low, rows], logits_knl[high, rows])
            decided, undecided = rows[is_decided], rows[~is_decided]
            for k in range(low + 1, high):
                logits_knl[k, decided] = _line(logits_knl[low, decided], logits_knl[high, decided], low, high, k)
            audited = decided[(decided + low) % _AUDIT_EVERY == 0]
            to_run = np.concatenate([self._fill_unchanged(undecided, low, middle, high, logits_knl), audited])
            if len(to_run):
                logits_knl[middle, to_run] = self.run_rows(middle, to_run)
                was_run_kn[middle, to_run] = True
                bounds.check(low, high, middle, *(logits_knl[k, to_run] for k in (low, high, middle)))
            intervals += [(low, middle, undecided), (middle, high, undecided)]
        return logits_knl, was_run_kn

    def _fill_unchanged(self, rows: np.ndarray, low: int, middle: int, high: int, logits_knl: np.ndarray) -> np.ndarray:
        """Give images that are the same at `middle` as at an end that end's scores; returns the other rows."""
        same_as_low = ~self._changed(low, middle)[rows]
        same_as_high = ~self._changed(middle, high)[rows] & ~same_as_low
        logits_knl[middle, rows[same_as_low]] = logits_knl[low, rows[same_as_low]]
        logits_knl[middle, rows[same_as_high]] = logits_knl[high, rows[same_as_high]]
        others: np.ndarray = rows[~(same_as_low | same_as_high)]
        return others

    def _changed(self, before: int, after: int) -> np.ndarray:
        """True for images with other features at step `after` than at step `before`, `(n,)`."""
        channels = sorted(set(self._gone[after]) - set(self._gone[before]))
        units = self._units_c[:, channels].ravel()
        differs = self._own[..., units] != self._pruned[..., units]
        changed: np.ndarray = differs.any(axis=tuple(range(1, differs.ndim)))
        return changed

    def _units_gone(self, i: int) -> tuple[Any, Any]:
        """The units gone at step i and not at the first, filled up to one length, and 1 where they count."""
        units = np.zeros(self._n_units, np.int32)
        keep = np.zeros(self._n_units, np.float32)
        gone = self._units_c[:, self._gone[i]].ravel()
        units[: len(gone)], keep[: len(gone)] = gone, 1
        return to_tensor(units), to_tensor(keep)


class _Bounds:
    """How far scores can be from the straight line between two K, measured on images that are run at every K."""

    def __init__(self, logits_knl: np.ndarray) -> None:
        self._floor: dict[tuple[int, int], float] = {}
        self._bound: dict[int, float] = {}
        intervals = [(0, len(logits_knl) - 1)]
        while intervals:
            low, high = intervals.pop()
            if high - low < 2:
                continue
            middle = (low + high) // 2
            intervals += [(low, middle), (middle, high)]
            change_n = _spread(logits_knl[high] - logits_knl[low])
            # Images that hardly change are measured by the typical change.
            self._floor[low, high] = max(float(np.median(change_n)), 1e-6)
            scale_n = change_n + self._floor[low, high]
            worst = max(
                float((_spread(logits_knl[k] - _line(logits_knl[low], logits_knl[high], low, high, k)) / scale_n).max())
                for k in range(low + 1, high)
            )
            self._bound[high - low] = max(self._bound.get(high - low, 0.0), worst)

    def decide(self, low: int, high: int, low_nl: np.ndarray, high_nl: np.ndarray) -> np.ndarray:
        """True for images whose best class is the same everywhere between `low` and `high`, `(n,)`."""
        lead_n = np.minimum(_lead(low_nl), _lead(high_nl))
        same_n = low_nl.argmax(axis=1) == high_nl.argmax(axis=1)
        decided: np.ndarray = same_n & (lead_n > self._allowed(low, high, low_nl, high_nl))
        return decided

    def check(
        self, low: int, high: int, middle: int, low_nl: np.ndarray, high_nl: np.ndarray, middle_nl: np.ndarray
    ) -> None:
        """Raise `_LineExceededError` if scores in the middle are further from the line than allowed."""
        error_n = _spread(middle_nl - _line(low_nl, high_nl, low, high, middle))
        if (error_n > self._allowed(low, high, low_nl, high_nl)).any():
            raise _LineExceededError

    def _allowed(self, low: int, high: int, low_nl: np.ndarray, high_nl: np.ndarray) -> np.ndarray:
        allowed: np.ndarray = _SAFETY * self._bound[high - low] * (_spread(high_nl - low_nl) + self._floor[low, high])
        return allowed


def _line(low_nl: np.ndarray, high_nl: np.ndarray, low: int, high: int, k: int) -> np.ndarray:
    share = np.float32((k - low) / (high - low))
    return (1 - share) * low_nl + share * high_nl


def _spread(difference_nl: np.ndarray) -> np.ndarray:
    """The largest change of a difference of two scores, `(n,)`."""
    spread_n: np.ndarray = difference_nl.max(axis=1) - difference_nl.min(axis=1)
    return spread_n


def _lead(logits_nl: np.ndarray) -> np.ndarray:
    """By how much the best score exceeds the second best, `(n,)`."""
    two_best = np.partition(logits_nl, -2, axis=1)[:, -2:]
    lead_n: np.ndarray = two_best[:, 1] - two_best[:, 0]
    return lead_n
