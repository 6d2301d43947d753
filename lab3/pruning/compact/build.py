"""The smaller model, built from the configurations and weights of the layers."""

from typing import Any

import numpy as np

from lab3.base.graph import Step, call_layer
from lab3.pruning.compact.constants import Read, compose
from lab3.pruning.compact.narrowed import Narrowed
from lab3.pruning.compact.plan import Plan

_INPUT_AXIS = {"Dense": -2, "Conv2D": -2, "Conv2DTranspose": -1}  # of the kernel
Weights = list[np.ndarray]


def build_compact(plan: Plan) -> Any:
    """The Keras model that `plan` describes: flat, not compiled, of Keras's own classes and those of the original."""
    return _Builder(plan).build()


class _Builder:
    """Calls copies of the layers, smaller where the plan says so, on a new input."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._anatomy = plan, plan.anatomy
        self._copies: dict[int, Any] = {}
        self._names: set[str] = set()

    def build(self) -> Any:
        import keras

        graph = self._anatomy.graph
        name = self._new_name(graph.input_name)
        images = keras.Input(batch_shape=graph.input_shape, dtype=graph.input_dtype, name=name)
        values = {graph.input_slot: images}
        for step in graph.steps:
            inputs = {slot: values[slot] for slot in step.input_slots}
            for number, slot in enumerate(self._plan.widened.get(step.outputs[0], ())):
                inputs[slot] = self._widen(step, number, inputs[slot], self._plan.narrowed[slot])
            values.update(self._call(step, inputs))
        return keras.Model(images, values[graph.output_slot], name="compact")

    def _call(self, step: Step, inputs: dict[int, Any]) -> dict[int, Any]:
        """Outputs of the copy of the step's layer; all its calls share one."""
        import keras

        layer = step.layer
        if id(layer) in self._copies:
            return call_layer(step, self._copies[id(layer)], inputs)
        config, weights = layer.get_config(), layer.get_weights() if isinstance(layer, keras.layers.Layer) else []
        if (kept_u := self._plan.kept_u(step.outputs[0])) is not None:
            weights = self._narrow_output(step, config, weights, kept_u)
        if step.input_slots[0] in self._plan.narrowed and type(layer).__name__ in (*_INPUT_AXIS, "SeparableConv2D"):
            weights = self._narrow_input(Read(step, self._plan.narrowed[step.input_slots[0]]), config, weights)
        if "name" in config:
            config["name"] = self._new_name(layer.name)
        copy = self._copies[id(layer)] = type(layer).from_config(config)
        outputs = call_layer(step, copy, inputs)
        if weights:
            copy.set_weights(weights)
        if isinstance(layer, keras.layers.Normalization):
            copy.finalize_state()
        return outputs

    def _narrow_output(self, step: Step, config: dict[str, Any], weights: Weights, kept_u: np.ndarray) -> Weights:
        """The weights of the units that are kept; `config` is changed to fit."""
        layer, name = step.layer, type(step.layer).__name__
        if name in ("Dense", "Conv2D"):
            config["units" if name == "Dense" else "filters"] = len(kept_u)
            if layer is self._anatomy.layer:
                self._silence(weights)
        elif name == "Reshape":
            config["target_shape"] = (*step.node.outputs[0].shape[1:-1], len(kept_u))
        elif name == "DepthwiseConv2D":
            kernel, *bias = weights
            self._silence_constant(step, bias)
            return [kernel[:, :, self._plan.kept_u(step.input_slots[0])], *(each[kept_u] for each in bias)]
        elif name == "BatchNormalization":
            # Scale and variance may be what they are.
            self._silence_constant(step, [*weights[int(layer.scale) : -2], weights[-2]])
        # A PReLU can share its weights between channels.
        n_units = step.node.outputs[0].shape[-1]
        return [each[..., kept_u] if each.shape[-1] == n_units else each for each in weights]

    def _silence(self, weights: Weights) -> None:
        """Constant channels of the pruned layer get what pruned channels have, in place."""
        kernel, *bias = weights
        channels = list(self._plan.constant_channels)
        kernel[..., channels] = 0
        for each in bias:
            each[channels] = self._anatomy.kept_bias_c[channels]

    def _silence_constant(self, step: Step, weights: Weights) -> None:
        """Before they are first read, removed channels that stay are 0: what would be added to them is taken out."""
        narrowed = self._plan.narrowed[step.outputs[0]]
        if self._anatomy.effect == "remove" and step in self._anatomy.parts.alone:
            for each in weights:
                each[np.isin(narrowed.channel_u, self._plan.constant_channels)] = 0

    def _narrow_input(self, read: Read, config: dict[str, Any], weights: Weights) -> Weights:
        """The weights for what is left of the input, with what the lost units gave."""
        narrowed, name = read.narrowed, type(read.step.layer).__name__
        is_removed_u = self._plan.is_removed_u(narrowed)
        kept_u = np.flatnonzero(~is_removed_u)
        n_kernels = 2 if name == "SeparableConv2D" else 1
        kernels, bias = weights[:n_kernels], weights[n_kernels:]
        if narrowed.constant[..., is_removed_u].any():
            if read.is_foldable:
                lost = _constants(narrowed, is_removed_u) @ _summed(kernels)[is_removed_u]
                config["use_bias"] = True
                bias = [(lost + (bias[0].astype(np.float64) if bias else 0)).astype(kernels[0].dtype)]
            else:
                kernels = [_compose_kernel(kernels[0], _INPUT_AXIS[name], narrowed, is_removed_u)]
        if name == "SeparableConv2D":
            depthwise, pointwise = kernels
            per_unit = pointwise.reshape(1, 1, len(is_removed_u), -1, pointwise.shape[-1])[:, :, kept_u]
            return [depthwise[:, :, kept_u], per_unit.reshape(1, 1, -1, pointwise.shape[-1]), *bias]
        return [np.take(kernels[0], kept_u, axis=_INPUT_AXIS[name]), *bias]

    def _widen(self, step: Step, number: int, tensor: Any, narrowed: Narrowed) -> Any:
        """The tensor with its lost units back: a product with 0 and 1, constants in the bias."""
        from keras import layers

        is_removed_u = self._plan.is_removed_u(narrowed)
        n_units = len(is_removed_u)
        matrix, bias_u = np.eye(n_units, dtype=np.float32), np.zeros(n_units, np.float32)
        matrix[is_removed_u] = 0
        if narrowed.constant[..., is_removed_u].any():
            if Read(step, narrowed, is_widening=True).is_foldable:
                bias_u[is_removed_u] = _constants(narrowed, is_removed_u)
            else:
                full = np.eye(n_units, dtype=np.float32)
                matrix = _compose_kernel(full, 0, narrowed, is_removed_u)
        policy = tensor.dtype if tensor.dtype not in ("float16", "bfloat16") else f"mixed_{tensor.dtype}"
        name = self._new_name(f"{step.layer.name}_input_{number}")
        layer = layers.Dense(n_units, use_bias=bool(bias_u.any()), name=name, dtype=policy, trainable=False)
        widened = layer(tensor)
        layer.set_weights([matrix[~is_removed_u], bias_u] if bias_u.any() else [matrix[~is_removed_u]])
        return widened

    def _new_name(self, name: str) -> str:
        """The name, or with a number where another layer has it."""
        names = (name, *(f"{name}_{number}" for number in range(1, len(self._names) + 2)))
        new = next(each for each in names if each not in self._names)
        self._names.add(new)
        return new


