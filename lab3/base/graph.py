"""A Keras model as a flat list of steps, nested models unrolled, that can be cut and run in parts.

Sequential and Functional models record each call of a layer as a node. `flatten_model` walks them from the output, so
only what leads to the output is kept, and a model inside a model becomes its own steps.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from lab3.errors import ModelError

Values = dict[int, Any]


@dataclass(frozen=True)
class Step:
    """One call of one layer. `inputs` and `outputs` are slots: numbers of the tensors that flow between steps."""

    layer: Any
    node: Any
    inputs: tuple[tuple[int, int], ...]  # (id of the tensor in the node's recorded arguments, slot it is fed from)
    outputs: tuple[int, ...]

    @property
    def input_slots(self) -> tuple[int, ...]:
        return tuple(slot for _, slot in self.inputs)

    @property
    def shown(self) -> str:
        """Name and class of the layer, for messages."""
        return f"{self.layer.name} ({type(self.layer).__name__})"


@dataclass(frozen=True)
class Graph:
    """Steps in the order they run, from one input tensor to one output tensor."""

    steps: tuple[Step, ...]
    input_slot: int
    output_slot: int
    input_shape: tuple[int | None, ...]
    output_shape: tuple[int | None, ...]
    input_name: str
    input_dtype: str

    def feed(self, images_nhwc: Any) -> Any:
        """`images_nhwc` as the model's input: a model of 2-D inputs gets images of one color channel without it."""
        import keras

        lacks_channels = len(images_nhwc.shape) == 4 and len(self.input_shape) == 3
        return keras.ops.squeeze(images_nhwc, axis=-1) if lacks_channels else images_nhwc


def flatten_model(model: Any) -> Graph:
    """The graph of a Sequential or Functional model with one image input and one output.

    Raises `ModelError` for a subclassed or unbuilt model, or one with several inputs or outputs.
    """
    check_is_graph(model)
    for what, tensors in (("input", model.inputs), ("output", model.outputs)):
        if len(tensors) != 1:
            raise ModelError(
                f"the model must have one {what}, got {len(tensors)} ({', '.join(t.name for t in tensors)}); "
                + ("choose one with model.output" if what == "output" else "make a keras.Model with one")
            )
    walk = _Walk()
    (input_slot,) = walk.new_slots(1)
    (output_slot,) = walk.unroll(model, (input_slot,))
    images, output = model.inputs[0], model.outputs[0]
    shapes = tuple(images.shape), tuple(output.shape)
    return Graph(tuple(walk.steps), input_slot, output_slot, *shapes, images.name, images.dtype)


def check_is_graph(model: Any) -> None:
    """Raise `ModelError` unless the model is Sequential or Functional, and built."""
    if not _is_graph(model):
        raise ModelError(
            f"the model must be Sequential or Functional with a known input shape, got {type(model).__name__} "
            f"{getattr(model, 'name', None)!r}; rebuild it with keras.Input(shape) first"
        )


def run_steps(steps: Iterable[Step], values: Values) -> Values:
    """`values` (tensor of each slot) with the outputs of `steps` added; the steps run in inference mode."""
    import keras

    values = dict(values)
    for step in steps:
        # As `model(images, training=False)` does; random layers would otherwise take their own default, True.
        options = {"training": False} if isinstance(step.layer, keras.layers.Layer) else {}
        values.update(call_layer(step, step.layer, values, **options))
    return values


def call_layer(step: Step, layer: Any, values: Values, **options: Any) -> Values:
    """The outputs of `layer` by their slots, called with `options` besides on what `step` calls its own layer on."""
    import keras

    args, kwargs = step.node.arguments.fill_in({key: values[slot] for key, slot in step.inputs})
    outputs = keras.tree.flatten(layer(*args, **{**kwargs, **options}))
    return dict(zip(step.outputs, outputs, strict=True))


def is_of_keras(layer: Any) -> bool:
    """True for a layer or operation of Keras itself, False for one that somebody has derived from it."""
    return type(layer).__module__.startswith("keras.src.")


def list_layers(model: Any) -> list[Any]:
    """The model's layers in their own order, those of nested models in place of the nested model."""
    layers: list[Any] = []
    for layer in model.layers:
        layers.extend(list_layers(layer) if _is_graph(layer) else [layer])
    return layers


def scope_safely(layer: Any) -> Any:
    """`layer`, without a scope of its name where TensorFlow could not write that into a compiled function."""
    for each in layer._flatten_layers() if hasattr(layer, "_flatten_layers") else ():
        if not re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9_.-]*", each.name):
            each._open_name_scope = nullcontext
    return layer


def depends_on(steps: Iterable[Step], slots: Iterable[int]) -> set[int]:
    """The slots computed, directly or not, from any of `slots`, those included."""
    tainted = set(slots)
    for step in steps:
        if tainted.intersection(step.input_slots):
            tainted.update(step.outputs)
    return tainted


class _Walk:
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._n_slots = 0

    def new_slots(self, n: int) -> tuple[int, ...]:
        self._n_slots += n
        return tuple(range(self._n_slots - n, self._n_slots))

    def unroll(self, model: Any, input_slots: tuple[int, ...]) -> tuple[int, ...]:
        """Append the steps of one call of `model`; returns the slots of its outputs."""
        slot_of = {id(tensor): slot for tensor, slot in zip(model.inputs, input_slots, strict=True)}
        for node in _nodes_in_order(model, slot_of):
            inputs = tuple((id(tensor), slot_of[id(tensor)]) for tensor in node.input_tensors)
            if _is_graph(node.operation):
                outputs = self.unroll(node.operation, tuple(slot for _, slot in inputs))
            else:
                outputs = self.new_slots(len(node.outputs))
                self.steps.append(Step(scope_safely(node.operation), node, inputs, outputs))
            slot_of.update({id(tensor): slot for tensor, slot in zip(node.outputs, outputs, strict=True)})
        return tuple(slot_of[id(tensor)] for tensor in model.outputs)


def _nodes_in_order(model: Any, known: Mapping[int, int]) -> list[Any]:
    """The nodes behind the model's outputs, each after the nodes it depends on; an explicit stack for deep models."""
    ordered: list[Any] = []
    seen: set[int] = set()
    stack = [(_node_of(tensor), False) for tensor in reversed(model.outputs) if id(tensor) not in known]
    while stack:
        node, is_ready = stack.pop()
        if is_ready:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            parents = [_node_of(tensor) for tensor in node.input_tensors if id(tensor) not in known]
            stack.extend((parent, False) for parent in reversed(parents))
    return ordered


def _node_of(tensor: Any) -> Any:
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def _is_graph(layer: Any) -> bool:
    import keras

    if not isinstance(layer, keras.Model):
        return False
    if isinstance(layer, keras.Sequential):
        return bool(layer.built and layer.inputs)
    # Functional has no public name; it is what keras.Model(inputs, outputs) makes.
    return hasattr(layer, "_nodes_by_depth")
