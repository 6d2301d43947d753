"""Cut a model at the layer to be pruned: a trunk that never changes, and a head that sees pruned channels.

The cut is at the layer's linear output, before its activation. There, pruning a channel means replacing it by a
constant: 0 where kernel and bias are zeroed, the bias where only the kernel is. Behind it, as long as layers keep
channels apart, a channel has two states: its own features, or what it leaves behind when pruned. The first Dense or
Conv2D that mixes channels is linear in its input, so pruning a channel adds the difference of the two states times that
channel's weights. Only what follows has to be run for every K. The model's weights are never touched.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lab3.backend import compile_function, compile_gradient, to_numpy
from lab3.channelwise import separate
from lab3.errors import ModelError
from lab3.graph import Graph, Step, Values, depends_on, flatten_model, list_layers, run_steps, scope_safely
from lab3.layers import find_layer
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
    if it was; without a division `start` gives `[own, pruned]` and `units` must be all channels.

    `trunk(values)` is what `run_trunk` compiles: it takes the images from slot `IMAGES` of `values`, uses what is there
    already and adds what it computes.

    `pruned_output_c` is what a pruned channel's measured quantity becomes. `loss_gradient(own, pruned, *carried,
    labels_n)` gives the gradient of the summed cross-entropy to `own`.
    """

    layer_name: str
    layer_index: int
    n_channels: int
    n_units: int
    n_labels: int
    pruned_output_c: np.ndarray
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
    loss_gradient: Callable[..., list[Any]]

    def read_features(self, features: Sequence[np.ndarray], rows: slice | np.ndarray) -> list[np.ndarray]:
        """`[own, pruned, *carried]` of some images, from those of all."""
        own, pruned, *carried = features
        chosen_pruned = read_rows(pruned, rows) if self.pruned_varies else pruned
        return [read_rows(own, rows), chosen_pruned, *(read_rows(each, rows) for each in carried)]


def split_model(
    model: Any,
    layer: str | int | None = None,
    *,
    measured: Literal["output", "before_activation"] = "output",
    bias: Literal["zero", "keep"] = "zero",
) -> Split:
    """`model` cut at `layer` (see `find_layer`).

    Raises `ModelError` for a model that is no graph or does not end in one row of class scores an image.
    """
    import keras

    found = find_layer(model, layer)
    graph = flatten_model(model)
    calls = [step for step in graph.steps if step.layer is found]
    output_slots = [slot for call in calls for slot in call.outputs]
    dependent = depends_on(graph.steps, output_slots)
    trunk_steps = [s for s in graph.steps if not dependent.intersection(s.outputs)]
    after = [s for s in graph.steps if dependent.intersection(s.outputs) and s not in calls]
    head_steps, logits_slot = _end_at_logits(after, graph)

    n_channels = int(found.kernel.shape[-1])
    parts = separate(head_steps, output_slots, n_channels)
    mixing = parts.mixing
    carried_slots = sorted({slot for s in parts.rest for slot in s.input_slots if slot not in dependent})
    linear_layer = _without_activation(calls[0])
    mixing_layer, mixed_activation, mixed_slot = None, None, output_slots[0]
    if mixing is not None:
        mixing_layer, mixed_activation, mixed_slot = (
            _without_activation(mixing),
            mixing.layer.activation,
            mixing.outputs[0],
        )
    kept_bias_c = np.zeros(n_channels, np.float32)
    if bias == "keep" and found.use_bias:
        kept_bias_c = to_numpy(found.bias)

    def measure(linear: Any) -> Any:
        return found.activation(linear) if measured == "output" else linear

    def at_boundary(values: dict[int, Any], linear: Any) -> Any:
        if mixing is None:
            return found.activation(linear)
        return run_steps(parts.channelwise, values | {output_slots[0]: found.activation(linear)})[mixing.input_slots[0]]

    def trunk(values: Values) -> list[Any]:
        values.setdefault(graph.input_slot, values[IMAGES])
        values.update(run_steps([s for s in trunk_steps if s.outputs[0] not in values], values))
        linears = [linear_layer(values[call.input_slots[0]]) for call in calls]
        # What the layer gives is then there for the trunk of a layer behind it.
        values.update((call.outputs[0], found.activation(each)) for call, each in zip(calls, linears, strict=True))
        linear = _join(linears)
        # What a channel leaves behind is the same for every image unless other tensors join in.
        like = linear if parts.uses_others else linear[:1]
        constant = keras.ops.zeros_like(like) + keras.ops.cast(kept_bias_c, like.dtype)
        own, pruned = at_boundary(values, linear), at_boundary(values, constant)
        return [measure(linear), own, pruned, *(values[slot] for slot in carried_slots)]

    def start(own: Any, pruned: Any, is_pruned_u: Any, units: Any) -> list[Any]:
        if mixing_layer is None:
            return [own, pruned]
        change = keras.ops.take(pruned, units, axis=-1) - keras.ops.take(own, units, axis=-1)
        return [mixing_layer(keras.ops.where(is_pruned_u, pruned, own)), change]

    def finish(mixed: Any, change: Any, *others: Any) -> list[Any]:
        *carried, units, gone = others
        for _ in range(len(change.shape) - 2):
            gone = keras.ops.expand_dims(gone, 1)
        if mixing_layer is None or mixed_activation is None:
            values = dict(zip(output_slots, _part(keras.ops.where(gone > 0, change, mixed), len(calls)), strict=True))
        else:
            mixed = mixed + _mix(mixing_layer, change * keras.ops.cast(gone, change.dtype), units)
            values = {mixed_slot: mixed_activation(mixed)}
        values |= dict(zip(carried_slots, carried, strict=True))
        return [keras.ops.cast(run_steps(parts.rest, values)[logits_slot], "float32")]

    def finish_pairs(rows: Any, steps: Any, mixed: Any, change: Any, *others: Any) -> list[Any]:
        *carried, units, gone_ku = others
        some_mixed, *some_carried = (keras.ops.take(tensor, rows, axis=0) for tensor in (mixed, *carried))
        # Without a division it is the pruned state, the same for every image.
        some_change = change if mixing_layer is None else keras.ops.take(change, rows, axis=0)
        gone_pu = keras.ops.take(gone_ku, steps, axis=0)
        return finish(some_mixed, some_change, *some_carried, units, gone_pu)

    def loss(own: Any, pruned: Any, *carried_and_labels: Any) -> Any:
        *carried, labels_n = carried_and_labels
        none, zero = keras.ops.zeros((1,), "int32"), keras.ops.zeros((1, 1), "float32")
        mixed, change = start(own, pruned, keras.ops.zeros(own.shape[-1:], "bool"), none)
        (logits_nl,) = finish(mixed, change, *carried, none, zero)
        losses_n = keras.ops.sparse_categorical_crossentropy(labels_n, logits_nl, from_logits=True)
        return keras.ops.sum(losses_n)

    boundary_shape = mixing.node.input_tensors[0].shape if mixing else calls[0].node.outputs[0].shape
    return Split(
        layer_name=found.name,
        layer_index=_index_of(found, list_layers(model)),
        n_channels=n_channels,
        n_units=int(boundary_shape[-1]),
        n_labels=int(graph.output_shape[1] or 0),
        pruned_output_c=to_numpy(measure(kept_bias_c)),
        kernel=to_numpy(found.kernel),
        batchnorm_scale_c=_batchnorm_scale(parts.channelwise, n_channels),
        reason=parts.reason,
        pruned_varies=parts.uses_others,
        n_trunk_outputs=3 + len(carried_slots),
        trunk=trunk,
        run_trunk=compile_function(lambda images_nhwc: trunk({IMAGES: images_nhwc})),
        start=compile_function(start),
        finish=compile_function(finish),
        finish_pairs=compile_function(finish_pairs),
        loss_gradient=compile_gradient(loss),
    )


