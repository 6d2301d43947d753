"""Which layer is pruned, and whether it can be."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab3.base.graph import Graph, Step, depends_on, flatten_model, list_layers
from lab3.errors import ConfigError, Lab3Error, ModelError
from lab3.inputs.class_scores import find_scores_slot
from lab3.pruning.channelwise import separate


def find_layer(model: Any, layer: str | int | None = None) -> Any:
    """The layer to be pruned: by name, by index (negative from the end), or the last `Conv2D` on the way to the output
    whose channels are not the classes.

    Raises `ConfigError` for a name or index that is not there, `ModelError` for a layer that cannot be pruned.
    """
    graph = flatten_model(model)
    layers = list_layers(model)
    if layer is None:
        found = _convolutions_from_the_end(graph)[0]
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


def score_convolutions(model: Any) -> list[str]:
    """Names of the convolutions behind the last one that can be pruned: their channels are the classes."""
    graph = flatten_model(model)
    last = _convolutions_from_the_end(graph)[0]
    names = [layer.name for layer in _convolutions_from_the_end(graph, only_prunable=False)]
    return names[: names.index(last.name)]


def _convolutions_from_the_end(graph: Graph, only_prunable: bool = True) -> list[Any]:
    import keras

    distance = _steps_to_output(graph)
    # Of two equally near the output, the one that runs later comes first.
    calls = [step for step in reversed(graph.steps) if isinstance(step.layer, keras.layers.Conv2D)]
    calls.sort(key=lambda step: distance[step.outputs[0]])
    found = [call.layer for call in calls if not (only_prunable and _makes_class_scores([call], graph))]
    if not found:
        got = f"only {calls[0].layer.name!r}, which makes the class scores" if calls else "none"
        raise ModelError(
            f"the model must have a Conv2D on the way to its output, got {got}; name a Dense layer to prune its units"
        )
    return found


def _makes_class_scores(calls: Sequence[Step], graph: Graph) -> bool:
    """True if channels of the layer stay apart up to the class scores: they are the classes, or parts of them."""
    slot = find_scores_slot(graph)
    apart = (*calls, *separate(graph.steps, calls).channelwise)
    return any(slot in step.outputs for step in apart)


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
    if _makes_class_scores(calls, graph):
        raise ModelError(f"layer {layer.name!r} makes the class scores: its units are the classes; name another layer")
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


@dataclass(frozen=True)
class LayerInfo:
    """One row of `lab3 inspect`."""

    index: int
    name: str
    class_name: str
    output_shape: tuple[int | None, ...] | None
    n_parameters: int
    is_pruned: bool


def describe_layers(model: Any, layer: str | int | None = None) -> list[LayerInfo]:
    """A row for each layer, the one that would be pruned marked; none is marked if there is no such layer.

    Raises `ConfigError` or `ModelError` only if `layer` is given and cannot be pruned.
    """
    try:
        pruned = find_layer(model, layer)
    except Lab3Error:
        if layer is not None:
            raise
        pruned = None
    return [
        LayerInfo(index, each.name, type(each).__name__, _output_shape(each), each.count_params(), each is pruned)
        for index, each in enumerate(list_layers(model))
    ]


def _output_shape(layer: Any) -> tuple[int | None, ...] | None:
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):
        # Layers called several times, or with several outputs, have no single one.
        return None
    return tuple(shape)
