"""Cut a model at the layer to be pruned: a trunk that never changes, and a head that sees pruned channels.

Behind the layer, as long as layers keep channels apart, a channel has two states: its own features, or what it is when
pruned: 0 where it is removed, or what its zero weights leave behind. The trunk gives both; what follows is in
`lab3.pruning.head`. The model's weights are never touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.arrays import read_rows
from lab3.base.backend import compile_function, to_numpy
from lab3.base.graph import Values, list_layers, run_steps
from lab3.inputs.class_scores import without_activation
from lab3.pruning.anatomy import Anatomy, examine_model
from lab3.pruning.head import Head, join_calls
from lab3.vocabulary import Bias, Effect, Measured

_IMAGES = -1  # the slot of the images as they come, before `Graph.feed`


@dataclass(frozen=True)
class Split:
    """A model cut at one layer: `trunk` gives the features, `head` the logits with any of their units pruned.

    `n_units`: entries on the last axis of the features; unit u is of channel u % C. `pruned_map` is what a pruned
    channel's measured quantity is, `(C,)` or `(..., C)`; NaN where other tensors have a part in it. `reason` says why
    all that follows is run for every K, None where only what follows the mixing layer is.
    """

    anatomy: Anatomy
    trunk: "Trunk"
    head: Head
    layer_name: str
    layer_index: int
    n_channels: int
    n_units: int
    n_labels: int
    pruned_map: np.ndarray
    reason: str | None

    @property
    def pruned_varies(self) -> bool:
        """True if the pruned state differs from image to image, else it has one row."""
        return self.trunk.pruned_varies

    def read_features(self, features: Sequence[np.ndarray], rows: slice | np.ndarray) -> list[np.ndarray]:
        """`[own, pruned, *carried]` of some images, from those of all."""
        own, pruned, *carried = features
        chosen_pruned = read_rows(pruned, rows) if self.pruned_varies else pruned
        return [read_rows(own, rows), chosen_pruned, *(read_rows(each, rows) for each in carried)]


def split_model(
    model: Any,
    layer: str | int | None = None,
    *,
    effect: Effect = "remove",
    measured: Measured = "activation",
    bias: Bias = "zero",
) -> Split:
    """`model` cut at `layer` (see `find_layer`).

    `effect`: what pruning a channel means. `remove`: the next layers that mix or join channels read 0, as in the
    smaller model without it. `zero_weights`: its weights are 0, and its bias with `bias="zero"`; what the layers behind
    make of that stays. `measured`: what importance is measured on, the output of the first `activation` at or behind
    the layer, the layer's own `output`, or that `before_activation`. Raises as `examine_model` does.
    """
    anatomy = examine_model(model, layer, effect=effect, measured=measured, bias=bias)
    parts, calls = anatomy.parts, anatomy.calls
    made_by = {slot: step for step in (*calls, *parts.channelwise) for slot in step.outputs}
    boundary = calls[0].outputs[0] if parts.boundary is None else parts.boundary
    trunk = Trunk(anatomy)
    return Split(
        anatomy=anatomy,
        trunk=trunk,
        head=Head(anatomy, pruned_varies=trunk.pruned_varies),
        layer_name=anatomy.layer.name,
        layer_index=next(index for index, each in enumerate(list_layers(model)) if each is anatomy.layer),
        n_channels=anatomy.n_channels,
        n_units=int(made_by[boundary].node.outputs[0].shape[-1]),
        n_labels=anatomy.scores.n_labels,
        pruned_map=_pruned_map(anatomy),
        reason=parts.reason,
    )


class Trunk:
    """What never changes: `run(images_nhwc)`, compiled, gives `[measured, own, pruned, *carried]` of a block.

    They are the quantity whose mean is the importance `(N, ..., C)`; the features where channels are mixed first, in
    their own and in their pruned state, `(N, ..., U)`; and the tensors that pass the layer by.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        self._anatomy, self._parts, self._slots = anatomy, anatomy.parts, anatomy.output_slots
        self._linear = without_activation(anatomy.calls[0])
        self.pruned_varies = any(self._parts.boundary in step.outputs for step in self._parts.joined)
        self.n_outputs = 3 + len(anatomy.carried_slots)
        self.run: Callable[[Any], list[Any]] = compile_trunks([self])

    def compute(self, values: Values) -> list[Any]:
        """Not compiled; uses what is in `values` already, the images at least, and adds what it computes."""
        anatomy, activation = self._anatomy, self._anatomy.layer.activation
        values.setdefault(anatomy.graph.input_slot, anatomy.graph.feed(values[_IMAGES]))
        values.update(run_steps([s for s in anatomy.trunk if s.outputs[0] not in values], values))
        linears = [self._linear(values[call.input_slots[0]]) for call in anatomy.calls]
        # What the layer gives is then there for the trunk of a layer behind it.
        values.update(zip(self._slots, map(activation, linears), strict=True))
        apart = run_steps(self._parts.channelwise, values)
        if anatomy.measured_step is not None:
            measured = apart[anatomy.measured_step.outputs[0]]
        else:
            outputs = linears if anatomy.measured == "before_activation" else [values[slot] for slot in self._slots]
            measured = join_calls(outputs)
        return [measured, *self._states(values, apart, linears), *(values[slot] for slot in anatomy.carried_slots)]

    def _states(self, values: Values, apart: Values, linears: Sequence[Any]) -> tuple[Any, Any]:
        """The features in their own and in their pruned state."""
        from keras import ops

        boundary, n_rows = self._parts.boundary, None if self.pruned_varies else 1
        own = join_calls([values[slot] for slot in self._slots]) if boundary is None else apart[boundary]
        if self._anatomy.is_masked:
            # No state of the layer's own output stands for a removed channel, and none is equal to it.
            return own, ops.full_like(own[:1], float("nan"))
        if self._anatomy.effect == "remove":
            assert boundary is not None
            zeros = {slot: ops.zeros_like(apart[slot][:n_rows]) for slot in self._parts.frontier}
            pruned = run_steps(self._parts.joined, values | zeros)[boundary]
        else:
            like = join_calls(linears)[:n_rows]
            constant = ops.zeros_like(like) + ops.cast(self._anatomy.kept_bias_c, like.dtype)
            pruned = self._anatomy.layer.activation(constant)
            if boundary is not None:
                pruned = run_steps(self._parts.channelwise, values | {self._slots[0]: pruned})[boundary]
        if self._parts.mixing is None:
            return own, pruned
        dtype = self._parts.mixing.layer.compute_dtype
        return ops.cast(own, dtype), ops.cast(pruned, dtype)


