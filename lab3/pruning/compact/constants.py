"""Where the constants of lost units go: into the bias of the layer that reads them, or into constant channels.

A layer with padding, or one that reads constants which differ from place to place, cannot have them in its bias. It is
linear, so what it makes of a lost unit is what it makes of other units whose maps add up to that unit's. Some of the
pruned channels therefore stay, without weights: as few as have maps from which all others can be composed. One is
enough where all constants are uniform; behind a padded 3x3 depthwise convolution there are at most nine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import to_numpy
from lab3.base.graph import Step, run_steps
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.compact.narrowed import Narrowed, refuse, spread, zeros_like


@dataclass(frozen=True)
class Read:
    """A layer that mixes what is left of `narrowed`, or a step before which that is widened."""

    step: Step
    narrowed: Narrowed
    is_widening: bool = False

    @property
    def is_foldable(self) -> bool:
        """True if the constants are the same in every sum of the layer: 0, or one number a unit without a border."""
        if self.narrowed.is_zero:
            return True
        if not self.is_widening and (type(self.step.layer).__name__ == "Conv2DTranspose" or _pads(self.step)):
            return False
        return self.narrowed.is_uniform


def choose_constant_channels(anatomy: Anatomy, reads: Sequence[Read], lost: Sequence[int]) -> tuple[int, ...]:
    """The fewest of the `lost` channels that compose all constants which cannot be folded; none where all can."""
    chosen: list[int] = []
    for read in reads:
        if read.is_foldable:
            continue
        if type(read.step.layer).__name__ == "SeparableConv2D" and not read.is_widening:
            refuse(read.step, "gives each constant a kernel of its own", _other_effect(anatomy))
        narrowed = read.narrowed
        maps = np.unique(narrowed.rows, axis=0)
        channels = narrowed.channel_u[narrowed.is_lost_u]
        # The strongest map first, then that of which most is missing.
        while len(chosen) < len(lost):
            missing = maps - _project(maps, np.isin(channels, chosen))
            if np.abs(missing).max() <= narrowed.rounding * np.abs(maps).max():
                break
            chosen.append(int(channels[np.square(missing).sum(axis=0).argmax()]))
        if len(chosen) == len(lost):
            remedy = f"prune more channels, {_other_effect(anatomy)}"
            refuse(read.step, "reads constants that need as many channels as are pruned", remedy)
    if chosen and anatomy.effect == "remove":
        _check_silence(anatomy)
    return tuple(sorted(chosen))


def compose(narrowed: Narrowed, is_removed_u: np.ndarray) -> np.ndarray:
    """How the maps of units that are removed add up from those of lost units that stay, float64 `(stay, removed)`."""
    removed = is_removed_u[narrowed.is_lost_u]
    maps = np.unique(narrowed.rows, axis=0)
    shares: np.ndarray = np.linalg.lstsq(maps[:, ~removed], maps[:, removed], rcond=None)[0]
    return shares


def _project(maps: np.ndarray, is_basis: np.ndarray) -> Any:
    """What of `maps` `(P, units)` the units of the basis compose."""
    basis = maps[:, is_basis]
    return basis @ np.linalg.lstsq(basis, maps, rcond=None)[0] if is_basis.any() else 0.0


def _pads(step: Step) -> bool:
    """True for a convolution some of whose sums reach beyond the border."""
    layer = step.layer
    if getattr(layer, "padding", "valid") == "valid":
        return False
    sizes = zip(
        step.node.input_tensors[0].shape[1:3], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    )
    return any(
        kernel > 1 and (size is None or (-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 > size)
        for size, kernel, stride, dilation in sizes
    )


def _check_silence(anatomy: Anatomy) -> None:
    """A removed channel that stays must be 0 up to where it is first read, whatever activations are on the way."""
    import keras

    for step in (*anatomy.calls, *anatomy.parts.alone):
        layer, tensor = step.layer, step.node.input_tensors[0]
        if isinstance(layer, keras.layers.BatchNormalization):
            continue
        if step in anatomy.calls or isinstance(layer, keras.layers.DepthwiseConv2D):
            value = layer.activation(keras.ops.zeros((1,)))
        else:
            values = {slot: spread(zeros_like(tensor), tensor) for slot in step.input_slots}
            value = run_steps([step], values)[step.outputs[0]]
        if to_numpy(value).any():
            refuse(step, "makes something of 0, and a removed channel must stay to hold constants")


def _other_effect(anatomy: Anatomy) -> str:
    return "prune another layer" + ", sweep with prune.effect=remove" * (anatomy.effect == "zero_weights")
