"""Tango's score test of paired proportions, and the level at which its error is what it says.

Two models are evaluated on the same `n` images: b images are right with the first alone, c with the second alone. The
accuracy lost is (b - c) / n; the test asks whether it is truly below a tolerance set beforehand.
"""

from functools import lru_cache
from math import ceil, expm1, floor, log, log1p, log10

import numpy as np
from scipy.special import bdtr, gammaln, ndtr, ndtri, xlog1py, xlogy

_N_HALVINGS, _N_LARGEST = 24, 12


def tango_p(n_lost: np.ndarray, n_gained: np.ndarray, n: int, tolerance: float) -> np.ndarray:
    """One-sided p of the hypothesis that the accuracy lost is at least `tolerance`: float64, small where it is less.

    `n_lost` and `n_gained`: b and c, integers of one shape, which is that of the result. 0 < `tolerance` < 1. Source:
    Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample design,
    Statistics in Medicine 17:891-908, 1998.

    >>> tango_p(np.array([10]), np.array([0]), 1000, 0.03).round(6).tolist()
    [6.6e-05]
    """
    p: np.ndarray = ndtr(_statistic(np.asarray(n_lost), np.asarray(n_gained), n, np.asarray(tolerance)))
    return p


def tango_interval(
    n_lost: np.ndarray, n_gained: np.ndarray, n: int, confidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """The two-sided score interval of the accuracy lost at each of several K alone, float64: lowest and highest.

    What the score test does not reject at (1 - `confidence`) / 2 on either side.
    """
    z = ndtri((1 + confidence) / 2)
    ends = []
    for limit in (z, -z):
        low, high = np.full(np.shape(n_lost), -1.0), np.full(np.shape(n_lost), 1.0 - 1e-12)
        for _ in range(60):  # the statistic falls as the loss it is held against rises
            middle = (low + high) / 2
            is_above = _statistic(n_lost, n_gained, n, middle) > limit
            low, high = np.where(is_above, middle, low), np.where(is_above, high, middle)
        ends.append((low + high) / 2)
    return ends[0], ends[1]


def _statistic(n_lost: np.ndarray, n_gained: np.ndarray, n: int, loss: np.ndarray) -> np.ndarray:
    """How many standard errors the loss that was seen is above `loss`."""
    b, c = n_lost.astype(np.float64), n_gained.astype(np.float64)
    # The likeliest probability of c where the loss is just `loss`: the root of 2n q^2 + linear q + constant.
    linear, constant = -b - c + (2 * n - b + c) * loss, -c * loss * (1 - loss)
    q = (np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear) / (4 * n)
    variance = np.maximum(n * (2 * q + loss * (1 - loss)), 1e-12)
    statistic: np.ndarray = (b - c - n * loss) / np.sqrt(variance)
    return statistic


@lru_cache(maxsize=256)
def exact_level(n: int, tolerance: float, alpha: float) -> float:
    """The largest nominal level, at most `alpha`, at which the test errs with a probability of at most `alpha`.

    Whatever the truth is: it errs most where the loss is just `tolerance`. Then m = b + c is Bin(n, psi), b given m is
    Bin(m, (1 + tolerance / psi) / 2), and psi in `tolerance`..1 is unknown. The level is lowered by bisection until the
    error is at most `alpha` at all psi of a grid as fine as the spread of m / n, and ten times finer where the
    error is largest.
    """
    # In equal steps of arcsin(sqrt(psi)) the spread of m / n is equal, 1 / (2 sqrt(n)).
    first = np.arcsin(np.sqrt(tolerance))
    angles = np.linspace(first, np.pi / 2, int(2 * np.sqrt(n) * (np.pi / 2 - first)) + 2)
    sizes = _Truths(n, tolerance, angles).sizes(alpha)
    step = angles[1] - angles[0]
    near = np.concatenate([angles[i] + step * np.linspace(-1, 1, 11) for i in np.argsort(-sizes)[:_N_LARGEST]])
    angles = np.unique(np.clip(np.concatenate([angles, near]), first, np.pi / 2))
    every = _Truths(n, tolerance, angles)
    level, hardest = alpha, list[int]()
    while (sizes := every.sizes(level)).max() > alpha:
        hardest += np.argsort(-sizes)[:_N_LARGEST].tolist()
        low, high, hard = 0.0, level, _Truths(n, tolerance, angles[sorted(set(hardest))])
        for _ in range(_N_HALVINGS):
            middle = (low + high) / 2
            is_low = hard.sizes(middle).max() <= alpha
            low, high = (middle, high) if is_low else (low, middle)
        level = low
    return level


def largest_losses(n: int, tolerance: float, level: float) -> np.ndarray:
    """For each m = b + c in 0..n the largest b that the test passes at `level`, -1 where none does; int `(n + 1,)`."""
    m = np.arange(n + 1)
    low, high = np.full(n + 1, -1), m.copy()
    # p rises with b where m is fixed.
    while (low < high).any():
        middle = (low + high + 1) // 2
        passes = tango_p(middle, m - middle, n, tolerance) <= level
        low, high = np.where(passes, middle, low), np.where(passes, high, middle - 1)
    return low


def images_needed(tolerance: float, alpha: float) -> int:
    """The fewest images with which anything can be certified, to a hundredth; above 50,000 a lower bound.

    On fewer than log(alpha) / log(1 - tolerance) it is too likely that none changes; where several are compared, the
    test needs some more.

    >>> images_needed(0.01, 0.05), images_needed(0.05, 0.05)
    (299, 59)
    """
    n = ceil(log(alpha) / log1p(-tolerance) - 1e-9)
    while n <= 50_000 and not can_certify(n, tolerance, alpha):
        n += max(1, n // 100)
    return n


def least_tolerance(n: int, alpha: float) -> float:
    """The smallest tolerance, in steps of two digits, with which `n` images can certify anything.

    >>> least_tolerance(445, 0.05)
    0.0068
    """
    exact = -expm1(log(alpha) / n)
    digits = 1 - floor(log10(exact))
    number = ceil(exact * 10**digits - 1e-9)
    while not can_certify(n, round(number / 10**digits, digits), alpha):
        number += 1
    return float(round(number / 10**digits, digits))


def can_certify(n: int, tolerance: float, alpha: float) -> bool:
    """True if `n` images of which none changes pass the test."""
    if n * log1p(-tolerance) > log(alpha):
        return False
    return bool(tango_p(np.array(0), np.array(0), n, tolerance) <= exact_level(n, tolerance, alpha))


def _weights(n: int, tolerance: float, angle: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The likely m at psi = sin(angle)^2, their probabilities, and the probability that one of these images is lost."""
    psi = float(np.sin(angle) ** 2)
    reach = 8 * np.sqrt(n * psi * (1 - psi)) + 30
    m = np.arange(max(0, floor(n * psi - reach)), min(n, ceil(n * psi + reach)) + 1)
    log_of = gammaln(n + 1) - gammaln(m + 1) - gammaln(n - m + 1) + xlogy(m, psi) + xlog1py(n - m, -psi)
    return m, np.exp(log_of), min(1.0, (1 + tolerance / psi) / 2)


class _Truths:
    """Some psi = sin(`angles`)^2, each with the probability that the test passes a loss of just `tolerance` there."""

    def __init__(self, n: int, tolerance: float, angles: np.ndarray) -> None:
        self._n, self._tolerance = n, tolerance
        self._weights = [_weights(n, tolerance, angle) for angle in angles]
        self._largest = np.full(n + 1, -2)
        self._passing = [np.empty(len(m)) for m, _, _ in self._weights]

    def sizes(self, level: float) -> np.ndarray:
        """The probabilities of the test at `level`; between two levels that are near only few m change."""
        largest = largest_losses(self._n, self._tolerance, level)
        has_changed, self._largest = largest != self._largest, largest
        for (m, _, p), passing in zip(self._weights, self._passing, strict=True):
            at = has_changed[m]
            b, m = largest[m[at]], m[at]
            # The distribution function of b at -1 is 0, which bdtr does not know.
            passing[at] = np.where(b < 0, 0.0, bdtr(np.maximum(b, 0), m, p))
        return np.array([w @ passing for (_, w, _), passing in zip(self._weights, self._passing, strict=True)])
