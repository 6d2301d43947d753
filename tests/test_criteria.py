from typing import Any

import keras
import numpy as np
import pytest

from lab3.errors import ModelError
from lab3.pruning.capture import Capture, capture
from lab3.pruning.criteria import (
    ChannelMoments,
    apoz,
    batchnorm_scale,
    filter_l1,
    filter_l2,
    fpgm,
    maximum,
    mean_absolute,
    mean_activation,
    random_scores,
    standard_deviation,
)
from lab3.pruning.scores import score_channels
from lab3.pruning.split import Split, split_model
from tests.graphs import dense, residual, sequential, squeeze_and_excitation, stacked
from tests.reference import AS_REPORTED, shake


def captured(split: Split, images_nhwc: np.ndarray) -> Capture:
    n = len(images_nhwc)
    return capture(split, images_nhwc, lambda x: x, weights_n=np.full(n, 1 / n), batch_size=7, cache_mb=10)


@pytest.fixture
def task(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.normal(size=(20, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 20)


@pytest.mark.parametrize("measured", ["output", "before_activation"])
def test_moments_are_those_of_the_layers_output(measured: Any, task: tuple[np.ndarray, np.ndarray]) -> None:
    images_nhwc, _ = task
    model = shake(sequential())
    layer = model.get_layer("pruned")
    if measured == "before_activation":
        layer.activation = keras.activations.linear
    values = np.asarray(keras.Model(model.inputs[0], layer.output)(images_nhwc), np.float64).reshape(-1, 8)
    layer.activation = keras.activations.relu
    moments = captured(split_model(model, effect="zero_weights", measured=measured), images_nhwc).moments
    np.testing.assert_allclose(mean_activation(moments), values.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(mean_absolute(moments), np.abs(values).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(maximum(moments), values.max(axis=0), rtol=1e-5)
    np.testing.assert_allclose(standard_deviation(moments), values.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(apoz(moments), (values != 0).mean(axis=0), atol=1e-12)


def test_a_constant_channel_has_the_moments_of_its_constant() -> None:
    moments = ChannelMoments.of_map(np.array([0.0, -2.0]))
    assert [f(moments).tolist() for f in (mean_activation, mean_absolute, maximum, standard_deviation, apoz)] == [
        [0.0, -2.0], [0.0, 2.0], [0.0, -2.0], [0.0, 0.0], [0.0, 1.0],
    ]  # fmt: skip


def test_criteria_of_weights_are_those_worked_out_on_paper() -> None:
    # Three filters of 1x2x1: (3, 4), (0, 0), (6, 8).
    kernel = np.array([[[[3, 0, 6]], [[4, 0, 8]]]], np.float32)
    assert filter_l1(kernel).tolist() == [7, 0, 14]
    assert filter_l2(kernel).tolist() == [5, 0, 10]
    assert fpgm(kernel).tolist() == [5 + 5, 5 + 10, 5 + 10]
    assert batchnorm_scale(np.array([-2.0, 0.5])).tolist() == [2.0, 0.5]
    assert sorted(random_scores(5, 1)) == [0, 1, 2, 3, 4]
    assert random_scores(50, 1).tolist() == random_scores(50, 1).tolist() != random_scores(50, 2).tolist()


def loss_of(model: Any, images_nhwc: np.ndarray, labels_n: np.ndarray) -> float:
    scores_nl = np.asarray(model(images_nhwc), np.float64)
    if np.allclose(scores_nl.sum(axis=1), 1, atol=1e-5):
        scores_nl = np.log(scores_nl)
    log_nl = scores_nl - np.logaddexp.reduce(scores_nl, axis=1, keepdims=True)
    return float(-log_nl[np.arange(len(labels_n)), labels_n].mean())


@pytest.mark.parametrize("build", [sequential, residual, squeeze_and_excitation, dense, stacked])
def test_the_oracle_is_the_rise_of_the_loss_when_each_channel_alone_goes(
    build: Any, task: tuple[np.ndarray, np.ndarray]
) -> None:
    images_nhwc, labels_n = task
    model = shake(build())
    split = split_model(model, "pruned", **AS_REPORTED)
    scores = score_channels("oracle", split, captured(split, images_nhwc), labels_n, seed=0, batch_size=8)
    layer = model.get_layer("pruned")
    original = layer.get_weights()
    base = loss_of(model, images_nhwc, labels_n)
    for channel in range(split.n_channels):
        weights = [weight.copy() for weight in original]
        for weight in weights:
            weight[..., channel] = 0
        layer.set_weights(weights)
        assert scores.importance_c[channel] == pytest.approx(loss_of(model, images_nhwc, labels_n) - base, abs=2e-6)
    assert np.unique(scores.importance_c).size > 2


@pytest.mark.parametrize("build", [sequential, residual, squeeze_and_excitation])
def test_taylor_does_not_depend_on_blocks(build: Any, task: tuple[np.ndarray, np.ndarray]) -> None:
    images_nhwc, labels_n = task
    split = split_model(shake(build()), "pruned", **AS_REPORTED)
    features = captured(split, images_nhwc)
    n = len(labels_n)
    # The last block has one image.
    scores = [score_channels("taylor", split, features, labels_n, seed=0, batch_size=size) for size in (n, n - 1)]
    np.testing.assert_allclose(scores[0].importance_c, scores[1].importance_c, rtol=1e-4)


@pytest.mark.parametrize("build", [sequential, residual, squeeze_and_excitation, dense, stacked])
def test_taylor_is_the_first_order_change_of_each_images_loss(build: Any, task: tuple[np.ndarray, np.ndarray]) -> None:
    images_nhwc, labels_n = task
    split = split_model(shake(build()), "pruned", **AS_REPORTED)
    features = captured(split, images_nhwc)
    scores = score_channels("taylor", split, features, labels_n, seed=0, batch_size=8)
    own, pruned, *carried = features.features
    units_c = np.arange(split.n_units).reshape(-1, split.n_channels)
    units, none_gone, step = np.arange(split.n_units, dtype=np.int32), np.zeros((1, split.n_units), np.float32), 1e-3

    def losses(moved: np.ndarray) -> np.ndarray:
        mixed, change = split.head.start(moved, pruned, np.zeros(split.n_units, bool), units)
        (logits,) = split.head.finish(mixed, change, *carried, units, none_gone)
        logits_nl = np.asarray(logits, np.float64)
        losses_n: np.ndarray = np.logaddexp.reduce(logits_nl, axis=1) - logits_nl[np.arange(len(labels_n)), labels_n]
        return losses_n

    for channel in range(3):
        towards = np.zeros_like(own)
        of_channel = units_c[:, channel]
        towards[..., of_channel] = np.broadcast_to(pruned, own.shape)[..., of_channel] - own[..., of_channel]
        slopes_n = (losses(own + step * towards) - losses(own - step * towards)) / (2 * step)
        assert scores.importance_c[channel] == pytest.approx(np.abs(slopes_n).mean(), rel=0.03, abs=1e-4)


def test_batchnorm_scale_needs_a_batchnorm(task: tuple[np.ndarray, np.ndarray]) -> None:
    images_nhwc, labels_n = task
    model = shake(sequential())
    split = split_model(model, "pruned", **AS_REPORTED)
    scores = score_channels("batchnorm_scale", split, captured(split, images_nhwc), labels_n, seed=0, batch_size=8)
    gamma = model.layers[3].get_weights()[0]
    np.testing.assert_allclose(scores.importance_c, np.abs(gamma))
    without = split_model(squeeze_and_excitation(), "pruned", **AS_REPORTED)
    with pytest.raises(ModelError, match="needs a BatchNormalization with a scale behind layer 'pruned', found none"):
        score_channels("batchnorm_scale", without, captured(without, images_nhwc), labels_n, seed=0, batch_size=8)
