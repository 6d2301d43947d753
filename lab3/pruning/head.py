"""What follows the cut, run with any set of its units pruned.

Behind the pruned layer a unit has two states, its own and that of a pruned one, and a head is `logits(S) =
head(where(S, pruned, own))`. Three forms of it do the same work in different places:

- `DividedHead`: the first layer that mixes channels is a Dense or Conv2D. It is linear in its input, so pruning a unit
  adds the difference of its two states times that unit's weights to what the layer gave before; only what follows is
  run for every K.
- `WholeHead`: everything behind the cut is run for every K.
- `MaskedHead`: as `WholeHead`, where channels are removed at several places behind the layer.
"""

from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from lab3.base.backend import Axes, compile_function, compile_gradient
from lab3.base.graph import Values, run_steps
from lab3.inputs.class_scores import without_activation
from lab3.pruning.anatomy import Anatomy

PrunedSets = Sequence[frozenset[int]]


class HeadForm(Protocol):
    """The steps of a head, not compiled; all take and return tensors of one block of images.

    `plan` gives the channels that `start` prunes for a block of sets, and those whose units `finish` must be given.
    `start` gives `[state, change]` with the units of `is_pruned_u` pruned, where `change` is what pruning `units` as
    well goes by. `finish` gives the value of every slot with those of `units` pruned that are 1 in the one row of
    `pruned_ku`, or in the row of each image. `shares_change`: `change` has one row for all images. `free_axes`: by the
    number of an argument of `Head.finish_pairs`, its axes of pairs, sets and units whose length is not always the same.
    """

    shares_change: bool
    free_axes: Axes

    def plan(self, pruned_sets: PrunedSets) -> tuple[frozenset[int], Sequence[int]]: ...

    def start(self, own: Any, pruned: Any, is_pruned_u: Any, units: Any) -> list[Any]: ...

    def finish(self, values: Values, state: Any, change: Any, units: Any, pruned_ku: Any) -> Values: ...


class Head:
    """A head form, compiled.

    `start(own, pruned, is_pruned_u, units)`: see `HeadForm`. `finish(state, change, *carried, units, pruned_ku)` gives
    `[logits_nl]`. `finish_pairs(rows, steps, state, change, *carried, units, pruned_ku)` gives the logits of image
    `rows[p]` with the units of row `steps[p]` pruned, for each p. `loss_gradient(own, pruned, *carried, labels_n)`
    gives the gradient of the summed cross-entropy to `own`; None where channels are removed at several places.
    """

    def __init__(self, anatomy: Anatomy, *, pruned_varies: bool) -> None:
        self._anatomy = anatomy
        self._form = _choose_form(anatomy, pruned_varies)
        self.plan = self._form.plan
        self.start = compile_function(self._form.start, {3: (0,)})
        self.finish = compile_function(self._finish)
        self.finish_pairs = compile_function(self._finish_pairs, self._form.free_axes)
        self.loss_gradient: Callable[..., list[Any]] | None = None
        if not isinstance(self._form, MaskedHead):
            self.loss_gradient = compile_gradient(self._loss)

    def _finish(self, state: Any, change: Any, *others: Any) -> list[Any]:
        *carried, units, pruned_ku = others
        values = dict(zip(self._anatomy.carried_slots, carried, strict=True))
        scores = self._anatomy.scores
        return [scores.logits(self._form.finish(values, state, change, units, pruned_ku)[scores.slot])]

    def _finish_pairs(self, rows: Any, steps: Any, state: Any, change: Any, *others: Any) -> list[Any]:
        from keras import ops

        *carried, units, pruned_ku = others
        some_state, *some_carried = (ops.take(tensor, rows, axis=0) for tensor in (state, *carried))
        some_change = change if self._form.shares_change else ops.take(change, rows, axis=0)
        return self._finish(some_state, some_change, *some_carried, units, ops.take(pruned_ku, steps, axis=0))

    def _loss(self, own: Any, pruned: Any, *carried_and_labels: Any) -> Any:
        from keras import ops

        *carried, labels_n = carried_and_labels
        none, zero = ops.zeros((1,), "int32"), ops.zeros((1, 1), "float32")
        state, change = self._form.start(own, pruned, ops.zeros(own.shape[-1:], "bool"), none)
        (logits_nl,) = self._finish(state, change, *carried, none, zero)
        return ops.sum(ops.sparse_categorical_crossentropy(labels_n, logits_nl, from_logits=True))


def _choose_form(anatomy: Anatomy, pruned_varies: bool) -> HeadForm:
    if anatomy.parts.mixing is not None:
        return DividedHead(anatomy)
    return MaskedHead(anatomy) if anatomy.is_masked else WholeHead(anatomy, shares_change=not pruned_varies)


