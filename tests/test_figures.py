from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from lab3.analysis.certificate import Evidence, certify
from lab3.app.cli import main
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.engine import SweepPoint
from lab3.views.figures import (
    about,
    channel_pictures,
    grid_columns,
    image_pictures,
    plot_accuracy,
    plot_before_after,
    plot_class_accuracy,
    plot_comparison,
    plot_confusion,
    plot_feature_maps,
    plot_flips,
    plot_frontier,
    save_figure,
)
from tests.conftest import MakeOnce, run_lab3
from tests.points import make_points

pytestmark = pytest.mark.renders


def point(k: int, gone: int, correct: int) -> SweepPoint:
    right_kn = np.arange(10) < np.array([[10], [correct]])
    return replace(make_points(right_kn, ks=[0, k])[1], pruned_channels=tuple(range(gone)))


def legend_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def lines_of(axes: Any) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.get_lines()]


def test_where_more_than_k_channels_are_gone_both_curves_are_drawn() -> None:
    figure = plot_accuracy([point(0, 0, 9), point(2, 2, 8), point(4, 6, 5)], "title", 8)
    (axes,) = figure.axes
    assert lines_of(axes)[:2] == [([0, 2, 4], [0.9, 0.8, 0.5]), ([0, 2, 6], [0.9, 0.8, 0.5])]
    assert legend_of(axes) == [
        "by K, the number asked for", "by channels actually pruned", "95 % band of all K at once", "chance, 1",
    ]  # fmt: skip
    assert [line.get_linestyle() for line in axes.get_lines()[:2]] == ["-", "--"]


def test_one_curve_and_the_baseline_otherwise() -> None:
    (axes,) = plot_accuracy([point(0, 0, 9), point(1, 1, 8)], "title", 8).axes
    assert lines_of(axes)[0] == ([0, 1], [0.9, 0.8]) and [y for _, y in lines_of(axes)[1:]] == [[1, 1], [0.9, 0.9]]
    assert legend_of(axes) == ["accuracy", "95 % band of all K at once", "chance, 1"]
    assert [text.get_text() for text in axes.texts] == ["K = 0: 0.9000"]


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
    first, inferred = (replace(point(k, k, 9 - k), n_inferred=3 * k, n_audited=k, loss_se=0.1 * k) for k in (0, 1))
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


def test_the_curve_marks_what_is_certified_and_observed_and_has_a_band_and_chance() -> None:
    rng = np.random.default_rng(0)
    right_kn = np.ones((5, 400), bool)
    right_kn[:, :40] = False
    for k, n_lost in enumerate((0, 1, 5, 8, 60)):
        right_kn[k, 40 : 40 + n_lost] = False
    points = make_points(right_kn, rng.integers(0, 4, 400))
    certificate = certify(Evidence(points, "conv", 8, "remove", list("abcd")), 0.02, 0.95)
    assert certificate.k == 1
    (axes,) = plot_accuracy(points, "conv", 8, None, "facts", certificate).axes
    assert legend_of(axes) == [
        "accuracy", "95 % band of all K at once", "chance, 0.25",
        "certified: K = 1, at most 2 points (95 % confidence)", "observed: K = 3, at most 2 points on these images",
    ]  # fmt: skip
    assert [x for x, _ in lines_of(axes)[3:]] == [[1, 1], [3, 3]]
    assert " ".join(axes.get_title().split("\n")[2:]) == certificate.sentence
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert 0.69 < band.min() < points[4].accuracy and points[0].accuracy < band.max() < 0.95


@pytest.mark.parametrize(("taken", "marks"), [(30, []), (10, ["the plan that was taken"]), (0, [])])
def test_the_frontier_marks_the_plan_that_was_taken_beside_the_last_that_is_certified(
    taken: int, marks: list[str]
) -> None:
    plans = [(0, 0.0, 1.0, True), (10, 0.01, 0.8, True), (30, 0.02, 0.6, True), (60, 0.05, 0.4, False)]
    frontier = [FrontierPoint(number, *plan) for number, plan in enumerate(plans)]
    (axes,) = plot_frontier(frontier, taken, 0.05, "parameters", "t").axes
    labels = ["on the images that chose", "budget", "certified on images that chose nothing", *marks]
    assert legend_of(axes) == labels
    places = [(0.6, 2.0), (0.8, 1.0)][: 1 + len(marks)]
    assert [tuple(line.get_xydata()[0]) for line in axes.lines[2:]] == places


