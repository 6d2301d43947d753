"""Which images a sweep loses and wins, from what turns at each of its points."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab3.pruning.engine import SweepPoint, follow


def rightness(points: Sequence[SweepPoint]) -> np.ndarray:
    """Which images are right at each of a sweep's points, in ascending K from its first: bool `(K, N)`."""
    right_kn = np.ones((len(points), points[0].total), bool)
    before_n = right_kn[0]
    for row, point in enumerate(points):
        right_kn[row] = before_n = follow(before_n, point)
    return right_kn


def are_consistent(points: Sequence[SweepPoint]) -> list[bool]:
    """For each point: whether the images that turned, its counts, and those by class fit each other and K = 0."""
    right_kn = rightness(points)
    unpruned_n = right_kn[0] if points[0].k == 0 else None
    unpruned_l = _unpruned_by_class(points[0])
    fits = []
    for point, right_n in zip(points, right_kn, strict=True):
        expected: tuple[int, ...] = (int(right_n.sum()),)
        found: tuple[int, ...] = (point.correct,)
        if unpruned_n is not None:
            expected += (int((unpruned_n & ~right_n).sum()), int((right_n & ~unpruned_n).sum()))
            found += (point.n_lost, point.n_gained)
        fits.append(expected == found and _unpruned_by_class(point) == unpruned_l)
    return fits


def _unpruned_by_class(point: SweepPoint) -> list[int]:
    """Images of each class that are right at K = 0, by what the point says."""
    counts = zip(point.class_correct, point.class_lost, point.class_gained, strict=True)
    return [correct + lost - gained for correct, lost, gained in counts]


@dataclass(frozen=True)
class Flip:
    """An image, by number, that is right at K = 0 and at every K before `k`, and wrong there."""

    image: int
    k: int


def first_flips(points: Sequence[SweepPoint]) -> list[Flip]:
    """The images that are lost, by the K at which they are for the first time; none where the sweep lacks K = 0."""
    if points[0].k != 0:
        return []
    seen = set(points[0].turned_wrong)  # wrong from the start
    flips = []
    for point in points[1:]:
        flips += [Flip(image, point.k) for image in point.turned_wrong if image not in seen]
        seen.update(point.turned_wrong)
    return flips


@dataclass(frozen=True)
class LostImages:
    """The images lost first: their flips, the class of each, and uint8 pictures `(n, H, W)` or `(n, H, W, 3)`."""

    flips: Sequence[Flip]
    labels: Sequence[int]
    pictures: np.ndarray
