"""Small networks of every kind that can be cut, and a sweep of them in one call."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from lab3.base.backend import to_numpy
from lab3.base.graph import list_layers
from lab3.pruning.capture import capture, image_weights
from lab3.pruning.engine import SweepPoint, sweep_points
from lab3.pruning.rank import plan_pruning
from lab3.pruning.split import split_model


def fast_sweep(
    model: Any,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    layer: str | None,
    schedule: list[int],
    *,
    effect: Any = "zero_weights",
    measured: Any = "output",
    bias: Any = "zero",
    average_batch_size: int | None = None,
    ranking: Any = "iterative",
    shortcut: Any = "none",
    batch_size: int = 40,
    cache_mb: int = 100,
) -> list[SweepPoint]:
    split = split_model(model, layer, effect=effect, measured=measured, bias=bias)
    weights_n = image_weights(len(labels_n), "batches" if average_batch_size else "images", average_batch_size or 1)
    captured = capture(
        split, images_nhwc, lambda block: block, weights_n=weights_n, batch_size=batch_size, cache_mb=cache_mb
    )
    steps = plan_pruning(captured.importance_c, split.pruned_map, schedule, ranking)
    return list(sweep_points(split, captured.features, labels_n, steps, batch_size=batch_size, shortcut=shortcut))


def balance(model: Any, images_nhwc: np.ndarray) -> None:
    """Shift the last layer's bias so that an untrained model's predictions fall on all classes."""
    scores_nl = to_numpy(model(images_nhwc))
    logits_nl = np.log(scores_nl) if np.allclose(scores_nl.sum(axis=1), 1) else scores_nl
    last = [layer for layer in list_layers(model) if isinstance(layer, layers.Dense)][-1]
    last.bias.assign(last.bias - logits_nl.mean(axis=0))


def sequential() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(6, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(8, 3, activation="relu", name="pruned"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(16, activation="relu"),
            layers.Dense(5, activation="softmax"),
        ]
    )


def gelu_then_softmax_layer() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="gelu", name="pruned")(inputs)
    x = layers.Dense(5)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Softmax()(x))


def residual() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(8, 3, padding="same", name="pruned")(x)
    y = layers.ReLU()(layers.BatchNormalization()(y))
    x = layers.GlobalAveragePooling2D()(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(5)(x))


def inception() -> Any:
    inputs = keras.Input((8, 8, 3))
    stem = layers.Conv2D(4, 1, activation="relu")(inputs)
    left = layers.Conv2D(3, 3, padding="same", activation="relu")(stem)
    right = layers.Conv2D(8, 1, activation="relu", name="pruned")(layers.MaxPooling2D(3, 1, padding="same")(stem))
    x = layers.Flatten()(layers.Concatenate()([left, right, stem * 2.0]))
    return keras.Model(inputs, layers.Activation("softmax")(layers.Dense(5)(x)))


def nested() -> Any:
    base_input = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu")(base_input)
    base = keras.Model(base_input, layers.Conv2D(8, 3, activation="relu", name="pruned")(x), name="base")
    head = keras.Sequential([keras.Input((4, 4, 8)), layers.Flatten(), layers.Dense(5, activation="softmax")])
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, head(base(inputs)))


def squeeze_and_excitation() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="pruned")(inputs)
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    x = layers.DepthwiseConv2D(3)(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def dense() -> Any:
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Flatten(),
            layers.Dense(12, activation="relu", name="pruned"),
            layers.BatchNormalization(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def stacked() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="pruned")(inputs)
    x = layers.ZeroPadding2D(1)(layers.AveragePooling2D(2)(layers.BatchNormalization()(x)))
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


def mobilenet() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="pruned")(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(10, 1, use_bias=False)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Reshape((10,))(layers.GlobalAveragePooling2D(keepdims=True)(x))
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(x))


def siamese() -> Any:
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(8, 3, activation="relu", name="pruned")
    left, right = conv(inputs), conv(layers.AveragePooling2D(3, 1, padding="same")(inputs))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(left), layers.GlobalMaxPooling2D()(right)])
    return keras.Model(inputs, layers.Dense(5)(x))


def dense_called_twice() -> Any:
    inputs = keras.Input((8, 8, 3))
    dense = layers.Dense(12, activation="tanh", name="pruned")
    flat = layers.Flatten()(inputs)
    return keras.Model(inputs, layers.Dense(5)(layers.Subtract()([dense(flat), dense(flat * 0.5)])))


def shared_behind() -> Any:
    inputs = keras.Input((8, 8, 3))
    shared = layers.Conv2D(8, 3, padding="same", activation="relu")
    x = shared(layers.Conv2D(8, 3, padding="same", activation="relu", name="pruned")(inputs))
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(shared(x))))


def two_heads() -> Any:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, activation="relu", name="pruned")(inputs)
    classes = layers.Dense(5, activation="softmax", name="classes")(layers.Flatten()(x))
    return keras.Model(inputs, [layers.Dense(1, name="size")(layers.Flatten()(x)), classes])


MODELS: list[Callable[[], Any]] = [
    sequential, gelu_then_softmax_layer, residual, inception, nested, squeeze_and_excitation, dense, stacked, mobilenet,
    siamese, dense_called_twice, shared_behind,
]  # fmt: skip
