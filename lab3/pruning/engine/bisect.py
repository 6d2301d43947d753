"""Run images only at the steps where a straight line between two others does not decide their class."""

import numpy as np

from lab3.pruning.engine.block import Block, BlockScores
from lab3.pruning.engine.bounds import Bounds, check_line, check_same_answer, is_decided, line

AUDITED_SHARE = 0.01


def run_bisected(block: Block, bounds: Bounds, labels_n: np.ndarray, seed: tuple[int, ...]) -> BlockScores:
    """Logits of every image at every step, computed, known from a step with the same input, or read off lines.

    Every interval of steps is halved only for images that its ends do not decide; what all intervals of one round need
    is run together. Of all that was read off lines a random share, drawn by `seed`, is run after all. Raises
    `LineExceededError` if a run shows that a bound did not hold, or that a line gave another answer.
    """
    last = block.n_steps - 1
    first_nl, last_nl = block.run_all(0), block.run_all(last)
    logits_knl = np.empty((block.n_steps, *first_nl.shape), np.float32)
    logits_knl[0], logits_knl[last] = first_nl, last_nl
    was_run_kn, inferred_kn = (np.zeros(logits_knl.shape[:2], bool) for _ in range(2))
    was_run_kn[[0, last]] = True
    allowed_kn = np.zeros(logits_knl.shape[:2], np.float32)
    rows, low, high = np.arange(block.n), np.zeros(block.n, int), np.full(block.n, last)
    while len(rows):
        low_pl, high_pl = logits_knl[low, rows], logits_knl[high, rows]
        allowed_p = bounds.allowed(low, high, low_pl, high_pl)
        decided_p = is_decided(low_pl, high_pl, allowed_p, labels_n[rows])
        inner_rows, inner, share_p, of_p = _inner_steps(rows[decided_p], low[decided_p], high[decided_p])
        changed_p = block.changed(low[decided_p][of_p], inner, inner_rows)
        share_p[~changed_p] = 0  # known: the same input as at the low end
        logits_knl[inner, inner_rows] = line(low_pl[decided_p][of_p], high_pl[decided_p][of_p], share_p[:, np.newaxis])
        inferred_kn[inner, inner_rows] = changed_p
        allowed_kn[inner, inner_rows] = allowed_p[decided_p][of_p]

        rows, low, high, low_pl, high_pl, allowed_p = (
            each[~decided_p] for each in (rows, low, high, low_pl, high_pl, allowed_p)
        )
        middle = (low + high) // 2
        same_as_low_p = ~block.changed(low, middle, rows)
        same_as_high_p = ~same_as_low_p & ~block.changed(middle, high, rows)
        logits_knl[middle[same_as_low_p], rows[same_as_low_p]] = low_pl[same_as_low_p]
        logits_knl[middle[same_as_high_p], rows[same_as_high_p]] = high_pl[same_as_high_p]
        run_p = ~same_as_low_p & ~same_as_high_p
        middle_pl = block.run_pairs(rows[run_p], middle[run_p])
        share_p = ((middle - low) / (high - low))[run_p]
        check_line(line(low_pl[run_p], high_pl[run_p], share_p[:, np.newaxis]), middle_pl, allowed_p[run_p])
        logits_knl[middle[run_p], rows[run_p]] = middle_pl
        was_run_kn[middle[run_p], rows[run_p]] = True

        rows, low, high = np.tile(rows, 2), np.concatenate([low, middle]), np.concatenate([middle, high])
        inner_p = high - low > 1
        rows, low, high = rows[inner_p], low[inner_p], high[inner_p]
    audited_kn = inferred_kn & (np.random.default_rng(seed).random(inferred_kn.shape) < AUDITED_SHARE)
    steps, rows = np.nonzero(audited_kn)
    audited_pl = block.run_pairs(rows, steps)
    check_line(logits_knl[steps, rows], audited_pl, allowed_kn[steps, rows])
    check_same_answer(logits_knl[steps, rows], audited_pl, labels_n[rows])
    logits_knl[steps, rows] = audited_pl
    return BlockScores(logits_knl, was_run_kn | audited_kn, inferred_kn & ~audited_kn, audited_kn)


def _inner_steps(
    rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Every step strictly inside its interval: the image, the step, its share of the way, and the interval's number."""
    n_inner = high - low - 1
    of_p = np.repeat(np.arange(len(rows)), n_inner)
    offset_p = np.arange(len(of_p)) - np.repeat(np.cumsum(n_inner) - n_inner, n_inner) + 1
    return rows[of_p], low[of_p] + offset_p, offset_p / (high - low)[of_p], of_p