def _constants(narrowed: Narrowed, is_removed_u: np.ndarray) -> np.ndarray:
    """The constants of the units that are removed, each the same at every position, float64 `(removed,)`."""
    constants: np.ndarray = narrowed.rows[:, is_removed_u[narrowed.is_lost_u]].mean(axis=0)
    return constants


def _summed(kernels: Weights) -> np.ndarray:
    """What a layer gives for 1 in one input unit, at every position, float64 `(U, outputs)`."""
    kernel, *pointwise = (each.astype(np.float64) for each in kernels)
    summed: np.ndarray = kernel.sum(axis=tuple(range(kernel.ndim - 2)))
    for each in pointwise:
        # Output m of input unit u is row u * multiplier + m.
        summed = np.einsum("um,umo->uo", summed, each.reshape(*summed.shape, -1))
    return summed


def _compose_kernel(kernel: np.ndarray, axis: int, narrowed: Narrowed, is_removed_u: np.ndarray) -> np.ndarray:
    """The kernel in which lost units that stay have the parts of those that are removed as well."""
    moved = np.moveaxis(kernel.astype(np.float64), axis, 0)
    stays_u = narrowed.is_lost_u & ~is_removed_u
    moved[stays_u] += np.tensordot(compose(narrowed, is_removed_u), moved[is_removed_u], axes=1)
    moved[is_removed_u] = 0
    return np.moveaxis(moved, 0, axis).astype(kernel.dtype)
