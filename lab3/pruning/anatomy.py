"""Where a model is cut to prune one layer, and what a pruned channel then is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from lab3.base.backend import to_numpy
from lab3.base.graph import Graph, Step, Values, depends_on, flatten_model, run_steps, scope_safely
from lab3.errors import ConfigError
from lab3.inputs.class_scores import ClassScores, read_class_scores
from lab3.pruning.channelwise import Separation, is_activation, separate
from lab3.pruning.layers import find_layer
from lab3.vocabulary import Bias, Effect, Measured


@dataclass(frozen=True)
class Anatomy:
    """A model around the layer to be pruned.

    `calls`: the layer's steps, of which there can be several. `trunk`: the steps that do not depend on them.
    `carried_slots`: what the trunk gives to steps behind the boundary. `measured_step`: the step behind the layer whose
    output the importance is measured on, None for the layer's own. `kept_bias_c`: what the layer's linear output is
    where a channel's weights are 0, float32 `(C,)`.
    """

    graph: Graph
    scores: ClassScores
    layer: Any
    calls: tuple[Step, ...]
    trunk: tuple[Step, ...]
    parts: Separation
    carried_slots: tuple[int, ...]
    effect: Effect
    measured: Measured
    measured_step: Step | None
    kept_bias_c: np.ndarray

    @property
    def n_channels(self) -> int:
        return int(self.layer.kernel.shape[-1])

    @property
    def kernel(self) -> np.ndarray:
        """The layer's, `(..., C)`."""
        return to_numpy(self.layer.kernel)

    @property
    def batchnorm_scale_c(self) -> np.ndarray | None:
        """The scale of the first BatchNormalization behind the layer, `(C,)`; None where there is none."""
        import keras

        for step in self.parts.channelwise:
            layer = step.layer
            has_scale = isinstance(layer, keras.layers.BatchNormalization) and layer.scale
            if has_scale and layer.gamma.shape[0] == self.n_channels:
                return to_numpy(layer.gamma)
        return None

    @property
    def is_masked(self) -> bool:
        """True where channels are removed at several places behind the layer."""
        return self.effect == "remove" and self.parts.boundary is None

    @property
    def output_slots(self) -> tuple[int, ...]:
        """The layer's outputs, one for each call."""
        return tuple(slot for call in self.calls for slot in call.outputs)

    def remove_channels(self, values: Values, is_pruned_c: Any) -> Values:
        """`values` with 0 for pruned channels wherever the next layers that mix or join channels read them.

        `is_pruned_c`: bool or 0 and 1, `(C,)` or with a row an image. All slots of the frontier must be in `values`.
        """
        return values | {slot: self.remove_from(values[slot], is_pruned_c) for slot in self.parts.frontier}

    def remove_from(self, tensor: Any, is_pruned_c: Any) -> Any:
        """As `remove_channels`, for the tensor of one slot of the frontier."""
        from keras import ops

        # Unit u of a tensor with more units than channels is of channel u % C.
        n_repeats = tensor.shape[-1] // self.n_channels
        is_pruned_u = ops.concatenate([is_pruned_c] * n_repeats, axis=-1) if n_repeats > 1 else is_pruned_c
        while 1 < len(is_pruned_u.shape) < len(tensor.shape):
            is_pruned_u = ops.expand_dims(is_pruned_u, 1)
        return ops.where(is_pruned_u, ops.zeros_like(tensor), tensor)

    def literal_logits(self, inputs: Any, pruned_sets: Sequence[Sequence[int]]) -> np.ndarray:
        """Float32 logits `(K, N, L)` with sets of channels pruned in the slow and obvious way.

        The whole network is run step by step, the steps before the layer once for all sets. `zero_weights`: a copy of
        the layer has these filters 0. `remove`: the channels are 0 where they are read.
        """
        before = run_steps(self.trunk, {self.graph.input_slot: inputs})
        logits_knl = np.empty((len(pruned_sets), len(inputs), self.scores.n_labels), np.float32)
        for logits_nl, pruned_channels in zip(logits_knl, pruned_sets, strict=True):
            if self.effect == "zero_weights":
                layer = _with_zero_filters(self.calls[0], pruned_channels, keeps_bias=bool(self.kept_bias_c.any()))
                values = before | {call.outputs[0]: layer(before[call.input_slots[0]]) for call in self.calls}
            else:
                values = run_steps([*self.calls, *self.parts.alone], before)
                values = self.remove_channels(values, np.isin(np.arange(self.n_channels), list(pruned_channels)))
            behind = [step for step in self.scores.steps if step.outputs[0] not in values]
            logits_nl[:] = to_numpy(self.scores.logits(run_steps(behind, values)[self.scores.slot]))
        return logits_knl


