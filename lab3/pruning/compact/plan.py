"""How a model becomes smaller."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab3.pruning.anatomy import Anatomy
from lab3.pruning.compact.constants import choose_constant_channels
from lab3.pruning.compact.narrowed import Narrowed, refuse
from lab3.pruning.compact.walk import Walk


@dataclass(frozen=True)
class Plan:
    """How a model becomes smaller.

    `constant_channels`: pruned channels that stay, without weights, to hold constants for layers that cannot have them
    in their bias. `narrowed`: tensors that lose units, by slot. `widened`: for steps that join such a tensor with whole
    ones, by the slot of their output, the slots that get their lost units back right before.
    """

    anatomy: Anatomy
    pruned_channels: tuple[int, ...]
    constant_channels: tuple[int, ...]
    narrowed: dict[int, Narrowed]
    widened: dict[int, tuple[int, ...]]

    @property
    def n_channels(self) -> int:
        """Channels of the smaller layer."""
        return self.anatomy.n_channels - len(self.pruned_channels) + len(self.constant_channels)

    def is_removed_u(self, narrowed: Narrowed) -> np.ndarray:
        """True for the units that the smaller tensor does not have, bool `(U,)`."""
        is_removed_u: np.ndarray = narrowed.is_lost_u & ~np.isin(narrowed.channel_u, self.constant_channels)
        return is_removed_u

    def kept_u(self, slot: int) -> np.ndarray | None:
        """The units that the smaller tensor has, ascending; None where it is whole."""
        narrowed = self.narrowed.get(slot)
        return None if narrowed is None else np.flatnonzero(~self.is_removed_u(narrowed))


def plan_compaction(anatomy: Anatomy, pruned_channels: Sequence[int]) -> Plan:
    """How the model loses `pruned_channels` of the layer.

    Raises `ModelError`, naming the layer in the way, where they cannot be taken out exactly.
    """
    lost = tuple(sorted(pruned_channels))
    if len(lost) >= anatomy.n_channels:
        refuse(anatomy.calls[0], f"has {anatomy.n_channels} channels and all are pruned", "prune fewer")
    walk = Walk(anatomy, lost)
    if lost:
        walk.follow_all()
    constant_channels = choose_constant_channels(anatomy, walk.reads, lost)
    return Plan(anatomy, lost, constant_channels, walk.narrowed, walk.widened)
