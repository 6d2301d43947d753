"""The sweep: blocks of K over blocks of images."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import numpy as np

from lab3.base.arrays import blocks_of
from lab3.base.backend import count_gpus
from lab3.pruning.engine.bisect import run_bisected
from lab3.pruning.engine.block import Block, BlockScores, to_device
from lab3.pruning.engine.bounds import Bounds, LineExceededError
from lab3.pruning.engine.point import SweepPoint, cross_entropy, follow
from lab3.pruning.engine.tally import Calibration, Tally
from lab3.pruning.rank import PruneStep
from lab3.pruning.split import Split
from lab3.vocabulary import Shortcut

TallyBlocks = Callable[[Sequence[range]], Iterator[Tally]]
_FIRST_BLOCK, _BLOCK = 8, 32
_N_CALIBRATION = 256
_MAX_RESIDENT_BYTES = 2**29  # several processes can share a GPU


def sweep_points(
    split: Split,
    features: Sequence[np.ndarray],
    labels_n: np.ndarray,
    steps: Sequence[PruneStep],
    *,
    done: Sequence[SweepPoint] = (),
    batch_size: int = 2000,
    shortcut: Shortcut = "unchanged",
    predictions_kn: np.ndarray | None = None,
    confusion_k: Collection[int] = (),
    on_block: Callable[[], None] = lambda: None,
    tally_blocks: TallyBlocks | None = None,
) -> Iterator[SweepPoint]:
    """The points of `steps` that `done`, of the same sweep, lacks, in their order; nothing is printed or written.

    `features` are those of `capture`; `labels_n` int `(N,)`; `batch_size` images are on the device at a time, or all of
    them on a GPU where their features take at most 512 MiB. `predictions_kn`, uint16 `(len(steps), N)`, is filled with
    the predicted classes if given, for which what is done is computed again; points at K in `confusion_k` have a
    confusion matrix. `on_block` is called before each block of images and may raise. `tally_blocks` computes blocks of
    steps elsewhere, as other processes do. Raises `ModelError` if an output is not finite.
    """
    known = {point.k: point for point in done}
    unpruned_n: np.ndarray | None = None  # right at K = 0
    before_n = np.ones(len(labels_n), bool)  # right at the K before
    blocks = list(_k_blocks(len(steps)))
    due = [block for block in blocks if predictions_kn is not None or any(steps[i].k not in known for i in block)]
    if tally_blocks is None:
        engine = SweepEngine(split, features, labels_n, steps, batch_size, shortcut, on_block)
        tally_blocks = engine.tally_blocks
    tallies = tally_blocks(due)
    for block in blocks:
        tally = None
        if block in due:
            tally = next(tallies)
            if predictions_kn is not None:
                predictions_kn[block.start : block.stop] = tally.predicted_kn
        for number, step in enumerate(steps[block.start : block.stop]):
            fresh = None if step.k in known else tally
            right_n = follow(before_n, known[step.k]) if fresh is None else fresh.right(number)
            unpruned_n = right_n if step.k == 0 else unpruned_n
            if fresh is not None:
                yield fresh.point(number, step, unpruned_n, before_n, step.k in confusion_k)
            before_n = right_n


def channel_losses(
    split: Split,
    features: Sequence[np.ndarray],
    labels_n: np.ndarray,
    batch_size: int = 2000,
    on_block: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """By how much the mean cross-entropy rises when each channel alone goes, in nats, float64 `(C,)`.

    Source: the oracle that Molchanov et al., ICLR 2017, section 2.2, hold criteria against. One run of the head a
    channel.
    """
    losses_c = np.empty(split.n_channels)
    for channels in blocks_of(split.n_channels, _BLOCK):
        alone = [PruneStep(1, (channel,)) for channel in range(split.n_channels)[channels]]
        steps = [PruneStep(0, ()), *alone]
        sums = np.zeros(len(steps))
        engine = SweepEngine(split, features, labels_n, steps, batch_size, "none", on_block, runs_once=True)
        for rows, scores in engine.run(range(len(steps))):
            sums += [cross_entropy(logits_nl, labels_n[rows]).sum() for logits_nl in scores.logits_knl]
        losses_c[channels] = (sums[1:] - sums[0]) / len(labels_n)
    return losses_c


def logits_of(
    split: Split, features: Sequence[np.ndarray], rows: np.ndarray, steps: Sequence[PruneStep], block_size: int
) -> np.ndarray:
    """The logits of the images `rows` at `steps`, as a sweep of blocks of `block_size` images has them, `(K, n, L)`."""
    parts = []
    for part in blocks_of(len(rows), block_size):
        block = Block(split, steps, split.read_features(features, rows[part]), block_size, block_size)
        parts.append(block.run_changed().logits_knl)
    return np.concatenate(parts, axis=1)


def _k_blocks(n_steps: int) -> Iterator[range]:
    """Blocks of indices into the steps; the first is short, so that the first points are soon seen."""
    start, size = 0, _FIRST_BLOCK
    while start < n_steps:
        yield range(start, min(start + size, n_steps))
        start, size = start + size, _BLOCK


class SweepEngine:
    """Tallies blocks of the steps of one sweep; the arguments are those of `sweep_points`.

    `runs_once`: it gets one block of steps.
    """

    def __init__(
        self,
        split: Split,
        features: Sequence[np.ndarray],
        labels_n: np.ndarray,
        steps: Sequence[PruneStep],
        batch_size: int,
        shortcut: Shortcut,
        on_block: Callable[[], None] = lambda: None,
        *,
        runs_once: bool = False,
    ) -> None:
        self._on_block = on_block
        self._predicted_n: np.ndarray | None = None  # the class of each image with no channel pruned
        self._split, self._features, self._labels_n, self._steps = split, features, labels_n, steps
        self._n_images, self._batch_size = len(labels_n), min(batch_size, len(labels_n))
        # Features by their first image, where a GPU is sure to have room: else each block of K copies them there.
        self._resident: dict[int, list[Any]] = {}
        is_small = sum(each.nbytes for each in features) <= _MAX_RESIDENT_BYTES
        self._keeps = is_small and not runs_once and count_gpus() > 0
        self._infers = shortcut == "inferred"
        # Where a quarter of the images would be calibration, nothing is gained.
        self._shortcut = "unchanged" if self._infers and self._n_images < 4 * _N_CALIBRATION else shortcut

    def tally_blocks(self, blocks: Sequence[range]) -> Iterator[Tally]:
        """The steps of each block, run as they are asked for."""
        return map(self.tally, blocks)

    def tally(self, indices: range) -> Tally:
        """The steps of `indices`, run; once more and without inferring where a line did not hold."""
        if self._predicted_n is None:
            self._predicted_n = self._predict_unpruned()
        about = (self._labels_n, self._predicted_n, self._split.n_labels, len(indices))
        calibration = self.calibrate(indices)
        try:
            tally = Tally(*about, infers=self._infers, calibration=calibration)
            for rows, scores in self.run(indices, calibration):
                tally.add(rows, scores)
        except LineExceededError:
            tally = Tally(*about, infers=True)
            for rows, scores in self.run(indices):
                tally.add(rows, scores)
        return tally

    def _predict_unpruned(self) -> np.ndarray:
        """The class predicted for each image with no channel pruned, `(N,)`."""
        blocks = (self._block([PruneStep(0, ())], rows) for rows in blocks_of(self._n_images, self._batch_size))
        if self._shortcut != "unchanged":
            return np.concatenate([block.run_all(0).argmax(axis=1) for block in blocks])
        # By the function that runs K = 0 as well.
        every = ((block, np.arange(block.n)) for block in blocks)
        return np.concatenate([block.run_pairs(rows, np.zeros_like(rows)).argmax(axis=1) for block, rows in every])

    def calibrate(self, indices: range) -> Calibration | None:
        """Some images run at every step of `indices`, drawn with their first as the seed; None without that need."""
        if self._shortcut != "inferred" or len(indices) < 3:
            return None
        rng = np.random.default_rng(indices.start)
        rows = np.sort(rng.choice(self._n_images, _N_CALIBRATION, replace=False))
        steps = [self._steps[i] for i in indices]
        features = self._split.read_features(self._features, rows)
        logits_knl = Block(self._split, steps, features, len(rows), self._batch_size).run_changed().logits_knl
        return Calibration(rows, logits_knl, Bounds(logits_knl))

    def run(self, indices: range, calibration: Calibration | None = None) -> Iterator[tuple[slice, BlockScores]]:
        """The rows and scores of each block of images."""
        steps = [self._steps[i] for i in indices]
        for rows in blocks_of(self._n_images, self._batch_size):
            block = self._block(steps, rows)
            if calibration is not None:
                seed = (indices.start, rows.start)
                yield rows, run_bisected(block, calibration.bounds, self._labels_n[rows], seed)
            elif self._shortcut == "none":
                yield rows, block.run_every_step()
            else:
                yield rows, block.run_changed()

    def _block(self, steps: Sequence[PruneStep], rows: slice) -> Block:
        self._on_block()
        features, size = self._split.read_features(self._features, rows), self._batch_size
        if self._keeps and rows.start not in self._resident:
            self._resident[rows.start] = to_device(self._split, features, size)
        return Block(self._split, steps, features, size, size, self._resident.get(rows.start))
