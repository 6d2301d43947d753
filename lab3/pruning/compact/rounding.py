"""Widths that hardware likes."""

from collections.abc import Sequence

import numpy as np

from lab3.errors import ConfigError
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.compact.plan import Plan, plan_compaction
from lab3.pruning.rank import rank_channels


def round_width(
    anatomy: Anatomy, pruned_channels: Sequence[int], importance_c: np.ndarray, multiple: int
) -> tuple[Plan, Plan]:
    """The plan for `pruned_channels`, and one whose layer has a multiple of `multiple` channels.

    The most important of the pruned channels stay, float `importance_c` `(C,)`, which is a smaller K of the ranking.
    Constant channels count as channels. Raises `ConfigError` where no channel would then be pruned.
    """
    plan = rounded = plan_compaction(anatomy, pruned_channels)
    ranked = [channel for channel in rank_channels(importance_c).tolist() if channel in set(pruned_channels)]
    while rounded.n_channels % multiple and ranked:
        ranked = ranked[: max(0, len(ranked) - max(1, -rounded.n_channels % multiple))]
        rounded = plan_compaction(anatomy, ranked)
    if not ranked or rounded.n_channels == anatomy.n_channels:
        raise ConfigError(
            f"--round-to must leave fewer channels than the {anatomy.n_channels} of layer {anatomy.layer.name!r}, got "
            f"{multiple}, of which no multiple lies in {plan.n_channels}..{anatomy.n_channels - 1}; give a smaller "
            "number, or a larger K"
        )
    return plan, rounded
