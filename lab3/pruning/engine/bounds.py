"""How far scores can stray from a straight line between two K."""

import numpy as np

SAFETY = 3.0


class LineExceededError(Exception):
    """Scores moved further from a straight line than the bound allows, or to another answer."""


class Bounds:
    """How far scores can be from the straight line between two steps, measured on images that are run at every step.

    `logits_knl` are the scores of those images, `(K, n, L)`. Steps, lows and highs are indices into its first axis.
    """

    def __init__(self, logits_knl: np.ndarray) -> None:
        n_steps = len(logits_knl)
        self._floor_kk = np.zeros((n_steps, n_steps), np.float32)
        self._bound_k = np.zeros(n_steps, np.float32)
        intervals = [(0, n_steps - 1)]
        while intervals:
            low, high = intervals.pop()
            if high - low < 2:
                continue
            middle = (low + high) // 2
            intervals += [(low, middle), (middle, high)]
            change_n = _spread(logits_knl[high] - logits_knl[low])
            # Images that hardly change are measured by the typical change.
            self._floor_kk[low, high] = max(float(np.median(change_n)), 1e-6)
            for k in range(low + 1, high):
                error_n = _spread(logits_knl[k] - line(logits_knl[low], logits_knl[high], (k - low) / (high - low)))
                worst = float((error_n / (change_n + self._floor_kk[low, high])).max())
                self._bound_k[high - low] = max(self._bound_k[high - low], worst)

    def allowed(self, low_p: np.ndarray, high_p: np.ndarray, low_pl: np.ndarray, high_pl: np.ndarray) -> np.ndarray:
        """How far a difference of two scores can be from the line anywhere between, `(P,)`."""
        scale_p = _spread(high_pl - low_pl) + self._floor_kk[low_p, high_p]
        bound_p = self._bound_k[high_p - low_p]
        # Where no image showed how far scores stray, nothing is known of others.
        allowed_p: np.ndarray = np.where(bound_p > 0, SAFETY * bound_p * scale_p, np.inf)
        return allowed_p


def is_decided(
    low_pl: np.ndarray, high_pl: np.ndarray, allowed_p: np.ndarray, labels_p: np.ndarray, n_best: int = 5
) -> np.ndarray:
    """True where the best class, and whether the label is among the `n_best`, are the same all along the line, `(P,)`.

    `allowed_p`: how far a difference of two scores can be from the straight line between the two ends.
    """
    same_p = low_pl.argmax(axis=1) == high_pl.argmax(axis=1)
    leads_p = np.minimum(_lead(low_pl), _lead(high_pl)) > allowed_p
    above_low, above_high = (
        each_pl - np.take_along_axis(each_pl, labels_p[:, np.newaxis], axis=1) for each_pl in (low_pl, high_pl)
    )
    may_exceed_p = (np.maximum(above_low, above_high) > -allowed_p[:, np.newaxis]).sum(axis=1) - 1  # not the label
    do_exceed_p = (np.minimum(above_low, above_high) > allowed_p[:, np.newaxis]).sum(axis=1)
    decided_p: np.ndarray = same_p & leads_p & ((may_exceed_p < n_best) | (do_exceed_p >= n_best))
    return decided_p


def check_line(line_pl: np.ndarray, run_pl: np.ndarray, allowed_p: np.ndarray) -> None:
    """Raise `LineExceededError` if scores of a run are further from those of the line than allowed."""
    if (_spread(run_pl - line_pl) > allowed_p).any():
        raise LineExceededError


def check_same_answer(line_pl: np.ndarray, run_pl: np.ndarray, labels_p: np.ndarray, n_best: int = 5) -> None:
    """Raise `LineExceededError` if a run has another best class, or the label elsewhere, than the line has."""
    answers = [(each_pl.argmax(axis=1), n_better(each_pl, labels_p) < n_best) for each_pl in (line_pl, run_pl)]
    if any((one != other).any() for one, other in zip(*answers, strict=True)):
        raise LineExceededError


def n_better(logits_nl: np.ndarray, labels_n: np.ndarray) -> np.ndarray:
    """How many scores exceed the label's, `(n,)`."""
    better_n: np.ndarray = (logits_nl > np.take_along_axis(logits_nl, labels_n[:, np.newaxis], axis=1)).sum(axis=1)
    return better_n


def line(low_pl: np.ndarray, high_pl: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """The scores `share` of the way from `low_pl` to `high_pl`."""
    scores_pl: np.ndarray = low_pl + np.asarray(share, np.float32) * (high_pl - low_pl)
    return scores_pl


def _spread(difference_nl: np.ndarray) -> np.ndarray:
    """The largest change of a difference of two scores, `(n,)`."""
    spread_n: np.ndarray = difference_nl.max(axis=1) - difference_nl.min(axis=1)
    return spread_n


def _lead(logits_nl: np.ndarray) -> np.ndarray:
    """By how much the best score exceeds the second best, `(n,)`."""
    two_best = np.partition(logits_nl, -2, axis=1)[:, -2:]
    lead_n: np.ndarray = two_best[:, 1] - two_best[:, 0]
    return lead_n
