"""Which channels of which layers go for a budget of accuracy: first what costs the least accuracy for what it saves.

In rounds: what each layer costs alone beside what is pruned already, the order of steps that follows from it, and the
longest part of that order that keeps the budget with all steps together. The next round measures again, on finer steps
near the budget. NumPy only; what is measured comes from outside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np

Ks = tuple[int, ...]  # the number of channels pruned of each layer
_N_LEVELS = 8
_LEAST_GAIN = 0.01
_MAX_FAILURES = 8
_N_RUNGS = 8


class Measure(Protocol):
    """What is measured for a plan; K of every layer, accuracy lost against the network as it was, in 0..1."""

    def lost_alone(self, ks: Ks, levels: Mapping[int, Sequence[int]]) -> Mapping[int, Sequence[float]]:
        """Lost with each of `levels` of a layer in place of its K, by the number of the layer."""
        ...

    def lost(self, ks: Ks) -> float:
        """Lost with all of `ks`."""
        ...

    def saved_per_channel(self, ks: Ks) -> Sequence[float]:
        """The cost that one more channel of each layer saves; 0 or less where it saves nothing."""
        ...

    def cost(self, ks: Ks) -> float:
        """What is left of the cost, in its own unit."""
        ...


@dataclass(frozen=True)
class PlanStep:
    """A plan that keeps the budget on the images that chose it: `lost` accuracy, `cost` left."""

    ks: Ks
    lost: float
    cost: float


@dataclass(frozen=True)
class FrontierPoint:
    """A plan as others see it: `lost` accuracy on the images that chose, `cost_share` left of the cost."""

    plan: int
    n_pruned: int
    lost: float
    cost_share: float
    is_certified: bool


def frontier_of(plans: Sequence[PlanStep], n_certified: int) -> list[FrontierPoint]:
    """The plans that `choose_channels` gave, the first `n_certified` behind the start certified."""
    return [
        FrontierPoint(number, sum(plan.ks), plan.lost, plan.cost / plans[0].cost, number <= n_certified)
        for number, plan in enumerate(plans)
    ]


def marked(frontier: Sequence[FrontierPoint], n_pruned: int) -> tuple[FrontierPoint | None, FrontierPoint | None]:
    """What is marked of a frontier: the last plan that is certified, and the one of `n_pruned` channels if another.

    >>> first, second = FrontierPoint(0, 0, 0.0, 1.0, True), FrontierPoint(1, 8, 0.01, 0.7, True)
    >>> marked([first, second], 8) == (second, None), marked([first, second], 0) == (second, None)
    (True, True)
    """
    plans = [point for point in frontier if point.n_pruned]
    certified = next((point for point in reversed(plans) if point.is_certified), None)
    taken = next((point for point in plans if point.n_pruned == n_pruned), None)
    return certified, None if taken == certified else taken


def choose_channels(
    measure: Measure,
    n_channels: Sequence[int],
    budget: float,
    *,
    max_rounds: int = 4,
    on_round: Callable[[int, PlanStep], None] = lambda number, best: None,
) -> list[PlanStep]:
    """Plans as they grow: nothing pruned, then one at each eighth of the steps, and of the `budget`.

    Each prunes what the one before does and more. `n_channels`: of each layer; one always stays. `on_round` gets the
    number of each round, from 1, and the best plan after it.
    """
    start: Ks = tuple(0 for _ in n_channels)
    path, costs = [start], [measure.cost(start)]
    limits = [n - 1 for n in n_channels]
    for number in range(1, max_rounds + 1):
        before = path[-1]
        saved = measure.saved_per_channel(before)
        levels = {
            layer: spread(k, limit)
            for layer, (k, limit) in enumerate(zip(before, limits, strict=True))
            if k < limit and saved[layer] > 0
        }
        if not levels:
            break
        lost, lost_alone = measure.lost(before), measure.lost_alone(before, levels)
        steps = order_steps(before, lost, levels, lost_alone, saved)
        grown, failed = grow(before, steps, lambda ks: measure.lost(ks) <= budget)
        path += grown
        for layer, found in levels.items():
            over = [k for k, value in zip(found, lost_alone[layer], strict=True) if value > budget]
            # What fails once is tried in smaller steps.
            halved = [(path[-1][layer] + failed[layer]) // 2] if layer in failed else []
            limits[layer] = min([limits[layer], *over, *halved])
        costs.append(measure.cost(path[-1]))
        on_round(number, PlanStep(path[-1], measure.lost(path[-1]), costs[-1]))
        if number > 1 and costs[-2] - costs[-1] < _LEAST_GAIN * costs[0]:
            break
    last, marks = len(path) - 1, {0}
    for eighth in range(1, _N_RUNGS + 1):
        allowed = budget * eighth / _N_RUNGS
        marks |= {last * eighth // _N_RUNGS, longest_prefix(last, lambda n: measure.lost(path[n]) <= allowed)}  # noqa: B023
    return [PlanStep(path[mark], measure.lost(path[mark]), measure.cost(path[mark])) for mark in sorted(marks)]


def spread(first: int, last: int, n_levels: int = _N_LEVELS) -> list[int]:
    """At most `n_levels` integers behind `first` up to `last`, evenly spread.

    >>> spread(0, 8, 4)
    [2, 4, 6, 8]
    """
    levels: list[int] = np.unique(np.linspace(first, last, n_levels + 1).round().astype(int))[1:].tolist()
    return levels


def order_steps(
    ks: Ks,
    lost: float,
    levels: Mapping[int, Sequence[int]],
    lost_alone: Mapping[int, Sequence[float]],
    saved: Sequence[float],
) -> list[tuple[int, int]]:
    """Steps `(layer, K)` from `ks`, which lose `lost`, ascending by accuracy lost for cost saved; of a layer by K.

    Of each layer's levels only those on the lower convex hull of loss over saving are taken: between two of them the
    others lose more for what they save.

    >>> order_steps((0, 0), 0.0, {0: [1, 2], 1: [1, 2]}, {0: [0.1, 0.5], 1: [0.3, 0.4]}, [1.0, 1.0])
    [(0, 1), (1, 2), (0, 2)]
    """
    steps = []
    for layer, found in levels.items():
        hull = [(0.0, lost, ks[layer])]
        for k, value in zip(found, lost_alone[layer], strict=True):
            point = ((k - ks[layer]) * saved[layer], value, k)
            while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
                hull.pop()
            hull.append(point)
        steps += [(_slope(one, other), layer, other[2]) for one, other in pairwise(hull)]
    return [(layer, k) for _, layer, k in sorted(steps)]


def grow(
    ks: Ks, steps: Sequence[tuple[int, int]], keeps_budget: Callable[[Ks], bool]
) -> tuple[list[Ks], dict[int, int]]:
    """Take `steps` in order, without those that break the budget and what follows them of the same layer.

    Returns the plans on the way, and by layer the first K that broke the budget; at most `_MAX_FAILURES` layers.

    >>> grow((0, 0), [(0, 3), (1, 2), (0, 5), (1, 4)], lambda ks: sum(ks) <= 7)
    ([(3, 0), (3, 2), (5, 2)], {1: 4})
    """
    path: list[Ks] = []
    failed: dict[int, int] = {}
    while steps and len(failed) < _MAX_FAILURES:
        plans, current = [], list(ks)
        for layer, k in steps:
            current[layer] = k
            plans.append(tuple(current))
        n_kept = longest_prefix(len(plans), lambda n: keeps_budget(plans[n - 1]))  # noqa: B023
        path += plans[:n_kept]
        ks = path[-1] if path else ks
        if n_kept < len(steps):
            layer, k = steps[n_kept]
            failed[layer] = k
        steps = [(layer, k) for layer, k in steps[n_kept + 1 :] if layer not in failed]
    return path, failed


def longest_prefix(n: int, keeps_budget: Callable[[int], bool]) -> int:
    """The largest number found, of 0..`n`, that keeps the budget: in doubling strides, then by halves.

    >>> longest_prefix(100, lambda number: number <= 37)
    37
    """
    good, bad = 0, n + 1
    while bad - good > 1:
        # Strides double while nothing has failed yet.
        tried = min(n, max(1, 2 * good)) if bad > n else (good + bad) // 2
        if keeps_budget(tried):
            good = tried
        else:
            bad = tried
    return good


def _slope(one: tuple[float, float, int], other: tuple[float, float, int]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
