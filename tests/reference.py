"""The slow, literal loop of both reports: set weights, run the whole model, look. Fast paths are held against it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.graph import list_layers

_BLOCK = 1500  # images that the whole network is run on at a time
# What `split_model` is told where it is held against `literal_sweep` with its defaults.
AS_REPORTED: dict[str, Any] = {"effect": "zero_weights", "measured": "output"}


@dataclass(frozen=True)
class ReferencePoint:
    k: int
    pruned_channels: tuple[int, ...]
    scores_nl: np.ndarray
    predictions_n: np.ndarray
    correct: int
    loss: float


def literal_sweep(
    model: Any,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    layer_name: str,
    schedule: Sequence[int],
    *,
    measured: str = "output",
    bias: str = "zero",
    average_batch_size: int | None = None,
    ranking: str = "iterative",
) -> list[ReferencePoint]:
    """At each K: rank all channels on the network as pruned so far, zero the lowest K, run. Weights are restored."""
    layer = next(layer for layer in list_layers(model) if layer.name == layer_name)
    original = layer.get_weights()
    order = _rank(model, layer, images_nhwc, measured, average_batch_size)
    gone: set[int] = set()
    points = []
    try:
        for k in schedule:
            if ranking == "iterative":
                order = _rank(model, layer, images_nhwc, measured, average_batch_size)
            gone |= set(order[:k].tolist())
            weights = [weight.copy() for weight in original]
            weights[0][..., sorted(gone)] = 0
            if bias == "zero" and len(weights) > 1:
                weights[1][sorted(gone)] = 0
            layer.set_weights(weights)
            scores_nl = _run(model, images_nhwc)
            predictions_n = scores_nl.argmax(axis=1)
            loss = _loss(scores_nl, labels_n)
            points.append(
                ReferencePoint(
                    k, tuple(sorted(gone)), scores_nl, predictions_n, int((predictions_n == labels_n).sum()), loss
                )
            )
    finally:
        layer.set_weights(original)
    return points


def _rank(model: Any, layer: Any, images_nhwc: np.ndarray, measured: str, average_batch_size: int | None) -> np.ndarray:
    import keras

    activation, call = layer.activation, layer.call
    recorded: list[np.ndarray] = []

    def record(*args: Any, **kwargs: Any) -> Any:
        output = call(*args, **kwargs)
        recorded.append(keras.ops.convert_to_numpy(output))
        return output

    layer.call = record
    if measured == "before_activation":
        layer.activation = keras.activations.linear
    try:
        _run(model, images_nhwc)
    finally:
        layer.activation, layer.call = activation, call
    output = np.concatenate(recorded)
    size = average_batch_size or len(output)
    batch_means = [
        output[start : start + size].mean(axis=tuple(range(output.ndim - 1)), dtype=np.float64)
        for start in range(0, len(output), size)
    ]
    return np.argsort(np.mean(batch_means, axis=0), kind="stable")


def _run(model: Any, images_nhwc: np.ndarray) -> np.ndarray:
    import keras

    outputs = [
        keras.ops.convert_to_numpy(model(images_nhwc[start : start + _BLOCK], training=False))
        for start in range(0, len(images_nhwc), _BLOCK)
    ]
    return both_classes(model, np.concatenate(outputs).astype(np.float32))


def both_classes(model: Any, scores_nl: np.ndarray) -> np.ndarray:
    """One probability p as 1 - p and p, one logit z as 0 and z; several scores as they are."""
    if scores_nl.shape[1] > 1:
        return scores_nl
    activation = getattr(list_layers(model)[-1].activation, "__name__", "")
    return np.concatenate([1 - scores_nl if activation == "sigmoid" else 0 * scores_nl, scores_nl], axis=1)


def _loss(scores_nl: np.ndarray, labels_n: np.ndarray) -> float:
    scores_nl = scores_nl.astype(np.float64)
    if np.allclose(scores_nl.sum(axis=1), 1, atol=1e-4) and (scores_nl >= 0).all():
        log_nl = np.log(scores_nl)
    else:
        log_nl = scores_nl - np.logaddexp.reduce(scores_nl, axis=1, keepdims=True)
    return float(-log_nl[np.arange(len(labels_n)), labels_n].mean())


def shake(model: Any, seed: int = 0) -> Any:
    """Random biases and normalisation statistics: with Keras's initial ones a wrong constant would not show."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        if weight.path.endswith(("bias", "beta", "moving_mean")):
            weight.assign(rng.normal(0, 0.3, weight.shape))
        elif weight.path.endswith(("gamma", "moving_variance")):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
    return model


def normalise(model: Any, images_nhwc: np.ndarray) -> None:
    """Give every BatchNormalization the statistics of `images_nhwc` and a random shift.

    Deep networks with random weights otherwise answer the same to every image.
    """
    import keras

    rng = np.random.default_rng(0)
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
        layer.beta.assign(rng.normal(0, 0.3, layer.beta.shape))
    model(images_nhwc, training=True)
