from itertools import pairwise
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lab3.pruning.rank import PruneStep, channel_stats, describe_surplus, plan_pruning, rank_channels

importances = arrays(np.float64, st.integers(2, 12), elements=st.integers(0, 5).map(float))


@given(importances)
def test_ranking_is_a_permutation_in_ascending_order_with_ties_to_the_lower_index(importance_c: np.ndarray) -> None:
    order = rank_channels(importance_c).tolist()
    assert sorted(order) == list(range(len(importance_c)))
    assert order == sorted(range(len(importance_c)), key=lambda channel: (importance_c[channel], channel))


@given(importances, st.randoms(use_true_random=False))
def test_permuting_channels_permutes_the_ranking(importance_c: np.ndarray, random: object) -> None:
    distinct_c = importance_c + np.arange(len(importance_c)) / 100
    permutation = np.random.default_rng(0).permutation(len(distinct_c))
    assert permutation[rank_channels(distinct_c[permutation])].tolist() == rank_channels(distinct_c).tolist()


@given(importances, arrays(np.float64, 12, elements=st.integers(-3, 6).map(float)))
def test_iterative_plan_equals_the_loop_that_ranks_again(importance_c: np.ndarray, pruned_c: np.ndarray) -> None:
    n = len(importance_c)
    steps = plan_pruning(importance_c, pruned_c[:n], range(n), "iterative")
    gone: set[int] = set()
    for k, step in enumerate(steps):
        means = [pruned_c[c] if c in gone else importance_c[c] for c in range(n)]
        gone |= set(sorted(range(n), key=lambda c: (means[c], c))[:k])
        assert step == PruneStep(k, tuple(sorted(gone)))


@given(importances)
def test_pruned_sets_are_nested_and_both_rankings_agree_where_pruned_means_are_lowest(importance_c: np.ndarray) -> None:
    n = len(importance_c)
    iterative = plan_pruning(importance_c, np.full(n, -1.0), range(n), "iterative")
    assert iterative == plan_pruning(importance_c, np.full(n, -1.0), range(n), "once")
    for before, after in pairwise(iterative):
        assert set(before.pruned_channels) < set(after.pruned_channels)
        assert len(after.pruned_channels) == after.k


def test_channels_that_rise_when_pruned_take_others_with_them() -> None:
    importance_c, bias_c = np.array([1.0, 2.0, 3.0, 4.0]), np.array([9.0, 9.0, 0.0, 0.0])
    gone = [step.pruned_channels for step in plan_pruning(importance_c, bias_c, [0, 1, 2], "iterative")]
    # K=1 takes 0, which rises to 9; at K=2 the lowest two are then 1 and 2.
    assert gone == [(), (0,), (0, 1, 2)]
    once = [step.pruned_channels for step in plan_pruning(importance_c, bias_c, [0, 1, 2], "once")]
    assert once == [(), (0,), (0, 1)]


def test_channel_stats_say_when_each_channel_goes() -> None:
    importance_c = np.array([3.0, 1.0, 2.0])
    stats = channel_stats(importance_c, plan_pruning(importance_c, np.zeros(3), [0, 2], "once"))
    assert [(row.channel, row.importance, row.rank, row.pruned_at_k) for row in stats] == [
        (1, 1.0, 0, 2),
        (2, 2.0, 1, 2),
        (0, 3.0, 2, None),
    ]


@given(
    importances, arrays(np.float64, 12, elements=st.integers(-3, 6).map(float)), st.sampled_from(["once", "iterative"]),
    st.sets(st.integers(0, 11)),
)  # fmt: skip
def test_a_step_of_the_schedule_changes_what_is_pruned_only_where_it_is_said(
    importance_c: np.ndarray, pruned_c: np.ndarray, ranking: Any, some: set[int]
) -> None:
    n = len(importance_c)
    every = plan_pruning(importance_c, pruned_c[:n], range(n), ranking)
    reason = describe_surplus(importance_c, pruned_c[:n], every, ranking)
    if reason is None:
        schedule = sorted(k for k in some if k < n)
        steps = plan_pruning(importance_c, pruned_c[:n], schedule, ranking)
        assert steps == tuple(every[k] for k in schedule)
        assert all(len(step.pruned_channels) == step.k for step in every)


def test_more_channels_than_k_are_explained() -> None:
    importance_c, kept_bias_c = np.array([1.0, 2.0, 3.0]), np.array([5.0, 0.0, 0.0])
    steps = plan_pruning(importance_c, kept_bias_c, [0, 1, 2], "iterative")
    assert describe_surplus(importance_c, kept_bias_c, steps, "iterative") == (
        "at K=2 3 channels are pruned: pruning raises the importance of 1 of 3 channels, so others are among the "
        "lowest K as well, and what is pruned at a K depends on the K before; prune.ranking: once prunes exactly K"
    )
