from typing import Any

import numpy as np
import pytest

import lab3
from lab3.errors import DataError


def test_load_sweep_plot(toy_model: Any, toy_images: Any) -> None:
    images_nhwc, labels_n = toy_images
    result = lab3.sweep(toy_model, images_nhwc, labels_n[:, np.newaxis])
    assert (result.layer_name, result.n_channels) == ("conv", 4)
    assert [point.correct for point in result.points] == [4, 4, 3, 2]
    assert [stats.channel for stats in result.channels] == [0, 1, 2, 3]
    figure = result.plot()
    (axes,) = figure.axes
    curve = axes.get_lines()[0]
    assert curve.get_xdata().tolist() == [0, 1, 2, 3] and curve.get_ydata().tolist() == [1.0, 1.0, 0.75, 0.5]


def test_settings_reach_the_sweep(toy_model: Any, toy_images: Any) -> None:
    result = lab3.sweep(
        toy_model, *toy_images, layer=0, schedule="0:C:2", effect="zero_weights", bias="keep", batch_size=3
    )
    assert [(point.k, point.pruned_channels) for point in result.points] == [(0, ()), (2, (0, 1))]


def test_images_that_do_not_fit_are_refused(toy_model: Any, toy_images: Any) -> None:
    with pytest.raises(DataError, match="the model takes images of 2x2x4, got 1x2x4"):
        lab3.sweep(toy_model, toy_images[0][:, :1], toy_images[1])


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="module 'lab3' has no attribute 'sweeep'"):
        _ = lab3.sweeep
