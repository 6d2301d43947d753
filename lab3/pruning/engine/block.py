"""Some images, on the device, for one block of K."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from lab3.base.backend import fill_block, fill_pairs, to_numpy, to_tensor
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import Split

_N_PAIRS = 1000


class BlockScores(NamedTuple):
    """Logits `(K, n, L)` of a block of images, and where they were computed, inferred and audited, each `(K, n)`.

    `inferred_kn` and `audited_kn` are None where nothing can be inferred. What was neither computed nor inferred is
    known: the image has the same input as at another K.
    """

    logits_knl: np.ndarray
    was_run_kn: np.ndarray
    inferred_kn: np.ndarray | None = None
    audited_kn: np.ndarray | None = None


class Block:
    """`n` images, on the device, with the mixing layer's output at the first of `steps`.

    `image_size` is the number of images that every call of a compiled function gets, `pair_size` the largest of pairs
    of an image and a step. `on_device`: what `to_device` gave for these features before.
    """

    def __init__(
        self,
        split: Split,
        steps: Sequence[PruneStep],
        features: Sequence[np.ndarray],
        image_size: int,
        pair_size: int,
        on_device: Sequence[Any] | None = None,
    ) -> None:
        self._split, self._pair_size = split, pair_size
        self.n, self.n_steps = len(features[0]), len(steps)
        units_c = np.arange(split.n_units).reshape(-1, split.n_channels)
        pruned_sets = [frozenset(step.pruned_channels) for step in steps]
        base, channels = split.head.plan(pruned_sets)
        units = units_c[:, list(channels)].ravel()
        pruned_ku = np.stack([np.isin(units % split.n_channels, list(each)) for each in pruned_sets])
        self._changes_kn = _n_changes(features[0], features[1], units, pruned_ku)

        # Blocks of K with nearly as many units share one compilation.
        n_filled = min(2 ** int(np.ceil(np.log2(max(1, len(units))))), split.n_units)
        self._units = to_tensor(np.pad(units, (0, n_filled - len(units))).astype(np.int32))
        pruned_ku = np.pad(pruned_ku, ((0, 0), (0, n_filled - len(units)))).astype(np.float32)
        self._pruned_ku, self._pruned_rows = to_tensor(pruned_ku), [to_tensor(row[np.newaxis]) for row in pruned_ku]
        is_pruned_u = np.isin(np.arange(split.n_units) % split.n_channels, list(base))
        own, pruned, *carried = on_device or to_device(split, features, image_size)
        self._state = [*split.head.start(own, pruned, to_tensor(is_pruned_u), self._units), *carried]

    def changed(self, before_p: np.ndarray, after_p: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """True where image `rows[p]` has other features at step `after_p[p]` than at `before_p[p]`, `(P,)`."""
        changed_p: np.ndarray = self._changes_kn[after_p, rows] > self._changes_kn[before_p, rows]
        return changed_p

    def run_all(self, step: int) -> np.ndarray:
        """The logits of all images at a step, `(n, L)`."""
        (logits_nl,) = self._split.head.finish(*self._state, self._units, self._pruned_rows[step])
        return to_numpy(logits_nl)[: self.n]

    def run_pairs(self, rows: np.ndarray, steps: np.ndarray) -> np.ndarray:
        """The logits of image `rows[p]` at step `steps[p]`, `(P, L)`."""
        logits_pl = np.empty((len(rows), self._split.n_labels), np.float32)
        # Products of more rows than this take memory that allocators give back each time, for a tenth of the time.
        n_full = len(rows) - len(rows) % self._pair_size
        edges = [*range(0, n_full, min(_N_PAIRS, self._pair_size)), *{n_full, len(rows)}]
        for part in (slice(start, stop) for start, stop in pairwise(sorted(edges))):
            pairs = (to_tensor(fill_pairs(each[part].astype(np.int32), self._pair_size)) for each in (rows, steps))
            (part_pl,) = self._split.head.finish_pairs(*pairs, *self._state, self._units, self._pruned_ku)
            logits_pl[part] = to_numpy(part_pl)[: part.stop - part.start]
        return logits_pl

    def run_every_step(self) -> BlockScores:
        """Every image run at every step."""
        logits_knl = np.stack([self.run_all(step) for step in range(self.n_steps)])
        return BlockScores(logits_knl, np.ones(logits_knl.shape[:2], bool))

    def run_changed(self) -> BlockScores:
        """As `run_every_step`, but an image with the same features as at the step before is not run again."""
        was_run_kn = np.ones((self.n_steps, self.n), bool)
        was_run_kn[1:] = self._changes_kn[1:] > self._changes_kn[:-1]
        steps, rows = np.nonzero(was_run_kn)
        logits_knl = np.empty((self.n_steps, self.n, self._split.n_labels), np.float32)
        logits_knl[steps, rows] = self.run_pairs(rows, steps)
        for step in range(1, self.n_steps):
            same = ~was_run_kn[step]
            logits_knl[step, same] = logits_knl[step - 1, same]
        return BlockScores(logits_knl, was_run_kn)


def to_device(split: Split, features: Sequence[np.ndarray], image_size: int) -> list[Any]:
    """Features of a block of images on the device, filled up to `image_size` images."""
    own, pruned, *carried = features
    tensors = [to_tensor(fill_block(each, image_size)) for each in (own, *carried)]
    # The pruned state is one for all images where it does not vary.
    tensors.insert(1, to_tensor(fill_block(pruned, image_size) if split.pruned_varies else pruned))
    return tensors


def _n_changes(own: np.ndarray, pruned: np.ndarray, units: np.ndarray, pruned_ku: np.ndarray) -> np.ndarray:
    """How many of the image's `units` pruned at each step differ from their pruned state, `(K, n)`."""
    differs = own[..., units] != pruned[..., units]
    differs_nu = differs.any(axis=tuple(range(1, differs.ndim - 1)))
    n_changes_kn: np.ndarray = pruned_ku.astype(np.int32) @ differs_nu.T.astype(np.int32)
    return n_changes_kn
