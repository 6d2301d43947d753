"""How far scores can stray from a straight line between two K."""

import numpy as np

SAFETY = 3.0


class LineExceededError(Exception):
    """Scores moved further from a straight line than the bound allows."""


class Bounds:
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
                float((_spread(logits_knl[k] - line(logits_knl[low], logits_knl[high], low, high, k)) / scale_n).max())
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
        """Raise `LineExceededError` if scores in the middle are further from the line than allowed."""
        error_n = _spread(middle_nl - line(low_nl, high_nl, low, high, middle))
        if (error_n > self._allowed(low, high, low_nl, high_nl)).any():
            raise LineExceededError

    def _allowed(self, low: int, high: int, low_nl: np.ndarray, high_nl: np.ndarray) -> np.ndarray:
        allowed: np.ndarray = SAFETY * self._bound[high - low] * (_spread(high_nl - low_nl) + self._floor[low, high])
        return allowed


def line(low_nl: np.ndarray, high_nl: np.ndarray, low: int, high: int, k: int) -> np.ndarray:
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