class DividedHead:
    """The state is the mixing layer's output, the change that of its input."""

    shares_change = False
    free_axes: Axes = MappingProxyType({0: (0,), 1: (0,), 3: (-1,), -2: (0,), -1: (0, 1)})

    def __init__(self, anatomy: Anatomy) -> None:
        assert anatomy.parts.mixing is not None
        self._mixing, self._rest = anatomy.parts.mixing, anatomy.parts.rest
        self._linear = without_activation(self._mixing)

    def plan(self, pruned_sets: PrunedSets) -> tuple[frozenset[int], Sequence[int]]:
        """What is pruned in the first set is so from the start; the others are added."""
        base = pruned_sets[0]
        return base, sorted(frozenset().union(*pruned_sets) - base)

    def start(self, own: Any, pruned: Any, is_pruned_u: Any, units: Any) -> list[Any]:
        from keras import ops

        change = ops.take(pruned, units, axis=-1) - ops.take(own, units, axis=-1)
        return [self._linear(ops.where(is_pruned_u, pruned, own)), change]

    def finish(self, values: Values, state: Any, change: Any, units: Any, pruned_ku: Any) -> Values:
        from keras import ops

        pruned = ops.cast(_beside(pruned_ku, change), change.dtype)
        mixed = state + _mix(self._linear, change * pruned, units)
        return run_steps(self._rest, values | {self._mixing.outputs[0]: self._mixing.layer.activation(mixed)})


class WholeHead:
    """The state is the features as they are, the change the features in their pruned state."""

    free_axes: Axes = MappingProxyType({0: (0,), 1: (0,), -1: (0,)})

    def __init__(self, anatomy: Anatomy, *, shares_change: bool) -> None:
        parts, self.shares_change = anatomy.parts, shares_change
        has_boundary = parts.boundary is not None
        self._slots = anatomy.output_slots if parts.boundary is None else (parts.boundary,)
        self._steps = parts.rest if has_boundary else (*parts.channelwise, *parts.rest)
        self._n_channels = anatomy.n_channels

    def plan(self, pruned_sets: PrunedSets) -> tuple[frozenset[int], Sequence[int]]:
        """Nothing is pruned from the start."""
        return frozenset(), range(self._n_channels)

    def start(self, own: Any, pruned: Any, is_pruned_u: Any, units: Any) -> list[Any]:
        return [own, pruned]

    def finish(self, values: Values, state: Any, change: Any, units: Any, pruned_ku: Any) -> Values:
        from keras import ops

        chosen = ops.where(_beside(pruned_ku, change) > 0, change, state)
        values |= zip(self._slots, split_calls(chosen, len(self._slots)), strict=True)
        return run_steps(self._steps, values)


class MaskedHead(WholeHead):
    """The state is the layer's own output; a removed channel is 0 at each place where it is read."""

    def __init__(self, anatomy: Anatomy) -> None:
        super().__init__(anatomy, shares_change=True)
        self._anatomy = anatomy

    def finish(self, values: Values, state: Any, change: Any, units: Any, pruned_ku: Any) -> Values:
        anatomy, parts = self._anatomy, self._anatomy.parts
        values |= zip(self._slots, split_calls(state, len(self._slots)), strict=True)
        values = anatomy.remove_channels(run_steps(parts.alone, values), pruned_ku > 0)
        return run_steps((*parts.joined, *parts.rest), values)


def join_calls(outputs: Sequence[Any]) -> Any:
    """The outputs of several calls of one layer as one tensor, side by side on the first axis behind the images'."""
    from keras import ops

    if len(outputs) == 1:
        return outputs[0]
    return ops.stack(outputs, axis=1) if len(outputs[0].shape) == 2 else ops.concatenate(outputs, axis=1)


def split_calls(joined: Any, n_calls: int) -> list[Any]:
    """What `join_calls` joined, apart again."""
    from keras import ops

    if n_calls == 1:
        return [joined]
    parts = ops.split(joined, n_calls, axis=1)
    return [ops.squeeze(part, axis=1) for part in parts] if len(joined.shape) == 3 else parts


def _beside(pruned_ku: Any, features: Any) -> Any:
    """`pruned_ku` `(1 or N, U)` with as many axes as `features` `(N, ..., U)`."""
    from keras import ops

    for _ in range(len(features.shape) - 2):
        pruned_ku = ops.expand_dims(pruned_ku, 1)
    return pruned_ku


def _mix(layer: Any, inputs: Any, units: Any) -> Any:
    """The layer's product of `inputs` `(N, ..., len(units))` with the weights of those input units; no bias."""
    import keras

    if isinstance(layer, keras.layers.Dense):
        return keras.ops.matmul(inputs, keras.ops.take(layer.kernel, units, axis=0))
    kernel = keras.ops.take(layer.kernel, units, axis=2)
    return keras.ops.conv(inputs, kernel, layer.strides, layer.padding, "channels_last", layer.dilation_rate)
