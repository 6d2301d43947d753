"""The networks lab3 can train: those of the two reports, and a small one for the bundled digits."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lab3.vocabulary import Architecture


def build_model(architecture: Architecture) -> Any:
    """An untrained Keras model; its weights come from Keras's global seed.

    `vgg16`: the first report's network, 32x32x3 to 10, 42 layers, 21,557,322 parameters. `simplecnn`: the second
    report's, 32x32x3 to 10 logits, initialised as PyTorch does. `digits_cnn`: 8x8x1 to 10, 32 channels in its last
    convolution.
    """
    return _BUILDERS[architecture]()


def _build_vgg16() -> Any:
    import keras
    from keras import layers

    def convolution(filters: int, *, penalised: bool = False) -> Any:
        regularizer = keras.regularizers.L2(0.001) if penalised else None
        return layers.Conv2D(filters, 3, padding="same", activation="relu", kernel_regularizer=regularizer)

    stack: list[Any] = [keras.Input((32, 32, 3), name="input_layer")]
    for filters, dropout in ((64, 0.05), (128, 0.10)):
        stack += [convolution(filters), convolution(filters, penalised=True), layers.BatchNormalization()]
        stack += [layers.MaxPooling2D(2), layers.Dropout(dropout)]
    # Blocks of three convolutions; the number says whether the first one is penalised too.
    for filters, first_penalised, dropout in ((256, False, 0.15), (512, True, 0.20), (512, True, 0.25)):
        for penalised in (first_penalised, False, True):
            stack += [convolution(filters, penalised=penalised), layers.BatchNormalization()]
        stack += [layers.MaxPooling2D(2), layers.Dropout(dropout)]
    stack += [layers.Flatten(), layers.Dropout(0.3), layers.Dense(4096, activation="relu")]
    stack += [layers.Dropout(0.5), layers.Dense(1024, activation="relu"), layers.Dropout(0.4)]
    stack += [layers.Dense(512, activation="relu", kernel_regularizer=keras.regularizers.L2(0.001))]
    stack += [layers.Dense(10, activation="softmax")]
    return _sequential("vgg16", stack)


def _build_simplecnn() -> Any:
    import keras
    from keras import layers

    def pytorch(fan_in: int) -> dict[str, Any]:
        # torch.nn.Conv2d and Linear draw weight and bias from U(-b, b), b = 1 / sqrt(fan_in).
        bound = 1 / math.sqrt(fan_in)
        return {
            "kernel_initializer": keras.initializers.RandomUniform(-bound, bound),
            "bias_initializer": keras.initializers.RandomUniform(-bound, bound),
        }

    return _sequential(
        "simplecnn",
        [
            keras.Input((32, 32, 3), name="input_layer"),
            layers.Conv2D(16, 3, padding="same", activation="relu", **pytorch(3 * 9)),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 3, padding="same", activation="relu", **pytorch(16 * 9)),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(256, activation="relu", **pytorch(32 * 8 * 8)),
            layers.Dense(10, **pytorch(256)),
        ],
    )


def _build_digits_cnn() -> Any:
    import keras
    from keras import layers

    return _sequential(
        "digits_cnn",
        [
            keras.Input((8, 8, 1), name="input_layer"),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ],
    )


def _sequential(name: str, layers: Sequence[Any]) -> Any:
    """A model whose layers have the names that Keras gives in a fresh process, whatever this one has built before."""
    import keras

    seen: Counter[str] = Counter()
    for layer in layers[1:]:
        kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
        layer.name = f"{kind}_{seen[kind]}" if seen[kind] else kind
        seen[kind] += 1
    return keras.Sequential(layers, name=name)


_BUILDERS: dict[str, Callable[[], Any]] = {
    "vgg16": _build_vgg16,
    "simplecnn": _build_simplecnn,
    "digits_cnn": _build_digits_cnn,
}
