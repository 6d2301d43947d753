"""Some images, on the device, for one block of K."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lab3.backend import fill_block, fill_rows, to_numpy, to_tensor
from lab3.engine.bounds import Bounds, line
from lab3.rank import PruneStep
from lab3.split import Split

AUDIT_EVERY = 64


class Block:
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

    def run_bisected(self, bounds: Bounds) -> tuple[np.ndarray, np.ndarray]:
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
                logits_knl[k, decided] = line(logits_knl[low, decided], logits_knl[high, decided], low, high, k)
            audited = decided[(decided + low) % AUDIT_EVERY == 0]
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
