from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lab3.pruning.engine import SweepPoint
from lab3.views.figures import (
    about,
    channel_pictures,
    grid_columns,
    plot_accuracy,
    plot_before_after,
    plot_comparison,
    plot_confusion,
    plot_feature_maps,
    save_figure,
)

pytestmark = pytest.mark.renders


def point(k: int, gone: int, correct: int) -> SweepPoint:
    return SweepPoint(k, tuple(range(gone)), correct, 10, 0.0, correct, (correct,), 0, 0, 10)


def lines_of(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]


def test_where_more_than_k_channels_are_gone_both_curves_are_drawn() -> None:
    figure = plot_accuracy([point(0, 0, 9), point(2, 2, 8), point(4, 6, 5)], "title", 8)
    (axes,) = figure.axes
    assert lines_of(axes)[:2] == [([0, 2, 4], [0.9, 0.8, 0.5]), ([0, 2, 6], [0.9, 0.8, 0.5])]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "by K, the number asked for", "by channels actually pruned",
    ]  # fmt: skip
    assert [line.get_linestyle() for line in axes.get_lines()[:2]] == ["-", "--"]


def test_one_curve_and_the_baseline_otherwise() -> None:
    (axes,) = plot_accuracy([point(0, 0, 9), point(1, 1, 8)], "title", 8).axes
    assert lines_of(axes)[0] == ([0, 1], [0.9, 0.8]) and len(lines_of(axes)) == 2
    assert axes.get_legend() is None and [text.get_text() for text in axes.texts] == ["K = 0: 0.9000"]


def check_grid(axes: Any, values: list[int]) -> None:
    tiles = np.asarray(axes.get_images()[0].get_array().filled(-1))
    side = 48 + 3
    for channel, value in enumerate(values):
        row, column = divmod(channel, 3)
        tile = tiles[row * side : row * side + 48, column * side : column * side + 48]
        assert (tile == value).all()
    assert (tiles[:, 48:51] == -1).all()


def test_the_grid_shows_every_channel_in_its_place() -> None:
    maps_hwc = np.arange(5, dtype=float)[np.newaxis, np.newaxis].repeat(2, 0).repeat(2, 1)
    axes, _ = plot_feature_maps(maps_hwc, "title").axes
    assert grid_columns(5) == 3
    check_grid(axes, [0, 1, 2, 3, 4])
    assert len(axes.get_lines()) == 0


def test_before_and_after_stand_side_by_side_and_the_pruned_are_crossed_out() -> None:
    before_hwc = np.arange(5, dtype=float)[np.newaxis, np.newaxis].repeat(2, 0).repeat(2, 1)
    after_hwc = before_hwc.copy()
    after_hwc[..., [1, 4]] = 0
    figure = plot_before_after(before_hwc, after_hwc, "maps of conv", 2, [1, 4], (0.0, 4.0), "criterion apoz")
    left, right, bar = figure.axes
    check_grid(left, [0, 1, 2, 3, 4])
    check_grid(right, [0, 0, 2, 3, 0])
    assert (len(left.get_lines()), len(right.get_lines())) == (0, 4)
    assert (left.get_title(), right.get_title()) == ("K = 0: no channel pruned", "K = 2: 2 channels pruned")
    assert figure.get_suptitle() == "maps of conv\ncriterion apoz" and bar.get_ylabel() == "mean activation"
    assert left.get_images()[0].get_clim() == right.get_images()[0].get_clim() == (0.0, 4.0)


def test_a_clipped_scale_says_so() -> None:
    maps_hwc = np.ones((10, 10, 4))
    maps_hwc[0, 0, :2] = 5.0
    _, bar = plot_feature_maps(maps_hwc, "title", limits=(0.0, 1.0)).axes
    assert bar.get_ylabel() == "mean activation (brightest 0.5% clipped)"
    maps_hwc[1, 1, 0] = -1
    colorbar = plot_feature_maps(maps_hwc, "title", limits=(0.0, 1.0)).axes[0].images[0].colorbar
    assert colorbar.extend == "both"
    assert colorbar.ax.get_ylabel() == "mean activation (darkest 0.2% and brightest 0.5% clipped)"
    colorbar = plot_feature_maps(maps_hwc, "title", limits=(-1.0, 5.0)).axes[0].images[0].colorbar
    assert (colorbar.extend, colorbar.ax.get_ylabel()) == ("neither", "mean activation")


