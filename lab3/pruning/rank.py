"""From importance to the channels pruned at every K. NumPy only.

Source: the loop of both laboratory reports, which ranks again at each K on the network as pruned so far. The channels
of one layer do not feed each other, so pruning changes only the pruned channels' own means, and the loop is simulated
on the vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab3.vocabulary import Ranking


@dataclass(frozen=True)
class PruneStep:
    """`pruned_channels`, ascending, are pruned at `k`; there can be more than `k` of them with iterative ranking."""

    k: int
    pruned_channels: tuple[int, ...]


def rank_channels(importance_c: np.ndarray) -> np.ndarray:
    """Channels from the least to the most important, int64 `(C,)`; ties go to the lower index.

    >>> rank_channels(np.array([3.0, 1.0, 1.0])).tolist()
    [1, 2, 0]
    """
    return np.argsort(importance_c, kind="stable")


def plan_pruning(
    importance_c: np.ndarray, pruned_importance_c: np.ndarray, schedule: Sequence[int], ranking: Ranking
) -> tuple[PruneStep, ...]:
    """The channels pruned at each K of `schedule`.

    `once`: the K least important. `iterative`: at each K in turn, the K lowest of the importances as they then are,
    where a channel already pruned has `pruned_importance_c`; nothing is ever restored. Both arrays are `(C,)`.

    >>> kept_bias = np.array([5.0, 0.0, 0.0])  # channel 0 rises when pruned, so K = 2 takes both others as well
    >>> [step.pruned_channels for step in plan_pruning(np.array([1.0, 2.0, 3.0]), kept_bias, [0, 1, 2], "iterative")]
    [(), (0,), (0, 1, 2)]
    """
    current_c = np.array(importance_c, np.float64)
    is_pruned_c = np.zeros(len(current_c), bool)
    steps = []
    for k in schedule:
        lowest = rank_channels(current_c)[:k]
        is_pruned_c[lowest] = True
        if ranking == "iterative":
            current_c[lowest] = pruned_importance_c[lowest]
        steps.append(PruneStep(k, tuple(np.flatnonzero(is_pruned_c).tolist())))
    return tuple(steps)


def describe_surplus(
    importance_c: np.ndarray, pruned_importance_c: np.ndarray, steps: Sequence[PruneStep], ranking: Ranking
) -> str | None:
    """Why more channels than K are pruned, or may be with another schedule; None where each K stands for K channels.

    With `iterative` ranking a channel whose importance rises when it is pruned makes room among the lowest K.
    """
    n_rising = int((pruned_importance_c > importance_c).sum())
    if ranking == "once" or not n_rising:
        return None
    first = next((step for step in steps if len(step.pruned_channels) > step.k), None)
    shown = f"at K={first.k} {len(first.pruned_channels)} channels are pruned" if first else "K channels are pruned"
    return (
        f"{shown}: pruning raises the importance of {n_rising} of {len(importance_c)} channels, so others are among "
        "the lowest K as well, and what is pruned at a K depends on the K before; prune.ranking: once prunes exactly K"
    )


@dataclass(frozen=True)
class ChannelStats:
    """One channel: `rank` 0 is the least important; `pruned_at_k` is the first K that prunes it, None if none does."""

    channel: int
    importance: float
    rank: int
    pruned_at_k: int | None


def channel_stats(importance_c: np.ndarray, steps: Sequence[PruneStep]) -> list[ChannelStats]:
    """Every channel, the least important first. `importance_c`: `(C,)`."""
    first: dict[int, int] = {}
    for step in steps:
        for channel in step.pruned_channels:
            first.setdefault(channel, step.k)
    return [
        ChannelStats(int(channel), float(importance_c[channel]), rank, first.get(int(channel)))
        for rank, channel in enumerate(rank_channels(importance_c))
    ]
