"""Pruned channels followed from their layer to every layer that reads them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from lab3.base.backend import to_numpy
from lab3.base.graph import Step, is_of_keras, run_steps
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.channelwise import is_elementwise, keeps_apart
from lab3.pruning.compact.constants import Read
from lab3.pruning.compact.narrowed import Narrowed, refuse, rounding_of, spread, zeros_like

# Layers that mix channels, and how many weights they have without a bias.
_READERS = {"Dense": 1, "Conv2D": 1, "Conv2DTranspose": 1, "SeparableConv2D": 2}
_MERGES = {"Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"}


class Walk:
    """What each tensor loses: see `Plan`. `reads`: every place where what is left of a tensor is mixed or widened."""

    def __init__(self, anatomy: Anatomy, lost: Sequence[int]) -> None:
        self._anatomy, self._lost, self._rounding = anatomy, lost, rounding_of(anatomy.graph)
        self.narrowed: dict[int, Narrowed] = {}
        self.widened: dict[int, tuple[int, ...]] = {}
        self.reads: list[Read] = []
        self._alone = {slot for step in anatomy.parts.alone for slot in step.outputs}
        self._n_calls = Counter(id(step.layer) for step in anatomy.graph.steps)
        self._maker = {slot: step for step in anatomy.graph.steps for slot in step.outputs}
        self._readers: dict[int, list[Step]] = defaultdict(list)
        for step in anatomy.graph.steps:
            for slot in step.input_slots:
                self._readers[slot].append(step)

    def follow_all(self) -> None:
        """Every step from the pruned layer on, in the order they run."""
        for step in self._anatomy.graph.steps:
            if step.layer is self._anatomy.layer:
                self._check(step)
                self._narrow(step, np.arange(self._anatomy.n_channels), self._constant_of_layer(step))
            elif any(slot in self.narrowed for slot in step.input_slots):
                self._check(step)
                self._follow(step)

    def _check(self, step: Step) -> None:
        layer, n_calls = step.layer, self._n_calls[id(step.layer)]
        if not is_of_keras(layer):
            refuse(step, "is a class of its own, which may do anything with channels")
        if len(step.outputs) != 1:
            refuse(step, f"has {len(step.outputs)} outputs")
        if n_calls > 1 and _has_width(layer):
            refuse(step, f"is called {n_calls} times, and each call would have to lose the same")
        if getattr(layer, "data_format", "channels_last") != "channels_last":
            refuse(step, "has its channels first", "rebuild the model with channels last")

    def _constant_of_layer(self, step: Step) -> np.ndarray:
        from keras import ops

        zeros = zeros_like(step.node.outputs[0])
        if self._anatomy.effect == "remove":
            return zeros
        linear_c = ops.cast(self._anatomy.kept_bias_c, step.layer.compute_dtype)
        constant: np.ndarray = zeros + to_numpy(step.layer.activation(linear_c)).astype(np.float32)
        return constant

    def _narrow(self, step: Step, channel_u: np.ndarray, constant: np.ndarray) -> None:
        """The output of `step` has units of these channels, with this constant where they are pruned."""
        output = step.node.outputs[0]
        narrowed = Narrowed(channel_u, np.isin(channel_u, self._lost), constant, self._rounding)
        if None in output.shape[1:]:
            # What borders do then depends on the size of the images.
            if not narrowed.is_uniform:
                refuse(step, "gives constants that differ from place to place, for images of any size")
            first = constant.reshape(-1, constant.shape[-1])[0]
            narrowed = Narrowed(channel_u, narrowed.is_lost_u, zeros_like(output) + first, self._rounding)
        self.narrowed[step.outputs[0]] = narrowed

    def _follow(self, step: Step) -> None:
        import keras

        layer, name = step.layer, type(step.layer).__name__
        found = [self.narrowed.get(slot) for slot in step.input_slots]
        is_layer = isinstance(layer, keras.layers.Layer)
        if name in _READERS and is_layer and found[0] is not None:
            if getattr(layer, "groups", 1) != 1:
                refuse(step, f"is a convolution of {layer.groups} groups")
            if len(layer.get_weights()) != _READERS[name] + layer.use_bias:
                refuse(step, "has other weights than a kernel and a bias", "merge them first")
            self.reads.append(Read(step, found[0]))
        elif name in _MERGES:
            self._join(step, found)
        elif name == "Concatenate" and is_layer:
            self._concatenate(step, found)
        elif (name == "DepthwiseConv2D" or keeps_apart(step, 1)) and is_layer and found[0] is not None:
            self._narrow(step, _channels_behind(step, found[0]), self._run(step, found))
        else:
            refuse(step, f"reads pruned channels, and nothing exact is known for a {name} of fewer")

    def _run(self, step: Step, found: Sequence[Narrowed | None]) -> np.ndarray:
        """What the step makes of the constants; of removed channels nothing counts before they are first read."""
        output = step.node.outputs[0]
        if self._anatomy.effect == "remove" and step.outputs[0] in self._alone:
            return zeros_like(output)
        tensors = zip(step.input_slots, step.node.input_tensors, found, strict=True)
        values = {slot: spread(each.constant, tensor) for slot, tensor, each in tensors if each is not None}
        constant: np.ndarray = to_numpy(run_steps([step], values)[step.outputs[0]]).astype(np.float32)
        return constant

    def _join(self, step: Step, found: list[Narrowed | None]) -> None:
        """All inputs have lost the same, so has the output; else a gate is cut, or what is narrower is widened."""
        if _takes_array(step):
            refuse(step, "joins the channels with an array of numbers")
        tensors = step.node.input_tensors
        zero = next((each for each in found if each is not None and each.is_zero), None)
        is_product = type(step.layer).__name__ == "Multiply" and zero is not None
        if is_product and zero is not None:
            for slot, tensor, each in zip(step.input_slots, tensors, found, strict=True):
                if each is None and tensor.shape[-1] != 1:
                    self._cut_gate(slot, zero, step)
            found = [self.narrowed.get(slot) for slot in step.input_slots]
        first, *more = [each for each in found if each is not None]
        whole = [tensor for tensor, each in zip(tensors, found, strict=True) if each is None]
        is_same = all(np.array_equal(each.channel_u, first.channel_u) for each in more)
        if is_same and is_product and all(tensor.shape[-1] == 1 for tensor in whole):
            self._narrow(step, first.channel_u, zeros_like(step.node.outputs[0]))
        elif is_same and not whole:
            self._narrow(step, first.channel_u, self._run(step, found))
        else:
            slots = [slot for slot, each in zip(step.input_slots, found, strict=True) if each is not None]
            self.widened[step.outputs[0]] = tuple(slots)
            self.reads += [Read(step, self.narrowed[slot], is_widening=True) for slot in slots]

    def _cut_gate(self, slot: int, like: Narrowed, reader: Step) -> None:
        """Narrow the tensor of `slot`, and what leads to it, where a Dense or Conv2D makes it for `reader` alone."""
        chain: list[Step] = []
        while slot in self._maker and self._readers[slot] == [reader]:
            step = self._maker[slot]
            layer, name = step.layer, type(step.layer).__name__
            is_shared = self._n_calls[id(layer)] > 1 and _has_width(layer)
            if step.node.outputs[0].shape[-1] != len(like.channel_u) or is_shared or not is_of_keras(layer):
                return
            chain.append(step)
            if name in ("Dense", "Conv2D"):
                if getattr(layer, "groups", 1) == 1 and is_elementwise(layer.activation):
                    for each in chain:
                        self._narrow(each, like.channel_u, zeros_like(each.node.outputs[0]))
                return
            if len(step.input_slots) != 1 or not keeps_apart(step, 1) or _takes_array(step):
                return
            slot, reader = step.input_slots[0], step

    def _concatenate(self, step: Step, found: Sequence[Narrowed | None]) -> None:
        tensors, output = step.node.input_tensors, step.node.outputs[0]
        first = next(each for each in found if each is not None)
        if step.layer.axis not in (-1, len(output.shape) - 1):
            if not all(each is not None and np.array_equal(each.channel_u, first.channel_u) for each in found):
                refuse(step, "joins tensors of which not all have lost the same channels")
            self._narrow(step, first.channel_u, self._run(step, found))
            return
        channels = [
            np.full(tensor.shape[-1], -1) if each is None else each.channel_u
            for tensor, each in zip(tensors, found, strict=True)
        ]
        constants = [
            spread(zeros_like(tensor) if each is None else each.constant, tensor)
            for tensor, each in zip(tensors, found, strict=True)
        ]
        self._narrow(step, np.concatenate(channels), np.concatenate(constants, axis=-1))


def _has_width(layer: Any) -> bool:
    """True for a layer that is made for a number of channels."""
    return bool(getattr(layer, "weights", ())) or type(layer).__name__ == "Reshape"


def _takes_array(step: Step) -> bool:
    """True for an operation called on an array of numbers besides tensors of the graph."""
    import keras

    arguments = keras.tree.flatten((step.node.arguments.args, step.node.arguments.kwargs))
    return any(getattr(each, "ndim", 0) and not isinstance(each, keras.KerasTensor) for each in arguments)


def _channels_behind(step: Step, before: Narrowed) -> np.ndarray:
    """The channel of each unit behind a step that keeps channels apart."""
    name = type(step.layer).__name__
    if name == "DepthwiseConv2D":
        if not is_elementwise(step.layer.activation):
            refuse(step, "has an activation that compares channels")
        return np.repeat(before.channel_u, step.layer.depth_multiplier)
    if name not in ("Flatten", "Reshape"):
        return before.channel_u
    shape, target = step.node.input_tensors[0].shape[1:], step.node.outputs[0].shape[1:]
    if None in (*shape, *target):
        refuse(step, "has a size that is not known", "give the model's input a shape")
    rows = np.broadcast_to(before.channel_u, shape).reshape(-1, target[-1])
    if not (rows == rows[0]).all():
        refuse(step, "has channels and positions on one axis")
    first: np.ndarray = rows[0]
    return first