def test_the_confusion_matrix_names_its_axes_and_its_scale() -> None:
    axes, bar = plot_confusion(np.array([[3, 1], [0, 2]]), ["a", "b"], "title", "criterion apoz").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert bar.get_ylabel() == "share of the true class" and axes.get_title() == "title\ncriterion apoz"
    assert axes.get_images()[0].get_array().tolist() == [[0.75, 0.25], [0.0, 1.0]]


def test_compared_curves_differ_without_colors_too() -> None:
    (axes,) = plot_comparison({f"run {number}": [(0.0, 0.9), (0.5, 0.5)] for number in range(30)}, "title").axes
    curves = axes.get_lines()
    assert len({(line.get_linestyle(), line.get_marker()) for line in curves}) == 30
    assert len({line.get_color() for line in curves}) == 7
    assert [line.get_linestyle() for line in curves[:4]] == ["-", "--", ":", "-."]


def test_titles_fit_the_figure_and_long_names_lack_their_middle(tmp_path: Path) -> None:
    name = "block5_" + "very_long_" * 20 + "conv3"
    facts = about(criterion="standard_deviation", effect="zero_weights", n_images=10_000, source="c" * 300 + ".npz")
    figure = plot_accuracy([point(0, 0, 9), point(1, 1, 8)], name, 8, facts=facts)
    title = figure.axes[0].title
    first, *rest = title.get_text().split("\n")
    assert first == "Accuracy as channels of block5_very_long_v...ng_very_long_conv3 are pruned"
    assert " ".join(rest) == "criterion standard_deviation, effect zero_weights, 10,000 images of " + (
        "c" * 18 + "..." + "c" * 14 + ".npz"
    )
    save_figure(figure, tmp_path / "c.png")
    extent = title.get_window_extent()
    assert extent.x0 >= 0 and extent.x1 <= figure.bbox.width


def test_an_inferred_curve_says_so_in_a_line_of_its_own() -> None:
    inferred = SweepPoint(1, (0,), 8, 10, 0.0, 8, (8,), 0, 0, 10, None, 3, 1, 0.1)
    first = SweepPoint(0, (), 9, 10, 0.0, 9, (9,), 0, 0, 10, None, 0, 0, 0.0)
    title = plot_accuracy([first, inferred], "conv", 8).axes[0].get_title()
    assert title.split("\n")[1] == "inferred, not exact: up to 3 predictions a K were not computed"


def test_channel_pictures_share_one_grey_scale() -> None:
    maps_hwc = np.zeros((2, 2, 3))
    maps_hwc[0, 0, 1] = 1.0
    maps_hwc[..., 2] = 2.0
    black, mixed, white = channel_pictures(maps_hwc)
    assert black.shape == (64, 64) and black.dtype == np.uint8
    assert black.max() == 0 and white.min() == 255
    assert mixed[0, 0] in (127, 128) and mixed[40, 40] == 0


def test_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    figure = plot_confusion(np.eye(2, dtype=int), [r"$\x$", "a\nb"], r"$\y$ of a$")
    save_figure(figure, tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 1_000
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [r"\$\x\$", r"a\nb"]


@pytest.mark.parametrize("name", ["a b", "ünï", r"$\x$", "-x", "_x", "a\x1b[31mb", "[bold]"])
def test_figures_of_a_layer_of_any_name_are_drawn(tmp_path: Path, name: str) -> None:
    save_figure(plot_feature_maps(np.ones((2, 2, 3)), f"mean feature maps of {name}"), tmp_path / "m.png")
    save_figure(plot_accuracy([point(0, 0, 9), point(1, 1, 8)], name, 3), tmp_path / "a.png")
    assert min(path.stat().st_size for path in tmp_path.glob("*.png")) > 1_000