def examine_model(
    model: Any,
    layer: str | int | None = None,
    *,
    effect: Effect = "remove",
    measured: Measured = "activation",
    bias: Bias = "zero",
) -> Anatomy:
    """How `model` is cut at `layer` (see `find_layer`).

    Raises `ModelError` for a model that is no graph or does not end in class scores, `ConfigError` for settings that
    are none of those listed or do not go together.
    """
    for name, value, allowed in (("effect", effect, Effect), ("measured", measured, Measured), ("bias", bias, Bias)):
        if value not in get_args(allowed):
            raise ConfigError(f"prune.{name} must be one of {', '.join(get_args(allowed))}, got {value!r}")
    if effect == "remove" and bias == "keep":
        raise ConfigError(
            "prune.bias must be zero where prune.effect is remove, got keep: a removed channel has no bias; "
            "set prune.effect=zero_weights to keep it"
        )
    found = find_layer(model, layer)
    n_channels = int(found.kernel.shape[-1])
    graph = flatten_model(model)
    scores = read_class_scores(graph)
    calls = tuple(step for step in graph.steps if step.layer is found)
    dependent = depends_on(scores.steps, [slot for call in calls for slot in call.outputs])
    parts = separate(scores.steps, calls)
    return Anatomy(
        graph=graph,
        scores=scores,
        layer=found,
        calls=calls,
        trunk=tuple(step for step in scores.steps if not dependent.intersection(step.outputs)),
        parts=parts,
        carried_slots=_carried_slots(parts, dependent),
        effect=effect,
        measured=measured,
        measured_step=_measured_step(parts, calls) if measured == "activation" else None,
        kept_bias_c=to_numpy(found.bias) if bias == "keep" and found.use_bias else np.zeros(n_channels, np.float32),
    )


def _carried_slots(parts: Separation, dependent: set[int]) -> tuple[int, ...]:
    behind = parts.rest if parts.boundary is not None else (*parts.joined, *parts.rest)
    return tuple(sorted({slot for step in behind for slot in step.input_slots if slot not in dependent}))


def _measured_step(parts: Separation, calls: Sequence[Step]) -> Step | None:
    """The first activation function behind the layer that still gives a value for each channel."""
    import keras

    if calls[0].layer.activation is not keras.activations.linear or len(calls) > 1:
        return None
    n_channels = calls[0].layer.kernel.shape[-1]
    found = (s for s in parts.channelwise if is_activation(s) and s.node.outputs[0].shape[-1] == n_channels)
    return next(found, None)


def _with_zero_filters(call: Step, channels: Sequence[int], *, keeps_bias: bool) -> Any:
    """A copy of the layer of `call` whose `channels` have no weights, and no bias unless it is kept."""
    layer = call.layer
    copy = type(layer).from_config({**layer.get_config(), "kernel_initializer": "zeros"})
    copy.build(call.node.input_tensors[0].shape)
    kernel, *bias = layer.get_weights()
    for weights in (kernel,) if keeps_bias else (kernel, *bias):
        weights[..., list(channels)] = 0
    copy.set_weights([kernel, *bias])
    return scope_safely(copy)
