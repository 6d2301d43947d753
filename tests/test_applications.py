"""Networks of `keras.applications` with random weights, held against the literal loop.

The default run has shorter ones of the same parts; `make test-graphs` has them as they are.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.applications import densenet as densenet_parts
from keras.src.applications import efficientnet as efficientnet_parts
from keras.src.applications import resnet as resnet_parts

from lab3.pruning.capture import capture
from lab3.pruning.engine import sweep_points
from lab3.pruning.layers import find_layer
from lab3.pruning.rank import plan_pruning
from lab3.pruning.split import split_model
from tests.graphs import balance
from tests.reference import AS_REPORTED, literal_sweep, normalise

CONCATENATE = "(Concatenate) follows, which neither keeps channels apart nor is a Dense or Conv2D"


def resnet(**settings: Any) -> Any:
    """ResNet50 with one or two blocks a stage in place of three to six."""

    def stages(x: Any) -> Any:
        for number, (filters, stride) in enumerate([(64, 1), (128, 2), (256, 2), (512, 2)], start=2):
            x = resnet_parts.stack_residual_blocks_v1(x, filters, number // 4 + 1, stride1=stride, name=f"conv{number}")
        return x

    return resnet_parts.ResNet(stages, preact=False, use_bias=True, **settings)


def efficientnet(**settings: Any) -> Any:
    """EfficientNetB0 with one of each block."""
    return efficientnet_parts.EfficientNet(1.0, 0.1, 224, **settings)


def densenet(**settings: Any) -> Any:
    """DenseNet121 with two blocks a stage in place of six to 24."""
    return densenet_parts.DenseNet([2, 2, 2, 2], **settings)


@pytest.mark.parametrize(
    ("build", "layer", "reason"),
    [
        (keras.applications.MobileNetV2, "Conv_1", None),
        (resnet, "conv5_block2_3_conv", None),
        (efficientnet, "top_conv", None),
        (densenet, "conv5_block2_2_conv", CONCATENATE),
        pytest.param(keras.applications.ResNet50, "conv5_block3_3_conv", None, marks=pytest.mark.large),
        pytest.param(keras.applications.EfficientNetB0, "top_conv", None, marks=pytest.mark.large),
        pytest.param(keras.applications.DenseNet121, "conv5_block16_2_conv", CONCATENATE, marks=pytest.mark.large),
    ],
)
def test_predictions_equal_the_literal_loop(build: Callable[..., Any], layer: str, reason: str | None) -> None:
    keras.utils.set_random_seed(0)
    model = build(weights=None, input_shape=(64, 64, 3), classes=6, classifier_activation=None)
    images_nhwc = np.random.default_rng(0).uniform(0, 255, size=(12, 64, 64, 3)).astype(np.float32)
    normalise(model, images_nhwc)
    balance(model, images_nhwc)
    labels_n = np.arange(12) % 6
    assert find_layer(model).name == layer
    split = split_model(model, **AS_REPORTED)
    assert split.reason is None if reason is None else str(split.reason).endswith(reason)
    weights_n = np.full(12, 1 / 12)
    captured = capture(split, images_nhwc, lambda x: x, weights_n=weights_n, batch_size=12, cache_mb=100)
    schedule = [0, split.n_channels // 3, split.n_channels - 1]
    steps = plan_pruning(captured.importance_c, split.pruned_map, schedule, "iterative")
    predictions_kn = np.zeros((3, 12), np.uint16)
    points = list(sweep_points(split, captured.features, labels_n, steps, predictions_kn=predictions_kn))
    reference = literal_sweep(model, images_nhwc, labels_n, layer, schedule)
    for point, expected, predicted_n in zip(points, reference, predictions_kn, strict=True):
        assert point.pruned_channels == expected.pruned_channels
        np.testing.assert_array_equal(predicted_n, expected.predictions_n)
        assert point.loss == pytest.approx(expected.loss, rel=1e-3)
    assert len({point.loss for point in points}) == 3 and len(set(reference[0].predictions_n.tolist())) > 2
