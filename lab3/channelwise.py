"""Which steps of a graph keep channels apart, and which layer first mixes them.

A tensor is channel-wise if entry u of its last axis depends, of all channels of the pruned layer, on channel u % C
alone. The pruned layer's output is. Flattening or reshaping keeps it so, because the channel axis is last and varies
fastest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab3.graph import Step

_ELEMENTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid",
    "hard_silu", "tanh", "hard_tanh", "soft_shrink", "hard_shrink", "softplus", "softsign", "exponential", "mish",
    "log_sigmoid", "threshold", "tanh_shrink", "squareplus",
}  # fmt: skip
_ALWAYS = {
    "ReLU", "LeakyReLU", "ELU", "PReLU", "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout",
    "GaussianDropout", "GaussianNoise", "ActivityRegularization",
}  # fmt: skip
_SPATIAL = {
    "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D", "ZeroPadding2D", "Cropping2D",
    "UpSampling2D", "Flatten",
}  # fmt: skip
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}


@dataclass(frozen=True)
class Separation:
    """The head of a cut model in three parts: `channelwise`, then `mixing`, one Dense or Conv2D, then `rest`.

    `mixing` is None where there is no such division; `reason` then says why, and everything is in `rest`. `uses_others`
    is True where the channel-wise part also reads tensors that pass the pruned layer by, as behind a residual
    connection.
    """

    channelwise: tuple[Step, ...]
    mixing: Step | None
    rest: tuple[Step, ...]
    uses_others: bool
    reason: str | None


def separate(head_steps: Sequence[Step], output_slots: Sequence[int], n_channels: int) -> Separation:
    """`head_steps`, what follows the pruned layer, divided at the first mixing layer.

    `output_slots` are the layer's outputs, one for each call of it.
    """

    def undivided(reason: str) -> Separation:
        return Separation((), None, tuple(head_steps), False, reason)

    if len(output_slots) > 1:
        return undivided(f"it is called {len(output_slots)} times")
    channelwise_slots = set(output_slots)
    dependent = channelwise_slots | {slot for step in head_steps for slot in step.outputs}
    n_apart, uses_others = 0, False
    for step in head_steps:
        inputs = [slot for slot in step.input_slots if slot in dependent]
        if not (set(inputs) <= channelwise_slots and _keeps_apart(step, n_channels)):
            break
        uses_others |= len(inputs) < len(step.input_slots)
        channelwise_slots.update(step.outputs)
        n_apart += 1
    channelwise, following = tuple(head_steps[:n_apart]), tuple(head_steps[n_apart:])

    if not following:
        return undivided("no layer mixes its channels")
    mixing, rest = following[0], following[1:]
    name = f"{mixing.layer.name} ({type(mixing.layer).__name__})"
    if not _is_mixing(mixing, n_channels):
        return undivided(f"{name} follows, which neither keeps channels apart nor is a Dense or Conv2D")
    if any(channelwise_slots.intersection(step.input_slots) for step in rest):
        return undivided(f"what {name} reads is also read elsewhere")
    return Separation(channelwise, mixing, rest, uses_others, None)


def is_elementwise(activation: Any) -> bool:
    """True for an activation function that acts on each value alone, False for softmax and unknown functions."""
    return getattr(activation, "__name__", "") in _ELEMENTWISE


def _keeps_apart(step: Step, n_channels: int) -> bool:
    layer, name = step.layer, type(step.layer).__name__
    if not type(layer).__module__.startswith("keras.src."):
        return False
    if name in _ALWAYS or name == "Activation":
        return name in _ALWAYS or is_elementwise(layer.activation)
    if name in _SPATIAL:
        return bool(layer.data_format == "channels_last")
    if name == "BatchNormalization":
        axes = layer.axis if isinstance(layer.axis, list | tuple) else [layer.axis]
        return list(axes) in ([-1], [len(step.node.input_tensors[0].shape) - 1])
    if name == "Reshape":
        return (step.node.outputs[0].shape[-1] or 1) % n_channels == 0
    if name == "DepthwiseConv2D":
        return bool(
            layer.data_format == "channels_last" and layer.depth_multiplier == 1 and is_elementwise(layer.activation)
        )
    if name in _MERGES:
        shapes = [tensor.shape for tensor in step.node.input_tensors]
        return all(len(shape) == len(shapes[0]) and shape[-1] == shapes[0][-1] for shape in shapes)
    return False


def _is_mixing(step: Step, n_channels: int) -> bool:
    import keras

    if isinstance(step.layer, keras.layers.Dense):
        return True
    if not isinstance(step.layer, keras.layers.Conv2D):
        return False
    reads_channels = step.node.input_tensors[0].shape[-1] == n_channels
    return bool(step.layer.data_format == "channels_last" and step.layer.groups == 1 and reads_channels)
