"""What a model's output says of classes: logits or probabilities, of two classes where it is one number."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from lab3.base.backend import compile_function
from lab3.base.graph import Graph, Step, flatten_model, run_steps, scope_safely
from lab3.errors import ModelError

Final = Literal["none", "softmax", "sigmoid"]
_LEAST_PROBABILITY = 1e-7  # keras.config.epsilon(), by which Keras's own loss clips probabilities


@dataclass(frozen=True)
class ClassScores:
    """The end of a model with `n_labels` classes.

    `steps` are the model's without a final softmax or sigmoid, which keeps the order of scores, and `slot` is what they
    end in: logits. A model that computes its output in 16 bits keeps it, as rounded probabilities can be equal where
    logits are not: then `slot` has probabilities.
    """

    steps: tuple[Step, ...]
    slot: int
    n_labels: int
    final: Final
    has_probabilities: bool
    is_binary: bool

    def logits(self, tensor: Any) -> Any:
        """The tensor of `slot` as float32 logits `(N, L)`; one number z as those of two classes, 0 and z."""
        from keras import ops

        scores_nl = ops.cast(tensor, "float32")
        if self.has_probabilities and self.is_binary:
            scores_nl = ops.concatenate([1 - scores_nl, scores_nl], axis=1)
        elif self.is_binary:
            scores_nl = ops.concatenate([ops.zeros_like(scores_nl), scores_nl], axis=1)
        return ops.log(ops.maximum(scores_nl, _LEAST_PROBABILITY)) if self.has_probabilities else scores_nl

    def outputs(self, logits_nl: Any) -> Any:
        """What the model itself gives where its logits are `logits_nl`, float32 `(N, L)`; for two classes both."""
        from keras import ops

        return logits_nl if self.final == "none" else ops.softmax(logits_nl, axis=1)

    def both_classes(self, output: Any) -> Any:
        """The model's own output as `outputs` gives it."""
        from keras import ops

        output = ops.cast(output, "float32")
        if not self.is_binary:
            return output
        first = ops.zeros_like(output) if self.final == "none" else 1 - output
        return ops.concatenate([first, output], axis=1)


def read_class_scores(graph: Graph) -> ClassScores:
    """How `graph` gives class scores. Raises `ModelError` for an output that is not one row of them an image."""
    end = _read_end(graph)
    steps, last = graph.steps, graph.steps[-1]
    if end.slot != graph.output_slot:
        steps = steps[:-1]
    elif end.is_fused and not end.has_probabilities:
        steps = (*steps[:-1], replace(last, layer=without_activation(last)))
    n_labels, is_binary = max(2, end.n_outputs), end.n_outputs == 1
    return ClassScores(steps, end.slot, n_labels, end.final, end.has_probabilities, is_binary)


def find_scores_slot(graph: Graph) -> int:
    """The slot of `read_class_scores` alone, found without making a layer; raises as that does."""
    return _read_end(graph).slot


class _End(NamedTuple):
    """The model's output: its size, the function it ends in, and whether that is a part of the last layer.

    `slot`: as in `ClassScores`, and so is `has_probabilities`.
    """

    n_outputs: int
    final: Final
    is_fused: bool
    has_probabilities: bool
    slot: int


def _read_end(graph: Graph) -> _End:
    shape = graph.output_shape
    if len(shape) != 2 or shape[1] is None:
        raise ModelError(
            f"the model must give one row of class scores an image, got output shape {shape}; "
            "add a layer such as GlobalAveragePooling2D or Flatten and a Dense, or choose another model"
        )
    last = graph.steps[-1]
    final, is_fused = _final_activation(last)
    if final == "sigmoid" and shape[1] > 1:
        raise ModelError(
            f"the model must give one class an image, got {shape[1]} sigmoids in layer {last.layer.name!r}, as for "
            "several labels at once; that would need a label and a threshold for each; end in softmax for one class"
        )
    has_probabilities = final != "none" and last.layer.compute_dtype in ("float16", "bfloat16")
    is_whole = final == "none" or is_fused or has_probabilities
    return _End(
        shape[1], final, is_fused, has_probabilities, slot=graph.output_slot if is_whole else last.input_slots[0]
    )


def compile_logits(model: Any) -> Callable[[Any], list[Any]]:
    """A function of images as `model` takes them, compiled, which gives their logits `(N, L)` as its only tensor.

    Raises as `flatten_model` and `read_class_scores` do.
    """
    graph = flatten_model(model)
    scores = read_class_scores(graph)

    def run(images: Any) -> list[Any]:
        return [scores.logits(run_steps(scores.steps, {graph.input_slot: graph.feed(images)})[scores.slot])]

    return compile_function(run)


def _final_activation(last: Step) -> tuple[Final, bool]:
    """The function the model's last step ends in, and whether it is fused into a layer that does more."""
    import keras

    activation = getattr(last.layer, "activation", None)
    if isinstance(last.layer, keras.layers.Softmax):
        return "softmax", False
    is_fused = not isinstance(last.layer, keras.layers.Activation)
    if activation is keras.activations.softmax:
        return "softmax", is_fused
    if activation is keras.activations.sigmoid:
        return "sigmoid", is_fused
    if activation in (None, keras.activations.linear):
        return "none", False
    name = getattr(activation, "__name__", str(activation))
    raise ModelError(f"the model must end in softmax, sigmoid or logits, got {name} in layer {last.layer.name!r}")


def without_activation(step: Step) -> Any:
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
