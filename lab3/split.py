"""Cut a model at the layer to be pruned: a trunk that never changes, and a head that sees pruned channels.

Behind the layer, as long as layers keep channels apart, a channel has two states: its own features, or what it is when
pruned: 0 where it is removed, or what its zero weights leave behind. The first Dense or Conv2D that mixes channels is
linear in its input, so pruning a channel adds the difference of the two states times that channel's weights. Only what
follows has to be run for every K. The model's weights are never touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.anatomy import Anatomy, Bias, Effect, Measured, examine_model
from lab3.backend import compile_function, compile_gradient, to_numpy
from lab3.class_scores import without_activation
from lab3.graph import Step, Values, list_layers, run_steps
from lab3.storage import read_rows

IMAGES = -1


@dataclass(frozen=True)
class Split:
    """A model cut at one layer. All functions are compiled, take arrays of one block of images, and return tensors.

    `run_trunk(images_nhwc)` gives `[measured, own, pruned, *carried]`: the quantity whose mean is the importance `(N,
    ..., C)`; the features where channels are mixed first, in their own and in their pruned state, `(N, ..., U)` with
    unit u of channel u % C; and the tensors that pass the layer by. `pruned` has one row unless `pruned_varies` from
    image to image.

    `start(own, pruned, is_pruned_u, units)` gives `[mixed, change]`: the mixing layer's output with those units pruned,
    and the difference that pruning each of `units` as well would make to its input. `finish(mixed, change, *carried,
    units, gone_ku)` gives `[logits_nl]` with more of `units` pruned, those where the one row of `gone_ku` is 1.
    `finish_pairs(rows, steps, mixed, change, *carried, units, gone_ku)` gives the logits of image `rows[p]` with the
    units of row `steps[p]` pruned, for each p. `reason` says why the head could not be divided at a mixing layer, None
    if it was; without a division `start` gives `[own, pruned]` and `units` must be all units.

    `trunk(values)` is what `run_trunk` compiles: it takes the images from slot `IMAGES` of `values`, uses what is there
    already and adds what it computes.

    `pruned_map` is what a pruned channel's measured quantity is, `(C,)` or `(..., C)`; NaN where other tensors have a
    part in it. `loss_gradient(own, pruned, *carried, labels_n)` gives the gradient of the summed cross-entropy to
    `own`; None where channels are removed at several places behind `own`.
    """

    anatomy: Anatomy
    layer_name: str
    layer_index: int
    n_channels: int
    n_units: int
    n_labels: int
    pruned_map: np.ndarray
    kernel: np.ndarray
    batchnorm_scale_c: np.ndarray | None
    reason: str | None
    pruned_varies: bool
    n_trunk_outputs: int
    trunk: Callable[[Values], list[Any]]
    run_trunk: Callable[..., list[Any]]
    start: Callable[..., list[Any]]
    finish: Callable[..., list[Any]]
    finish_pairs: Callable[..., list[Any]]
    loss_gradient: Callable[..., list[Any]] | None

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
    found, parts, calls = anatomy.layer, anatomy.parts, anatomy.calls
    cut = _Cut(anatomy)
    if parts.boundary is None:
        boundary_shape = calls[0].node.outputs[0].shape
    else:
        made_by = {slot: step for step in (*calls, *parts.channelwise) for slot in step.outputs}[parts.boundary]
        boundary_shape = made_by.node.outputs[0].shape
    return Split(
        anatomy=anatomy,
        layer_name=found.name,
        layer_index=next(index for index, each in enumerate(list_layers(model)) if each is found),
        n_channels=anatomy.n_channels,
        n_units=int(boundary_shape[-1]),
        n_labels=anatomy.scores.n_labels,
        pruned_map=_pruned_map(anatomy),
        kernel=to_numpy(found.kernel),
        batchnorm_scale_c=_batchnorm_scale(parts.channelwise, anatomy.n_channels),
        reason=parts.reason,
        pruned_varies=cut.pruned_varies,
        n_trunk_outputs=3 + len(anatomy.carried_slots),
        trunk=cut.trunk,
        run_trunk=compile_function(lambda images_nhwc: cut.trunk({IMAGES: images_nhwc})),
        start=compile_function(cut.start),
        finish=compile_function(cut.finish),
        finish_pairs=compile_function(cut.finish_pairs),
        loss_gradient=None if cut.masks_behind else compile_gradient(cut.loss),
    )


class _Cut:
    """The functions of a `Split`, not compiled."""

    def __init__(self, anatomy: Anatomy) -> None:
        parts, calls = anatomy.parts, anatomy.calls
        self._anatomy, self._parts, self._slots = anatomy, parts, anatomy.output_slots
        self._linear = without_activation(calls[0])
        self._mixing = None if parts.mixing is None else without_activation(parts.mixing)
        # A removed channel is 0 at several places: they are all behind the layer's own output.
        self.masks_behind = anatomy.effect == "remove" and parts.boundary is None
        self.pruned_varies = any(parts.boundary in step.outputs for step in parts.joined)
        self._behind = parts.rest if parts.boundary is not None else (*parts.channelwise, *parts.rest)

    def trunk(self, values: Values) -> list[Any]:
        anatomy, activation = self._anatomy, self._anatomy.layer.activation
        values.setdefault(anatomy.graph.input_slot, anatomy.graph.feed(values[IMAGES]))
        values.update(run_steps([s for s in anatomy.trunk if s.outputs[0] not in values], values))
        linears = [self._linear(values[call.input_slots[0]]) for call in anatomy.calls]
        # What the layer gives is then there for the trunk of a layer behind it.
        values.update(zip(self._slots, map(activation, linears), strict=True))
        apart = run_steps(self._parts.channelwise, values)
        if anatomy.measured_step is not None:
            measured = apart[anatomy.measured_step.outputs[0]]
        else:
            outputs = linears if anatomy.measured == "before_activation" else [values[slot] for slot in self._slots]
            measured = _join(outputs)
        return [measured, *self._states(values, apart, linears), *(values[slot] for slot in anatomy.carried_slots)]

    def _states(self, values: Values, apart: Values, linears: Sequence[Any]) -> tuple[Any, Any]:
        """The features in their own and in their pruned state."""
        from keras import ops

        boundary, n_rows = self._parts.boundary, None if self.pruned_varies else 1
        own = _join([values[slot] for slot in self._slots]) if boundary is None else apart[boundary]
        if self.masks_behind:
            # No state of the layer's own output stands for a removed channel, and none is equal to it.
            return own, ops.full_like(own[:1], float("nan"))
        if self._anatomy.effect == "remove":
            assert boundary is not None
            zeros = {slot: ops.zeros_like(apart[slot][:n_rows]) for slot in self._parts.frontier}
            pruned = run_steps(self._parts.joined, values | zeros)[boundary]
        else:
            like = _join(linears)[:n_rows]
            constant = ops.zeros_like(like) + ops.cast(self._anatomy.kept_bias_c, like.dtype)
            pruned = self._anatomy.layer.activation(constant)
            if boundary is not None:
                pruned = run_steps(self._parts.channelwise, values | {self._slots[0]: pruned})[boundary]
        if self._mixing is None:
            return own, pruned
        return ops.cast(own, self._mixing.compute_dtype), ops.cast(pruned, self._mixing.compute_dtype)

    def start(self, own: Any, pruned: Any, is_pruned_u: Any, units: Any) -> list[Any]:
        from keras import ops

        if self._mixing is None:
            return [own, pruned]
        change = ops.take(pruned, units, axis=-1) - ops.take(own, units, axis=-1)
        return [self._mixing(ops.where(is_pruned_u, pruned, own)), change]

    def finish(self, mixed: Any, change: Any, *others: Any) -> list[Any]:
        from keras import ops

        *carried, units, gone = others
        values: Values = dict(zip(self._anatomy.carried_slots, carried, strict=True))
        if self.masks_behind:
            values |= zip(self._slots, _part(mixed, len(self._slots)), strict=True)
            values = self._anatomy.remove_channels(run_steps(self._parts.alone, values), gone > 0)
            return self._logits(run_steps((*self._parts.joined, *self._parts.rest), values))
        for _ in range(len(change.shape) - 2):
            gone = ops.expand_dims(gone, 1)
        if self._parts.mixing is not None:
            mixed = mixed + _mix(self._mixing, change * ops.cast(gone, change.dtype), units)
            values[self._parts.mixing.outputs[0]] = self._parts.mixing.layer.activation(mixed)
        else:
            state = ops.where(gone > 0, change, mixed)
            boundary = self._parts.boundary
            slots = self._slots if boundary is None else (boundary,)
            values |= zip(slots, _part(state, len(slots)), strict=True)
        return self._logits(run_steps(self._behind, values))

    def _logits(self, values: Values) -> list[Any]:
        return [self._anatomy.scores.logits(values[self._anatomy.scores.slot])]

    def finish_pairs(self, rows: Any, steps: Any, mixed: Any, change: Any, *others: Any) -> list[Any]:
        from keras import ops

        *carried, units, gone_ku = others
        some_mixed, *some_carried = (ops.take(tensor, rows, axis=0) for tensor in (mixed, *carried))
        # Without a division it is the pruned state, often the same for every image.
        is_shared = self._mixing is None and not self.pruned_varies
        some_change = change if is_shared else ops.take(change, rows, axis=0)
        return self.finish(some_mixed, some_change, *some_carried, units, ops.take(gone_ku, steps, axis=0))

    def loss(self, own: Any, pruned: Any, *carried_and_labels: Any) -> Any:
        from keras import ops

        *carried, labels_n = carried_and_labels
        none, zero = ops.zeros((1,), "int32"), ops.zeros((1, 1), "float32")
        mixed, change = self.start(own, pruned, ops.zeros(own.shape[-1:], "bool"), none)
        (logits_nl,) = self.finish(mixed, change, *carried, none, zero)
        return ops.sum(ops.sparse_categorical_crossentropy(labels_n, logits_nl, from_logits=True))


def compile_trunks(splits: Sequence[Split]) -> Callable[..., list[Any]]:
    """The outputs of the `run_trunk` of several splits of one model, one after the other, in one pass."""

    def trunks(images_nhwc: Any) -> list[Any]:
        values = {IMAGES: images_nhwc}
        return [tensor for split in splits for tensor in split.trunk(values)]

    return compile_function(trunks)


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


def _batchnorm_scale(channelwise: Sequence[Step], n_channels: int) -> np.ndarray | None:
    """The scale of the first BatchNormalization behind the pruned layer, `(C,)`."""
    import keras

    for step in channelwise:
        layer = step.layer
        if isinstance(layer, keras.layers.BatchNormalization) and layer.scale and layer.gamma.shape[0] == n_channels:
            return to_numpy(layer.gamma)
    return None


def _join(outputs: Sequence[Any]) -> Any:
    """The outputs of several calls of one layer as one tensor, side by side on the first axis behind the images'."""
    import keras

    if len(outputs) == 1:
        return outputs[0]
    if len(outputs[0].shape) == 2:
        return keras.ops.stack(outputs, axis=1)
    return keras.ops.concatenate(outputs, axis=1)


def _part(joined: Any, n_calls: int) -> list[Any]:
    """What `_join` joined, apart again."""
    import keras

    if n_calls == 1:
        return [joined]
    parts = keras.ops.split(joined, n_calls, axis=1)
    return [keras.ops.squeeze(part, axis=1) for part in parts] if len(joined.shape) == 3 else parts


def _mix(layer: Any, inputs: Any, units: Any) -> Any:
    """The layer's product of `inputs` `(N, ..., len(units))` with the weights of those input units; no bias."""
    import keras

    if isinstance(layer, keras.layers.Dense):
        return keras.ops.matmul(inputs, keras.ops.take(layer.kernel, units, axis=0))
    kernel = keras.ops.take(layer.kernel, units, axis=2)
    return keras.ops.conv(inputs, kernel, layer.strides, layer.padding, "channels_last", layer.dilation_rate)