def test_classes_are_named_by_how_much_they_fell_and_of_many_the_worst() -> None:
    right_kn = np.ones((3, 40), bool)
    labels_n = np.arange(40) % 4
    right_kn[1:, 3] = False
    right_kn[2, [1, 5]] = False
    points = make_points(right_kn, labels_n)
    (axes,) = plot_class_accuracy(points, points[2], ["a", "b", "c$", "d"], "title", "facts").axes
    assert legend_of(axes) == ["b: -20.0", "d: -10.0", "a: +0.0", r"c\$: +0.0"]
    assert lines_of(axes)[0] == ([0, 1, 2], [1.0, 1.0, 0.8])
    assert axes.get_title() == "title\nfacts\nbehind each name, the change at K = 2 in points"
    many = make_points(np.ones((2, 120), bool), np.arange(120) % 30)
    (axes,) = plot_class_accuracy(many, many[1], list(map(str, range(30))), "title").axes
    assert len(legend_of(axes)) == 20 and axes.get_title().endswith("; the 20 of 30 classes that fell most")


def test_flips_are_drawn_with_the_images_lost_first() -> None:
    points = make_points(np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 0]], bool))
    pictures = image_pictures(np.arange(2 * 4 * 4).reshape(2, 4, 4, 1))
    figure = plot_flips(points, pictures, ["K = 1\nship", "K = 2\n$"], "title", "facts")
    axes, *tiles = figure.axes
    assert lines_of(axes) == [([0, 1, 2], [0, 1, 2]), ([0, 1, 2], [0, 1, 1])]
    assert [tile.get_title() for tile in tiles] == ["K = 1\nship", "K = 2\n\\$"]
    assert len(plot_flips(points, pictures[:0], [], "title").axes) == 1


def test_pictures_of_images_have_one_scale_and_a_size_to_look_at() -> None:
    images_nhwc = np.zeros((2, 8, 4, 1), np.float32)
    images_nhwc[1] = 16
    pictures = image_pictures(images_nhwc)
    assert pictures.shape == (2, 64, 32) and pictures.dtype == np.uint8 and set(pictures[1].ravel()) == {255}
    assert image_pictures(np.zeros((1, 300, 200, 3), np.uint8)).shape == (1, 75, 50, 3)
    assert image_pictures(np.ones((1, 2, 2, 4))).shape == (1, 64, 64) and image_pictures(images_nhwc[:0]).shape[0] == 0


@pytest.fixture(scope="module")
def drawn(make_once: MakeOnce, toy_folder: Path) -> Path:
    """A finished sweep with its figures."""

    def make(_folder: Path) -> None:
        settings = ("--set", "data.scale=1", "--set", "sweep.feature_maps_k=[2]", "--run-id", "drawn")
        run_lab3("sweep", toy_folder / "toy.h5", "--data", toy_folder / "toy.npz", *settings)

    return make_once("drawn", make, renders=True) / "runs" / "drawn"


def test_a_run_draws_its_figures(drawn: Path) -> None:
    figures = {}
    for path in (drawn / "figures").iterdir():
        with Image.open(path) as picture:
            figures[path.stem] = picture.size
    maps, ends = ("feature_map_0", "feature_maps", "feature_maps_k2"), ("class_accuracy", "flips", "confusion_k0")
    assert set(figures) == {*maps, *ends, "accuracy_curve", "confusion_k2"}
    assert all(min(size) >= 400 for size in figures.values()), figures


def test_figures_are_drawn_again_from_the_folder(drawn: Path) -> None:
    # The maps of pruned channels are not in the folder.
    before = {path.stem: path.read_bytes() for path in (drawn / "figures").iterdir() if path.stem != "feature_maps_k2"}
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        run_lab3("figures", drawn, "--format", kind)
        again = {path.stem: path.read_bytes() for path in Path("drawn-figures").glob(f"*.{kind}")}
        assert set(again) == set(before)
        assert all(content.startswith(start) for content in again.values())
        assert kind != "png" or again == before
    refused = CliRunner().invoke(main, ["figures", str(drawn), "--out", str(drawn / "figures")])
    assert refused.exit_code == 78 and "--out must not lie in the run" in refused.stderr


@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_a_figure_has_the_same_bytes_each_time(kind: str, tmp_path: Path) -> None:
    contents = []
    for name in ("a", "b"):
        figure = plot_comparison({"one": [(0, 1.0), (0.5, 0.9)], "two": [(0, 1.0), (0.5, 0.8)]}, "a title", "facts")
        save_figure(figure, tmp_path / f"{name}.{kind}")
        contents.append((tmp_path / f"{name}.{kind}").read_bytes())
    assert contents[0] == contents[1]