def compile_trunks(trunks: Sequence[Trunk]) -> Callable[..., list[Any]]:
    """The outputs of several trunks of one model, one after the other, in one pass over `images_nhwc`."""

    def run(images_nhwc: Any) -> list[Any]:
        values = {_IMAGES: images_nhwc}
        return [tensor for trunk in trunks for tensor in trunk.compute(values)]

    return compile_function(run)


def _pruned_map(anatomy: Anatomy) -> np.ndarray:
    """See `Split.pruned_map`."""
    step = anatomy.measured_step
    if anatomy.effect == "remove":
        return np.zeros(anatomy.n_channels, np.float32)
    constant_c = anatomy.kept_bias_c
    if anatomy.measured == "before_activation":
        return constant_c
    if step is None:
        return to_numpy(anatomy.layer.activation(constant_c))
    if step in anatomy.parts.joined:
        return np.full(anatomy.n_channels, np.nan, np.float32)
    shape = [size or 16 for size in anatomy.calls[0].node.outputs[0].shape[1:]]
    constant = np.broadcast_to(constant_c, (1, *shape)).astype(anatomy.layer.compute_dtype)
    values = {anatomy.output_slots[0]: anatomy.layer.activation(constant)}
    pruned_map: np.ndarray = to_numpy(run_steps(anatomy.parts.alone, values)[step.outputs[0]])[0].astype(np.float32)
    return pruned_map
