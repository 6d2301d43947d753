"""Run images only at the steps where a straight line between two others does not decide their class."""

import numpy as np

from lab3.engine.block import Block
from lab3.engine.bounds import Bounds, check_line, is_decided, line

AUDIT_EVERY = 64


def run_bisected(block: Block, bounds: Bounds, labels_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits `(K, n, L)` and which were computed `(K, n)`; the others are read off lines.

    Every interval of steps is halved only for images that its ends do not decide; what all intervals of one round need
    is run together. Raises `LineExceededError` if a run shows that a bound did not hold.
    """
    last = block.n_steps - 1
    first_nl, last_nl = block.run_all(0), block.run_all(last)
    logits_knl = np.empty((block.n_steps, *first_nl.shape), np.float32)
    logits_knl[0], logits_knl[last] = first_nl, last_nl
    was_run_kn = np.zeros(logits_knl.shape[:2], bool)
    was_run_kn[[0, last]] = True
    rows, low, high = np.arange(block.n), np.zeros(block.n, int), np.full(block.n, last)
    while len(rows):
        low_pl, high_pl = logits_knl[low, rows], logits_knl[high, rows]
        allowed_p = bounds.allowed(low, high, low_pl, high_pl)
        decided_p = is_decided(low_pl, high_pl, allowed_p, labels_n[rows])
        _fill_lines(logits_knl, rows[decided_p], low[decided_p], high[decided_p])

        middle = (low + high) // 2
        same_as_low_p = ~decided_p & ~block.changed(low, middle, rows)
        same_as_high_p = ~decided_p & ~same_as_low_p & ~block.changed(middle, high, rows)
        logits_knl[middle[same_as_low_p], rows[same_as_low_p]] = low_pl[same_as_low_p]
        logits_knl[middle[same_as_high_p], rows[same_as_high_p]] = high_pl[same_as_high_p]
        audited_p = decided_p & ((rows + low) % AUDIT_EVERY == 0)
        run_p = (~decided_p & ~same_as_low_p & ~same_as_high_p) | audited_p
        middle_pl = block.run_pairs(rows[run_p], middle[run_p])
        share_p = ((middle - low) / (high - low))[run_p]
        check_line(low_pl[run_p], high_pl[run_p], middle_pl, share_p, allowed_p[run_p])
        logits_knl[middle[run_p], rows[run_p]] = middle_pl
        was_run_kn[middle[run_p], rows[run_p]] = True

        rows, low, middle, high = (each[~decided_p] for each in (rows, low, middle, high))
        rows, low, high = np.tile(rows, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
        inner_p = high - low > 1
        rows, low, high = rows[inner_p], low[inner_p], high[inner_p]
    return logits_knl, was_run_kn


def _fill_lines(logits_knl: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    for offset in range(1, int((high - low).max(initial=0))):
        inner_p = low + offset < high
        rows, low, high = rows[inner_p], low[inner_p], high[inner_p]
        share_p = offset / (high - low)
        logits_knl[low + offset, rows] = line(logits_knl[low, rows], logits_knl[high, rows], share_p[:, np.newaxis])
