"""Random graphs of the patterns that people's networks are made of, with a place to mask channels by hand.

A graph is drawn twice from the same seed: as it is, and with a `Mask` on every tensor from which the layers that mix or
join channels read the pruned layer's. The second is the slow reference of `effect: remove`; it knows nothing of how
lab3 takes graphs apart.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers

from tests.reference import shake

N_CHANNELS = 6
PATTERNS = ("plain", "residual", "concat", "depthwise", "squeeze_excite", "global_pool", "fork", "post_activation")
HEADS = ("softmax", "logits", "softmax_layer", "sigmoid", "logit")
POLICIES = ("float32", "float32", "float32", "mixed_float16", "mixed_bfloat16")


class Mask(layers.Layer):
    """Multiplies channels by 1 or 0; unit u of a wider tensor is of channel u % C."""

    def __init__(self) -> None:
        super().__init__()
        self.kept_c = np.ones(N_CHANNELS, np.float32)

    def call(self, tensor: Any) -> Any:
        kept_u = np.tile(self.kept_c, tensor.shape[-1] // N_CHANNELS)
        return keras.ops.where(kept_u > 0, tensor, keras.ops.zeros_like(tensor))


@dataclass
class RandomModel:
    """`model` and its twin `masked`, with the same weights; `activation` is what importance is measured on."""

    model: Any
    masked: Any
    activation: Any
    description: str

    def share_weights(self) -> None:
        """Give the twin the model's weights."""
        for ours, theirs in zip(_in_order_made(self.model), _in_order_made(self.masked), strict=True):
            theirs.set_weights(ours.get_weights())

    def masked_scores(self, images_nhwc: np.ndarray, pruned_channels: list[int]) -> np.ndarray:
        for layer in self.masked.layers:
            if isinstance(layer, Mask):
                layer.kept_c = np.isin(np.arange(N_CHANNELS), pruned_channels, invert=True).astype(np.float32)
        return np.asarray(keras.ops.convert_to_numpy(self.masked(images_nhwc, training=False)), np.float32)


def _in_order_made(model: Any) -> list[Any]:
    """Layers with weights by class and by the number in the name that Keras gave: masks change the order of layers."""

    def key(layer: Any) -> tuple[str, int]:
        number = re.search(r"_(\d+)$", layer.name)
        return type(layer).__name__, int(number[1]) if number else -(layer.name == "pruned")

    return sorted((layer for layer in model.layers if layer.weights), key=key)


def random_model(seed: int) -> RandomModel:
    keras.utils.set_random_seed(seed)
    policy = POLICIES[seed % len(POLICIES)]
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model, activation, description = _draw(seed, lambda tensor: tensor)
        masked, _, _ = _draw(seed, lambda tensor: Mask()(tensor))
    finally:
        keras.config.set_dtype_policy(before)
    shake(model, seed)
    drawn = RandomModel(model, masked, keras.Model(model.inputs[0], activation), f"{policy}: {description}")
    drawn.share_weights()
    return drawn


def _draw(seed: int, mask: Callable[[Any], Any]) -> tuple[Any, Any, str]:
    rng = np.random.default_rng(seed)
    pattern, head = PATTERNS[seed // 2 % len(PATTERNS)], HEADS[seed // 3 % len(HEADS)]
    inputs = keras.Input((8, 8, 3))
    x = _noise(inputs, rng)
    x = layers.Conv2D(N_CHANNELS, 3, padding="same", activation="relu")(x)
    shortcut = x

    act = str(rng.choice(["relu", "gelu", "silu", "tanh"]))
    is_fused = bool(rng.integers(2)) and pattern != "post_activation"
    x = layers.Conv2D(N_CHANNELS, 3, padding="same", activation=act if is_fused else None, name="pruned")(x)
    measured = x if is_fused else None
    if rng.integers(3) or not is_fused:
        x = layers.BatchNormalization()(x)
    if pattern == "post_activation":
        x = layers.Add()([mask(x), shortcut])
    if measured is None:
        x = layers.ReLU()(x) if act == "relu" else layers.Activation(act)(x)
        measured = x
    x = _noise(x, rng, at_front=False)
    x = _consume(x, shortcut, pattern, mask, rng)
    if rng.integers(2):
        x = layers.Dense(7, activation="relu")(x)
    return keras.Model(inputs, _end(x, head)), measured, f"{pattern}, {act}{' fused' * is_fused}, {head}"


def _noise(x: Any, rng: np.random.Generator, at_front: bool = True) -> Any:
    """Layers that do something in training alone."""
    front = [
        lambda x: layers.RandomFlip()(x), lambda x: layers.RandomRotation(0.2)(x), lambda x: layers.RandomZoom(0.2)(x),
        lambda x: layers.RandomContrast(0.3)(x), lambda x: layers.RandomBrightness(0.3, (-3, 3))(x),
    ]  # fmt: skip
    anywhere = [
        lambda x: layers.GaussianNoise(1.0)(x), lambda x: layers.Dropout(0.5)(x),
        lambda x: layers.SpatialDropout2D(0.5)(x), lambda x: layers.GaussianDropout(0.5)(x),
    ]  # fmt: skip
    makers = front + anywhere if at_front else anywhere
    for index in rng.choice(len(makers), rng.integers(3), replace=False):
        x = makers[index](x)
    return x


def _consume(x: Any, shortcut: Any, pattern: str, mask: Callable[[Any], Any], rng: np.random.Generator) -> Any:
    """From the pruned layer's features to one vector an image; `mask` where they are mixed or joined."""
    if pattern == "post_activation":
        return layers.Flatten()(layers.MaxPooling2D(2)(x))
    if pattern == "plain":
        x = mask(layers.AveragePooling2D(2)(x))
        x = layers.Conv2D(5, 3, strides=int(rng.integers(1, 3)), padding="same", activation="relu")(x)
        return layers.Flatten()(x)
    if pattern == "residual":
        x = layers.ReLU()(layers.BatchNormalization()(layers.Add()([mask(x), shortcut])))
        return layers.Flatten()(layers.Conv2D(4, 3, activation="relu")(x))
    if pattern == "concat":
        side = layers.Conv2D(3, 1, activation="relu")(shortcut)
        return layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(layers.Concatenate()([side, mask(x)])))
    if pattern == "depthwise":
        x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, padding="same")(x)))
        return layers.Flatten()(layers.Conv2D(5, 1, activation="relu")(mask(x)))
    if pattern == "squeeze_excite":
        gate = layers.Dense(4, activation="relu")(mask(layers.GlobalAveragePooling2D()(x)))
        gate = layers.Reshape((1, 1, N_CHANNELS))(layers.Dense(N_CHANNELS, activation="sigmoid")(gate))
        return layers.Flatten()(layers.Conv2D(4, 3)(layers.Multiply()([mask(x), gate])))
    if pattern == "fork":
        left = layers.Conv2D(3, 3, activation="relu")(mask(layers.BatchNormalization()(x)))
        right = layers.Flatten()(mask(layers.MaxPooling2D(4)(x)))
        return layers.Concatenate()([layers.GlobalMaxPooling2D()(left), layers.Dense(5)(right)])
    return mask(layers.GlobalAveragePooling2D()(x))


def _end(x: Any, head: str) -> Any:
    if head == "softmax":
        return layers.Dense(4, activation="softmax")(x)
    if head == "softmax_layer":
        return layers.Activation("softmax", dtype="float32")(layers.Dense(4)(x))
    if head == "logits":
        return layers.Dense(4)(x)
    return layers.Dense(1, activation="sigmoid" if head == "sigmoid" else None)(x)
