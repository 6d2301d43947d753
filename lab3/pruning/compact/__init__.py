"""A really smaller model that gives exactly what the model with pruned channels gives, and what it saves.

Channels go out of their layer, out of the layers behind it that keep channels apart, and out of every layer that reads
them. What is lost is constant: 0 where a removed channel is read, what zero weights leave behind, and what
normalisation makes of either. `walk` and `plan` follow it, `constants` says where it goes, `build` makes the model,
`proof` holds it against the masked one on images, `cost` measures both.
"""

from collections.abc import Sequence
from typing import Any

from lab3.pruning.anatomy import Anatomy
from lab3.pruning.compact.build import build_compact
from lab3.pruning.compact.cost import Cost, Speed, compare_speed, measure_cost
from lab3.pruning.compact.plan import Plan, plan_compaction
from lab3.pruning.compact.proof import Proof, mask_layer, mask_network, prove_compact
from lab3.pruning.compact.rounding import round_width

__all__ = [
    "Cost", "Plan", "Proof", "Speed", "build_compact", "compact_model", "compare_speed", "mask_layer", "mask_network",
    "measure_cost", "plan_compaction", "prove_compact", "round_width",
]  # fmt: skip


def compact_model(anatomy: Anatomy, pruned_channels: Sequence[int]) -> Any:
    """A Keras model without `pruned_channels` that gives what the model gives with them pruned.

    It is flat (nested models become their layers), not compiled, shares nothing with the original, and has its layers'
    names. Raises `ModelError`, naming the layer in the way, where the channels cannot be taken out exactly.

    >>> anatomy = examine_model(model, "conv2d_12")  # doctest: +SKIP
    >>> compact_model(anatomy, [3, 5, 8]).save("smaller.keras")  # doctest: +SKIP
    """
    return build_compact(plan_compaction(anatomy, pruned_channels))