def compile_trunks(splits: Sequence[Split]) -> Callable[..., list[Any]]:
    """The outputs of the `run_trunk` of several splits of one model, one after the other, in one pass."""

    def trunks(images_nhwc: Any) -> list[Any]:
        values = {IMAGES: images_nhwc}
        return [tensor for split in splits for tensor in split.trunk(values)]

    return compile_function(trunks)


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


def ends_in_softmax(model: Any) -> bool:
    """True if the model's output is softmax probabilities, False for logits. Raises `ModelError` for anything else."""
    return _softmax_form(flatten_model(model).steps[-1]) != "none"


def _end_at_logits(head_steps: Sequence[Step], graph: Graph) -> tuple[list[Step], int]:
    """The head without a final softmax, which rounds and keeps the order, and the slot of its logits."""
    if len(graph.output_shape) != 2 or graph.output_shape[1] is None or graph.output_shape[1] < 2:
        raise ModelError(
            f"the model must give one row of at least 2 class scores an image, got output shape {graph.output_shape}"
        )
    last = head_steps[-1]
    form = _softmax_form(last)
    if form == "alone":
        return list(head_steps[:-1]), last.input_slots[0]
    if form == "fused":
        last = replace(last, layer=_without_activation(last))
    return [*head_steps[:-1], last], last.outputs[0]


def _softmax_form(last: Step) -> Literal["none", "alone", "fused"]:
    """Whether the model's last step is a softmax, or has one fused into it as its activation."""
    import keras

    activation = getattr(last.layer, "activation", None)
    if isinstance(last.layer, keras.layers.Softmax):
        return "alone"
    if activation is keras.activations.softmax:
        return "alone" if isinstance(last.layer, keras.layers.Activation) else "fused"
    if activation in (None, keras.activations.linear):
        return "none"
    name = getattr(activation, "__name__", str(activation))
    raise ModelError(f"the model must end in softmax or in logits, got {name} in layer {last.layer.name!r}")


def _without_activation(step: Step) -> Any:
    """A layer with the weights of the step's layer that leaves its activation out."""
    import keras

    layer = step.layer
    if layer.activation is keras.activations.linear:
        return layer
    settings = {**layer.get_config(), "activation": None, "kernel_initializer": "zeros"}
    linear = type(layer).from_config(settings)
    linear.build(step.node.input_tensors[0].shape)
    linear.set_weights(layer.get_weights())
    return scope_safely(linear)


def _index_of(layer: Any, layers: Sequence[Any]) -> int:
    return next(index for index, candidate in enumerate(layers) if candidate is layer)
