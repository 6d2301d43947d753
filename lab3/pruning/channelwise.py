"""Which steps of a graph keep channels apart, and where channels are first mixed or joined with other tensors.

A tensor is channel-wise if entry u of its last axis depends, of all channels of the pruned layer, on channel u % C
alone. The pruned layer's output is. Flattening or reshaping keeps it so, because the channel axis is last and varies
fastest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab3.base.graph import Step, depends_on, is_of_keras

_ELEMENTWISE = {
    "linear", "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "sigmoid", "hard_sigmoid",
    "hard_silu", "tanh", "hard_tanh", "soft_shrink", "hard_shrink", "softplus", "softsign", "exponential", "mish",
    "log_sigmoid", "threshold", "tanh_shrink", "squareplus",
}  # fmt: skip
_ACTIVATIONS = {"ReLU", "LeakyReLU", "ELU", "PReLU"}
_ALWAYS = _ACTIVATIONS | {
    "Identity", "Dropout", "SpatialDropout1D", "SpatialDropout2D", "AlphaDropout", "GaussianDropout", "GaussianNoise",
    "ActivityRegularization",
}  # fmt: skip
_SPATIAL = {
    "MaxPooling2D", "AveragePooling2D", "GlobalMaxPooling2D", "GlobalAveragePooling2D", "ZeroPadding2D", "Cropping2D",
    "UpSampling2D", "Flatten",
}  # fmt: skip
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}


@dataclass(frozen=True)
class Separation:
    """What follows the pruned layer, divided where its channels are first mixed.

    `alone`: steps that keep channels apart and read nothing but the pruned layer's output. `joined`: steps that keep
    channels apart but also read tensors that pass the layer by, as behind a residual connection. `frontier`: slots of
    the layer's output and of `alone` that other steps read: there a removed channel is 0. `boundary`: the one slot of
    all these that the steps in `rest` read, None if they read several. `mixing`: the Dense or Conv2D that alone reads
    the boundary, not among `rest`; None where there is no such layer, and `reason` then says why.
    """

    alone: tuple[Step, ...]
    joined: tuple[Step, ...]
    frontier: tuple[int, ...]
    boundary: int | None
    mixing: Step | None
    rest: tuple[Step, ...]
    reason: str | None

    @property
    def channelwise(self) -> tuple[Step, ...]:
        """All steps that keep channels apart, in the order they run."""
        return self.alone + self.joined


def separate(steps: Sequence[Step], calls: Sequence[Step]) -> Separation:
    """What of `steps`, in the order they run, depends on `calls` of the pruned layer, divided."""
    n_channels = int(calls[0].layer.kernel.shape[-1])
    output_slots = [slot for call in calls for slot in call.outputs]
    dependent = depends_on(steps, output_slots)
    alone_slots, apart_slots = set(output_slots), set(output_slots)
    alone, joined, others = [], [], []
    for step in (each for each in steps if dependent.intersection(each.outputs) and each not in calls):
        inputs = set(step.input_slots)
        if not (inputs & dependent <= apart_slots and keeps_apart(step, n_channels)):
            others.append(step)
            continue
        apart_slots.update(step.outputs)
        if inputs <= alone_slots:
            alone_slots.update(step.outputs)
            alone.append(step)
        else:
            joined.append(step)
    frontier = {slot for step in (*joined, *others) for slot in step.input_slots} & alone_slots
    readers = [step for step in others if apart_slots.intersection(step.input_slots)]
    read = {slot for step in readers for slot in step.input_slots} & apart_slots

    reason = None
    if len(output_slots) > 1:
        reason = f"it is called {len(output_slots)} times"
    elif not readers:
        reason = "no layer mixes its channels"
    elif not is_mixing(readers[0], n_channels):
        reason = f"{readers[0].shown} follows, which neither keeps channels apart nor is a Dense or Conv2D"
    elif len(readers) > 1:
        reason = f"what {readers[0].shown} reads is also read elsewhere"
    elif readers[0].layer.compute_dtype in ("float16", "bfloat16"):
        reason = f"{readers[0].shown} computes in {readers[0].layer.compute_dtype}, which rounds too much to add to"
    mixing = readers[0] if reason is None else None
    return Separation(
        alone=tuple(alone),
        joined=tuple(joined),
        frontier=tuple(sorted(frontier)),
        boundary=read.pop() if len(read) == 1 and len(output_slots) == 1 else None,
        mixing=mixing,
        rest=tuple(step for step in others if step is not mixing),
        reason=reason,
    )


def is_elementwise(activation: Any) -> bool:
    """True for an activation function that acts on each value alone, False for softmax and unknown functions."""
    return getattr(activation, "__name__", "") in _ELEMENTWISE


def is_activation(step: Step) -> bool:
    """True for a step that applies an activation function other than the identity to each value."""
    if type(step.layer).__name__ in _ACTIVATIONS:
        return True
    activation: Any = getattr(step.layer, "activation", None)
    return is_elementwise(activation) and activation.__name__ != "linear"


def keeps_apart(step: Step, n_channels: int) -> bool:
    """True if what the step gives is channel-wise where what it reads is."""
    layer, name = step.layer, type(step.layer).__name__
    if not is_of_keras(layer):
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


def is_mixing(step: Step, n_channels: int) -> bool:
    """True for Keras's own Dense, and its Conv2D where each of its input channels is one of the pruned layer."""
    import keras

    if type(step.layer) is keras.layers.Dense:
        return True
    if type(step.layer) is not keras.layers.Conv2D:
        return False
    reads_channels = step.node.input_tensors[0].shape[-1] == n_channels
    return bool(step.layer.data_format == "channels_last" and step.layer.groups == 1 and reads_channels)
