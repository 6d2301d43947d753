"""Which layer is pruned, and whether it can be."""

import difflib
from typing import Any

from lab3.errors import ConfigError, ModelError
from lab3.graph import Graph, depends_on, flatten_model, list_layers


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


def prunable_layers(model: Any) -> list[Any]:
    """Every Conv2D and Dense that can be pruned, in the model's order; none is a `ModelError`."""
    graph = flatten_model(model)
    found = []
    for layer in list_layers(model):
        try:
            _check_prunable(layer, graph)
        except ModelError:
            continue
        found.append(layer)
    if not found:
        raise ModelError("the model must have a Conv2D or Dense layer that can be pruned, got none")
    return found


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
    dependent = depends_on(graph.steps, [slot for call in calls for slot in call.outputs])
    if any(dependent.intersection(call.input_slots) for call in calls):
        raise ModelError(
            f"layer {layer.name!r} is called on what it gave in an earlier call, so its channels feed each other; "
            "name another layer"
        )
    if len({tuple(call.node.outputs[0].shape) for call in calls}) > 1:
        raise ModelError(f"layer {layer.name!r} must give one shape in all {len(calls)} calls; name another layer")
    if any(call.outputs[0] == graph.output_slot for call in calls):
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
