"""Outputs and inputs that people have: two classes from one number, 16 bits, images without a color axis."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import lab3
from lab3.base.backend import to_numpy
from lab3.errors import ModelError
from lab3.pruning.layers import find_layer, prunable_layers, score_convolutions
from lab3.pruning.split import split_model
from tests.graphs import fast_sweep
from tests.reference import literal_sweep, shake


def ending_in(*end: Any, policy: str = "float32") -> Any:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    try:
        inputs = keras.Input((8, 8, 3))
        x = layers.Conv2D(8, 3, activation="relu", name="pruned")(inputs)
        x = layers.Flatten()(layers.BatchNormalization()(x))
        for layer in end:
            x = layer(x)
        return shake(keras.Model(inputs, x))
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_one_number_is_two_classes(activation: str | None, rng: np.random.Generator) -> None:
    model = ending_in(layers.Dense(1, activation=activation))
    images_nhwc = rng.normal(size=(120, 8, 8, 3)).astype(np.float32)
    middle = 0.0 if activation is None else 0.5
    output = to_numpy(model(images_nhwc, training=False))
    logits = output if activation is None else np.log(output / (1 - output))
    model.layers[-1].bias.assign(model.layers[-1].bias - np.median(logits))
    scores_n = to_numpy(model(images_nhwc, training=False))[:, 0]
    labels_n = (scores_n > middle).astype(int)
    labels_n[:30] = 1 - labels_n[:30]

    points = fast_sweep(model, images_nhwc, labels_n, "pruned", list(range(8)))

    reference = literal_sweep(model, images_nhwc, labels_n, "pruned", range(8))
    assert [(p.pruned_channels, p.correct) for p in points] == [(r.pruned_channels, r.correct) for r in reference]
    np.testing.assert_allclose([p.loss for p in points], [r.loss for r in reference], rtol=1e-4)
    assert (points[0].correct, len(points[0].class_correct)) == (90, 2)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("last_dtype", [None, "float32"])
def test_models_in_16_bits_count_as_they_compute(policy: str, last_dtype: str | None, rng: np.random.Generator) -> None:
    last = layers.Dense(5, activation="softmax", dtype=last_dtype or policy)
    model = ending_in(layers.Dense(16, activation="relu", dtype=policy), last, policy=policy)
    images_nhwc = rng.normal(size=(200, 8, 8, 3)).astype(np.float32)
    # As Keras computes, in a compiled function: it may round less often than the model does step by step.
    labels_n = model.predict(images_nhwc, verbose=0).astype(np.float32).argmax(axis=1)
    result = lab3.sweep(model, images_nhwc, labels_n, layer="pruned", schedule=[0, 2, 4])
    assert result.points[0].correct == 200
    reason = split_model(model, "pruned").reason
    assert reason is not None and f"computes in {policy.removeprefix('mixed_')}" in reason


def test_several_labels_at_once_are_refused_with_what_they_would_need() -> None:
    model = ending_in(layers.Dense(3, activation="sigmoid", name="tags"))
    with pytest.raises(ModelError, match=r"one class an image, got 3 sigmoids in layer 'tags', as for several labels"):
        split_model(model)


def test_images_without_a_color_axis_are_fed(rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Flatten(),
            layers.Dense(12, activation="relu", name="pruned"),
            # Where all channels that are left are 0, a bias decides, and not how sums are rounded.
            layers.Dense(4, bias_initializer="random_normal"),
        ]
    )
    images_nhw = rng.normal(size=(50, 8, 8)).astype(np.float32)
    labels_n = to_numpy(model(images_nhw)).argmax(axis=1)
    reference = literal_sweep(model, images_nhw, labels_n, "pruned", range(12))
    points = fast_sweep(model, images_nhw[..., np.newaxis], labels_n, "pruned", list(range(12)))
    assert [(p.pruned_channels, p.correct) for p in points] == [(r.pruned_channels, r.correct) for r in reference]


def test_the_default_layer_never_makes_the_class_scores() -> None:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, activation="relu", name="features")(inputs)
    x = layers.Conv2D(4, 3, padding="same", name="classes")(x)
    ends = {
        "pooled": layers.Softmax()(layers.GlobalAveragePooling2D()(x)),
        "flattened": layers.Activation("softmax")(layers.Flatten()(layers.AveragePooling2D(6)(x))),
        "sigmoid": layers.Activation("sigmoid")(layers.GlobalMaxPooling2D()(layers.Conv2D(1, 1, name="one")(x))),
    }
    for name, end in ends.items():
        model = keras.Model(inputs, end)
        expected = ("classes", ["one"]) if name == "sigmoid" else ("features", ["classes"])
        assert (find_layer(model).name, score_convolutions(model)) == expected
        assert [layer.name for layer in prunable_layers(model)][-1] == expected[0]
        with pytest.raises(ModelError, match=f"layer '{expected[1][0]}' makes the class scores"):
            find_layer(model, expected[1][0])
    only = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="only")(inputs)))
    with pytest.raises(ModelError, match="got only 'only', which makes the class scores; name a Dense layer"):
        find_layer(only)
