"""Cut a model at the layer to be pruned: a trunk that never changes, and a head that sees pruned channels.

The cut is at the layer's linear output, before its activation. There, pruning a channel means replacing it by a
constant: 0 where kernel and bias are zeroed, the bias where only the kernel is. The model's weights are never touched.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from lab3.backend import compile_function
from lab3.errors import ConfigError, ModelError
from lab3.graph import Graph, Step, depends_on, flatten_model, list_layers, run_steps


@dataclass(frozen=True)
class Split:
    """A model cut at one layer.

    `run_trunk(images_nhwc)` gives `[linear, measured, *carried]`: the layer's output before its activation `(N, ...,
    C)`, the quantity whose mean is the importance, and the tensors that pass the layer by. `run_head(linear, *carried,
    is_pruned_c)` gives `[logits_nl]`. All float32. `pruned_output_c` is what a pruned channel's measured quantity
    becomes.
    """

    layer_name: str
    layer_index: int
    layer_class: str
    n_channels: int
    n_labels: int
    n_carried: int
    pruned_output_c: np.ndarray
    run_trunk: Any
    run_head: Any


def find_layer(model: Any, layer: str | int | None = None) -> Any:
    """The layer to be pruned: by name, by index (negative from the end), or the last `Conv2D` on the way to the output.

    Raises `ConfigError` for a name or index that is not there, `ModelError` for a layer that cannot be pruned.
    """
    import keras

    graph = flatten_model(model)
    layers = list_layers(model)
    if layer is None:
        found = _last_convolution(graph, keras.layers.Conv2D)
    elif isinstance(layer, int):
        if not -len(layers) <= layer < len(layers):
            raise ConfigError(
                f"prune.layer must be in {-len(layers)}..{len(layers) - 1} (the model has {len(layers)} "
                f"layers), got {layer}; `lab3 inspect` lists them"
            )
        found = layers[layer]
    else:
        named = [candidate for candidate in layers if candidate.name == layer]
        if not named:
            near = difflib.get_close_matches(layer, [candidate.name for candidate in layers], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "`lab3 inspect` lists them"
            raise ConfigError(f"prune.layer must name a layer of the model, got {layer!r}; {hint}")
        found = named[0]
    _check_prunable(found, graph)
    return found


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
    found = find_layer(model, layer)
    graph = flatten_model(model)
    (step,) = [candidate for candidate in graph.steps if candidate.layer is found]
    cut = graph.steps.index(step)
    tainted = depends_on(graph.steps[cut + 1 :], step.outputs)
    trunk_steps = [s for s in graph.steps if not tainted.intersection(s.outputs)]
    head_steps, logits_slot = _end_at_logits(
        [s for s in graph.steps[cut + 1 :] if tainted.intersection(s.outputs)], graph
    )
    carried_slots = sorted({slot for s in head_steps for slot in s.input_slots if slot not in tainted})

    linear_layer = _without_activation(step)
    (input_slot,), (output_slot,) = step.input_slots, step.outputs
    kernel_shape = tuple(found.kernel.shape)
    kept_bias_c = np.zeros(kernel_shape[-1], np.float32)
    if bias == "keep" and found.use_bias:
        kept_bias_c = _to_numpy(found.bias)

    def measure(linear: Any) -> Any:
        return found.activation(linear) if measured == "output" else linear

    def trunk(images_nhwc: Any) -> list[Any]:
        values = run_steps(trunk_steps, {graph.input_slot: images_nhwc})
        linear = linear_layer(values[input_slot])
        return [linear, measure(linear), *(values[slot] for slot in carried_slots)]

    def head(linear: Any, *carried_and_mask: Any) -> list[Any]:
        import keras

        *carried, is_pruned_c = carried_and_mask
        pruned = keras.ops.where(is_pruned_c, keras.ops.cast(kept_bias_c, linear.dtype), linear)
        values = dict(zip(carried_slots, carried, strict=True)) | {output_slot: found.activation(pruned)}
        return [keras.ops.cast(run_steps(head_steps, values)[logits_slot], "float32")]

    return Split(
        layer_name=found.name,
        layer_index=_index_of(found, list_layers(model)),
        layer_class=type(found).__name__,
        n_channels=kernel_shape[-1],
        n_labels=int(graph.output_shape[1] or 0),
        n_carried=len(carried_slots),
        pruned_output_c=_to_numpy(measure(kept_bias_c)),
        run_trunk=compile_function(trunk),
        run_head=compile_function(head),
    )


def ends_in_softmax(model: Any) -> bool:
    """True if the model's output is softmax probabilities, False for logits. Raises `ModelError` for anything else."""
    return _softmax_form(flatten_model(model).steps[-1]) != "none"


def _last_convolution(graph: Graph, convolution: type) -> Any:
    convolutions = [step for step in graph.steps if isinstance(step.layer, convolution)]
    if not convolutions:
        raise ModelError(
            "the model must have a Conv2D on the way to its output, got none; name a Dense layer to prune its units"
        )
    distance = _steps_to_output(graph)
    # Of two equally near the output, the one that runs later.
    return min(reversed(convolutions), key=lambda step: distance[step.outputs[0]]).layer


def _steps_to_output(graph: Graph) -> dict[int, int]:
    """The number of steps on the longest way from each slot to the output."""
    distance = {graph.output_slot: 0}
    for step in reversed(graph.steps):
        after = max(distance.get(slot, 0) for slot in step.outputs) + 1
        for slot in step.input_slots:
            distance[slot] = max(distance.get(slot, 0), after)
    return distance


def _check_prunable(layer: Any, graph: Graph) -> None:
    import keras

    if not isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        raise ModelError(
            f"only Conv2D and Dense layers can be pruned, got {layer.name!r}, a {type(layer).__name__}; "
            "`lab3 inspect` lists the layers"
        )
    calls = [step for step in graph.steps if step.layer is layer]
    if not calls:
        raise ModelError(f"layer {layer.name!r} is not on the way to the model's output, so pruning it changes nothing")
    if len(calls) > 1:
        raise ModelError(f"layer {layer.name!r} is called {len(calls)} times in the model; name a layer called once")
    if calls[0].outputs[0] == graph.output_slot:
        raise ModelError(
            f"layer {layer.name!r} is the model's output: its units are the classes; name an earlier layer"
        )
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        raise ModelError(
            f"layer {layer.name!r} must have its channels last, got {layer.data_format}; "
            "rebuild the model with data_format='channels_last'"
        )
    if getattr(layer.activation, "__name__", "") in ("softmax", "log_softmax", "sparsemax", "glu"):
        raise ModelError(
            f"layer {layer.name!r} must have an activation that acts on each channel alone, "
            f"got {layer.activation.__name__}"
        )
    if layer.kernel.shape[-1] < 2:
        raise ModelError(f"layer {layer.name!r} must have at least 2 channels, got 1: one always stays")


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
    return linear


def _index_of(layer: Any, layers: Sequence[Any]) -> int:
    return next(index for index, candidate in enumerate(layers) if candidate is layer)


def _to_numpy(tensor: Any) -> np.ndarray:
    import keras

    array: np.ndarray = keras.ops.convert_to_numpy(tensor)
    return array
