"""Two sweeps of the same images, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from lab3.analysis.flips import rightness
from lab3.analysis.tango import tango_interval
from lab3.pruning.engine import SweepPoint


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Both sweeps at one `k`: `only_first` images are right in the first alone, `only_second` in the second alone.

    `difference`: accuracy of the second less that of the first, with its score interval `low` to `high` for this K
    alone. `p`: of so unlike counts where neither is better, two-sided and exact.
    """

    k: int
    first: float
    second: float
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def sign_test(first_n: np.ndarray, second_n: np.ndarray) -> float:
    """p of as many images that one of two classifiers alone gets right, where neither is better; two-sided, exact.

    `first_n` and `second_n`, bool `(N,)`, say which of the same images each gets right. Source: McNemar, 1947.

    >>> sign_test(np.array([True, True, True]), np.array([True, False, False]))
    0.5
    """
    only_first, only_second = int((first_n & ~second_n).sum()), int((second_n & ~first_n).sum())
    n_unlike = only_first + only_second
    return float(binomtest(only_first, n_unlike).pvalue) if n_unlike else 1.0


def compare_sweeps(first: Sequence[SweepPoint], second: Sequence[SweepPoint], confidence: float) -> list[Paired]:
    """Every K that both sweeps have; points in ascending K, of the same images in the same order.

    Sources: McNemar, Note on the sampling error of the difference between correlated proportions or percentages,
    Psychometrika 12:153-157, 1947; the interval is Tango's, as in the certificate.
    """
    right, points = [], []
    for each in (first, second):
        points.append({point.k: point for point in each})
        right.append(dict(zip(points[-1], rightness(each), strict=True)))
    common = [k for k in points[0] if k in points[1]]
    if not common:
        return []
    only = [np.array([int((one[k] & ~other[k]).sum()) for k in common]) for one, other in (right, right[::-1])]
    low_k, high_k = tango_interval(only[0], only[1], first[0].total, confidence)
    found = []
    for number, k in enumerate(common):
        only_first, only_second = int(only[0][number]), int(only[1][number])
        n_unlike = only_first + only_second
        found.append(
            Paired(
                k=k,
                first=points[0][k].accuracy,
                second=points[1][k].accuracy,
                only_first=only_first,
                only_second=only_second,
                difference=(only_second - only_first) / first[0].total,
                # The interval is that of the fall from the first to the second.
                low=-float(high_k[number]),
                high=-float(low_k[number]),
                p=float(binomtest(only_first, n_unlike).pvalue) if n_unlike else 1.0,
            )
        )
    return found
