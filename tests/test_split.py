"""The cut, the capture and the sweep against the literal loop, on every kind of graph that can be cut."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from lab3.analysis.flips import rightness
from lab3.base.backend import to_numpy
from lab3.errors import ConfigError, ModelError
from lab3.inputs.architectures import build_model
from lab3.inputs.model_files import load_model
from lab3.pruning.capture import capture, capture_layers, image_weights
from lab3.pruning.engine import SweepPoint, is_tied, sweep_points
from lab3.pruning.engine.block import BlockScores, to_device
from lab3.pruning.engine.bounds import Bounds, LineExceededError, check_line, check_same_answer, is_decided, line
from lab3.pruning.engine.tally import Calibration, Tally
from lab3.pruning.head import Head
from lab3.pruning.layers import find_layer
from lab3.pruning.rank import PruneStep, plan_pruning
from lab3.pruning.split import Split, split_model
from tests.graphs import (
    MODELS,
    balance,
    dense,
    dense_called_twice,
    fast_sweep,
    gelu_then_softmax_layer,
    inception,
    mobilenet,
    nested,
    residual,
    sequential,
    shared_behind,
    siamese,
    squeeze_and_excitation,
    stacked,
    two_heads,
)
from tests.reference import AS_REPORTED, ReferencePoint, literal_sweep, shake

REASONS = {
    sequential: None,
    gelu_then_softmax_layer: None,
    residual: None,
    nested: None,
    dense: None,
    stacked: None,
    mobilenet: None,
    shared_behind: None,
    siamese: "it is called 2 times",
    dense_called_twice: "it is called 2 times",
    inception: "concatenate (Concatenate) follows, which neither keeps channels apart nor is a Dense or Conv2D",
    squeeze_and_excitation: "what dense (Dense) reads is also read elsewhere",
}


@pytest.mark.parametrize("build", MODELS)
@pytest.mark.parametrize("semantics", ["first report", "second report", "once"])
def test_every_point_equals_the_literal_loop(
    build: Callable[[], Any], semantics: str, rng: np.random.Generator
) -> None:
    every_semantics: dict[str, dict[str, Any]] = {
        "first report": {},
        "second report": {"measured": "before_activation", "bias": "keep", "average_batch_size": 16},
        "once": {"ranking": "once", "bias": "keep"},
    }
    settings = every_semantics[semantics]
    if build in (siamese, dense_called_twice):
        # The reference's batches are not those of the images where a layer is called several times.
        settings.pop("average_batch_size", None)
    keras.utils.set_random_seed(0)
    model = shake(build())
    images_nhwc = rng.normal(size=(100, 8, 8, 3)).astype(np.float32)
    balance(model, images_nhwc)
    labels_n = to_numpy(model(images_nhwc)).argmax(axis=1)
    weights_before = [weight.copy() for weight in model.get_weights()]
    schedule = list(range(find_layer(model, "pruned").kernel.shape[-1]))

    points = fast_sweep(model, images_nhwc, labels_n, "pruned", schedule, **settings)

    reference = literal_sweep(model, images_nhwc, labels_n, "pruned", schedule, **settings)
    assert [(p.k, p.pruned_channels, p.correct, p.total) for p in points] == [
        (r.k, r.pruned_channels, r.correct, 100) for r in reference
    ]
    np.testing.assert_allclose([p.loss for p in points], [r.loss for r in reference], rtol=1e-5)
    assert points[0].correct == 100 and len({p.correct for p in points}) > 3, "a flat curve proves nothing"
    for before, after in zip(weights_before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("build", REASONS)
def test_the_head_is_divided_where_channels_are_mixed_or_says_why_not(build: Callable[[], Any]) -> None:
    reason = split_model(build(), "pruned").reason
    # Keras numbers the names of layers through the process.
    assert (reason and re.sub(r"_\d+ ", " ", reason)) == REASONS[build]


def test_one_output_of_several_is_chosen_by_name_or_index(tmp_path: Path, rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(0)
    model = shake(two_heads())
    model.save(tmp_path / "two.keras")
    images_nhwc = rng.normal(size=(100, 8, 8, 3)).astype(np.float32)
    labels_n = to_numpy(model(images_nhwc)[1]).argmax(axis=1)
    reference = literal_sweep(keras.Model(model.input, model.outputs[1]), images_nhwc, labels_n, "pruned", range(8))
    for output in ("classes", 1, -1):
        points = fast_sweep(load_model(tmp_path / "two.keras", output), images_nhwc, labels_n, None, list(range(8)))
        assert [(p.pruned_channels, p.correct) for p in points] == [(r.pruned_channels, r.correct) for r in reference]
    for wrong in ("clases", 2):
        with pytest.raises(ConfigError, match=rf"must name an output of the model \(size, classes\).*got {wrong!r}"):
            load_model(tmp_path / "two.keras", wrong)


@dataclass(frozen=True)
class BigTask:
    """A network of 96 channels, fitted by least squares to 1,500 noisy images of 7 patterns, and captured."""

    model: Any
    images_nhwc: np.ndarray
    labels_n: np.ndarray
    split: Split
    features: Sequence[np.ndarray]
    steps: Sequence[PruneStep]

    def sweep(self, shortcut: Any, **settings: Any) -> list[SweepPoint]:
        settings = {"batch_size": 600, "shortcut": shortcut, **settings}
        return list(sweep_points(self.split, self.features, self.labels_n, self.steps, **settings))


@pytest.fixture(scope="module")
def big() -> BigTask:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(96, 3, activation="relu", name="pruned")(inputs)
    x = layers.Flatten()(layers.MaxPooling2D(2)(layers.BatchNormalization()(x)))
    hidden = layers.Dense(128, activation="relu", kernel_initializer="he_normal")(x)
    model = shake(keras.Model(inputs, layers.Dense(7, name="scores")(hidden)))
    labels_n = rng.integers(0, 7, 1500)
    images_nhwc = (rng.normal(size=(7, 6, 6, 3))[labels_n] + rng.normal(size=(1500, 6, 6, 3))).astype(np.float32)
    hidden_nc = to_numpy(keras.Model(inputs, hidden)(images_nhwc))
    penalty = 10 * np.eye(hidden_nc.shape[1])
    weights = np.linalg.solve(hidden_nc.T @ hidden_nc + penalty, hidden_nc.T @ (10 * np.eye(7)[labels_n]))
    model.get_layer("scores").set_weights([weights.astype(np.float32), np.zeros(7, np.float32)])
    split = split_model(model, "pruned", **AS_REPORTED)
    weights_n = np.full(1500, 1 / 1500)
    captured = capture(split, images_nhwc, lambda x: x, weights_n=weights_n, batch_size=400, cache_mb=100)
    steps = plan_pruning(captured.importance_c, split.pruned_map, range(96), "iterative")
    return BigTask(model, images_nhwc, labels_n, split, captured.features, steps)


@pytest.fixture(scope="module")
def big_reference(big: BigTask) -> list[ReferencePoint]:
    return literal_sweep(big.model, big.images_nhwc, big.labels_n, "pruned", range(96), ranking="once")


Swept = tuple[list[SweepPoint], np.ndarray]


@pytest.fixture(scope="module")
def big_sweep(big: BigTask) -> Callable[[Any], Swept]:
    """Points and predictions of the whole sweep with a shortcut, computed once."""

    @cache
    def sweep(shortcut: Any) -> Swept:
        predictions_kn = np.zeros((96, 1500), np.uint16)
        return big.sweep(shortcut, predictions_kn=predictions_kn), predictions_kn

    return sweep


@pytest.mark.parametrize("shortcut", ["none", "unchanged", "inferred"])
def test_every_prediction_equals_the_literal_loop(
    shortcut: Any, big: BigTask, big_reference: list[ReferencePoint], big_sweep: Callable[[Any], Swept]
) -> None:
    labels_n, reference = big.labels_n, big_reference
    points, predictions_kn = big_sweep(shortcut)
    n_within = 0
    for point, expected, predicted_n in zip(points, reference, predictions_kn, strict=True):
        np.testing.assert_array_equal(predicted_n, expected.predictions_n)
        assert point.pruned_channels == expected.pruned_channels and point.correct == expected.correct
        right = labels_n[expected.predictions_n == labels_n]
        assert point.class_correct == tuple(np.bincount(right, minlength=7))
        unpruned_n, right_n = (each.predictions_n == labels_n for each in (reference[0], expected))
        for found_l, images_n in (
            (point.class_lost, unpruned_n & ~right_n),
            (point.class_gained, right_n & ~unpruned_n),
        ):
            assert found_l == tuple(np.bincount(labels_n[images_n], minlength=7))
        assert point.class_total == tuple(np.bincount(labels_n, minlength=7))
        assert point.n_changed == (expected.predictions_n != reference[0].predictions_n).sum()
        five_best = np.argsort(-expected.scores_nl, axis=1)[:, :5]
        assert point.top5_correct == (five_best == labels_n[:, np.newaxis]).any(axis=1).sum()
        # An image can stand at the very tolerance, on either side of it by rounding.
        n_surely, n_perhaps = (is_tied(expected.scores_nl, tolerance).sum() for tolerance in (0.5e-5, 2e-5))
        assert n_surely <= point.n_tied <= n_perhaps
        # With lines it is an estimate.
        if shortcut == "inferred":
            assert point.n_inferred is not None and point.loss_se is not None
            assert point.n_inferred <= 1500 - point.n_run and (point.loss_se == 0 or point.n_inferred > 0)
            assert point.loss == pytest.approx(expected.loss, rel=0.01, abs=1e-3)
            n_within += abs(point.loss - expected.loss) <= 2 * point.loss_se + 1e-5
        else:
            assert (point.n_inferred, point.n_audited, point.loss_se) == (None, None, None)
            assert point.loss == pytest.approx(expected.loss, rel=1e-5)
    assert (rightness(points) == [each.predictions_n == labels_n for each in reference]).all()
    # Of what few sampled images stand for, a standard error is itself an estimate.
    assert n_within >= 0.85 * 96 or shortcut != "inferred"
    share_run = sum(point.n_run for point in points) / (96 * 1500)
    assert share_run == 1 if shortcut == "none" else share_run < (0.84 if shortcut == "inferred" else 1)
    n_inferred, n_audited = (sum(getattr(point, name) or 0 for point in points) for name in ("n_inferred", "n_audited"))
    assert (n_inferred > 10_000 and 0.005 < n_audited / n_inferred < 0.02) == (shortcut == "inferred")


def test_a_bound_that_does_not_hold_has_the_block_run_without_it(
    big: BigTask, big_sweep: Callable[[Any], Swept], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, _ = big_sweep("unchanged")
    # A bound this small decides nearly every image at once, wrongly for some; audits and runs in the middle notice.
    monkeypatch.setattr("lab3.pruning.engine.bounds.SAFETY", 1e-3)
    points = big.sweep("inferred")
    assert {(p.n_inferred, p.n_audited, p.loss_se) for p in points} == {(0, 0, 0.0)}
    assert [(p.correct, p.n_changed, p.n_run) for p in points] == [(p.correct, p.n_changed, p.n_run) for p in exact]


def test_a_class_is_decided_where_no_score_can_pass_the_best_between_two_k() -> None:
    low = np.array([[5.0, 3.0, 0.0], [5.0, 3.0, 0.0], [5.0, 3.0, 0.0], [3.0, 5.0, 0.0]])
    high = np.array([[4.0, 3.0, 0.0], [4.0, 2.0, 0.0], [3.0, 5.0, 0.0], [3.0, 5.0, 0.0]])
    allowed, labels = np.full(4, 1.5), np.zeros(4, int)
    # The lead falls from 2 to 1; stays 2; changes sides; stays 2, of another class than the label.
    assert is_decided(low, high, allowed, labels).tolist() == [False, True, False, True]
    # Among the best two: the label, 1.0 ahead of the third, may lose its place; 3.0 ahead it may not.
    four = np.array([[9.0, 1.0, 0.0, -5.0], [9.0, 3.0, 0.0, -5.0], [9.0, 1.0, 4.0, 4.0], [9.0, 1.0, 4.0, 2.0]])
    decided = is_decided(four, four, np.full(4, 1.5), np.ones(4, int), n_best=2)
    assert decided.tolist() == [False, True, True, True]


def test_what_lines_miss_of_the_loss_is_estimated_by_the_images_run_at_every_k() -> None:
    labels_n = np.zeros(4, int)
    off_the_line_knl = np.log([[[0.5, 0.5], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]])
    true_knl = np.log([[[0.25, 0.75], [0.125, 0.875]]])  # of images 1 and 3
    calibration = Calibration(np.array([1, 3]), true_knl, Bounds(true_knl))
    tally = Tally(labels_n, labels_n, 2, 1, infers=True, calibration=calibration)
    for rows in (slice(0, 2), slice(2, 4)):
        was_run, inferred = np.zeros((1, 2), bool), np.ones((1, 2), bool)
        tally.add(rows, BlockScores(off_the_line_knl[:, rows].copy(), was_run, inferred, np.zeros((1, 2), bool)))
    point = tally.point(0, PruneStep(0, ()), None, np.ones(4, bool))
    # They lose 1 and 2 times log(2) more than their lines say, 1.5 times on average, with variance 0.5 log(2)^2.
    assert point.loss == pytest.approx(2.5 * np.log(2))
    assert point.loss_se == pytest.approx(np.sqrt((1 - 2 / 4) * 0.5 / 2) * np.log(2))
    # Their own classes are those of the runs, which say 1.
    assert (point.n_run, point.n_inferred, tally.predicted_kn.tolist()) == (2, 2, [[0, 1, 0, 1]])


def test_scores_further_from_the_line_than_allowed_are_noticed() -> None:
    low, high, middle = np.array([[0.0, 0.0]]), np.array([[4.0, 0.0]]), np.array([[2.0, 0.0]])
    check_line(line(low, high, 0.25), middle, np.array([1.0]))
    with pytest.raises(LineExceededError):
        check_line(line(low, high, 0.25), middle, np.array([0.99]))


def test_an_audit_with_another_answer_than_the_line_is_noticed() -> None:
    off_the_line, run, labels = np.array([[3.0, 2.0, 1.0]]), np.array([[3.0, 1.0, 2.0]]), np.array([1])
    check_same_answer(off_the_line, run, labels, n_best=1)
    check_same_answer(off_the_line, run, np.array([0]), n_best=2)
    for other, n_best in ((run, 2), (np.array([[2.0, 3.0, 1.0]]), 3)):
        with pytest.raises(LineExceededError):
            check_same_answer(off_the_line, other, labels, n_best=n_best)


def test_scores_that_differ_by_rounding_alone_are_tied() -> None:
    assert is_tied(np.array([[10.0, 10.0001, 3.0], [10.0, 10.001, 3.0], [0.0, 0.0, -1.0]])).tolist() == [
        True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("shortcut", ["unchanged", "inferred"])
def test_a_sweep_resumed_at_any_k_gives_the_same_bits(
    shortcut: Any, big: BigTask, big_sweep: Callable[[Any], Swept]
) -> None:
    whole, _ = big_sweep(shortcut)
    for n_done in (1, 8, 9, 39, 40, 70, 95):
        assert big.sweep(shortcut, done=whole[:n_done]) == whole[n_done:]


def test_points_do_not_depend_on_blocks_or_on_where_features_are_kept(rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(0)
    model = shake(sequential())
    images_nhwc, labels_n = rng.normal(size=(50, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 50)
    expected = fast_sweep(model, images_nhwc, labels_n, "pruned", [0, 3, 7])
    for batch_size, cache_mb, shortcut in ((1, 100, "none"), (7, 0, "unchanged"), (50, 0, "none"), (1000, 0, "none")):
        settings: dict[str, Any] = {"batch_size": batch_size, "cache_mb": cache_mb, "shortcut": shortcut}
        points = fast_sweep(model, images_nhwc, labels_n, "pruned", [0, 3, 7], **settings)
        assert [(p.pruned_channels, p.correct) for p in points] == [(p.pruned_channels, p.correct) for p in expected]
        np.testing.assert_allclose([p.loss for p in points], [p.loss for p in expected], rtol=1e-6)


@pytest.mark.parametrize("build", [sequential, residual])
def test_a_gpu_keeps_the_features_where_it_has_room(
    build: Callable[[], Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(0)
    model = shake(build())
    images_nhwc, labels_n = rng.normal(size=(50, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 50)
    ks = list(range(8)) * 2  # more than one block of K
    copied: list[int] = []

    def count(split: Any, features: Any, size: int) -> Any:
        copied.append(len(features[0]))
        return to_device(split, features, size)

    monkeypatch.setattr("lab3.pruning.engine.sweep.to_device", count)
    monkeypatch.setattr("lab3.pruning.engine.block.to_device", count)
    points, copies = [], []
    for n_gpus, limit in ((0, 2**31), (1, 2**31), (1, 100)):
        monkeypatch.setattr("lab3.pruning.engine.sweep.count_gpus", lambda n=n_gpus: n)
        monkeypatch.setattr("lab3.pruning.engine.sweep._MAX_RESIDENT_BYTES", limit)
        copied.clear()
        points.append(fast_sweep(model, images_nhwc, labels_n, "pruned", ks, batch_size=20, shortcut="none"))
        copies.append(tuple(copied))
    streamed, resident, too_large = copies
    assert points[0] == points[1] == points[2]
    assert resident == (20, 20, 10) and len(streamed) == len(too_large) > 3


@pytest.mark.parametrize("build", [sequential, inception, residual])
@pytest.mark.parametrize("shortcut", ["none", "unchanged"])
def test_a_last_block_of_one_image_is_a_block(
    build: Callable[[], Any], shortcut: str, rng: np.random.Generator
) -> None:
    keras.utils.set_random_seed(0)
    model = shake(build())
    images_nhwc, labels_n = rng.normal(size=(41, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 41)
    expected = fast_sweep(model, images_nhwc, labels_n, "pruned", [0, 3, 7], batch_size=41)
    points = fast_sweep(model, images_nhwc, labels_n, "pruned", [0, 3, 7], batch_size=20, shortcut=shortcut)
    assert [(p.pruned_channels, p.correct) for p in points] == [(p.pruned_channels, p.correct) for p in expected]


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="counts what TensorFlow traces")
@pytest.mark.parametrize("build", [sequential, inception])
def test_any_number_of_pairs_is_traced_once(
    build: Callable[[], Any], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[tuple[int | None, ...]] = []
    finish_pairs = Head._finish_pairs

    def record(head: Head, *tensors: Any) -> list[Any]:
        traced.append(tuple(tensors[0].shape))
        return finish_pairs(head, *tensors)

    monkeypatch.setattr(Head, "_finish_pairs", record)
    images_nhwc, labels_n = rng.normal(size=(41, 8, 8, 3)).astype(np.float32), rng.integers(0, 5, 41)
    fast_sweep(build(), images_nhwc, labels_n, "pruned", list(range(8)), batch_size=20, shortcut="unchanged")
    assert traced == [(None,)]


def test_a_bound_that_nothing_was_learnt_for_decides_nothing() -> None:
    bounds = Bounds(np.zeros((3, 4, 2)))
    low = np.array([[5.0, 0.0]])
    allowed = bounds.allowed(np.array([0]), np.array([2]), low, low)
    assert allowed.tolist() == [np.inf]
    assert not is_decided(low, low, allowed, np.array([0])).any()


def test_toy_accuracies_are_those_worked_out_on_paper(toy_model: Any, toy_images: Any) -> None:
    points = fast_sweep(toy_model, toy_images[0], toy_images[1], None, [0, 1, 2, 3])
    assert [(p.pruned_channels, p.correct, p.accuracy) for p in points] == [
        ((), 4, 1.0),
        ((0,), 4, 1.0),
        ((0, 1), 3, 0.75),
        ((0, 1, 2), 2, 0.5),
    ]


def test_one_pass_serves_several_layers(rng: np.random.Generator) -> None:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="relu", name="first")(inputs)
    y = layers.Conv2D(4, 3, padding="same", activation="tanh", name="second")(x)
    z = layers.Flatten()(layers.BatchNormalization()(layers.Add()([x, y])))
    model = shake(keras.Model(inputs, layers.Dense(5)(layers.Dense(6, activation="relu", name="third")(z))))
    images_nhwc = rng.normal(size=(50, 8, 8, 3)).astype(np.float32)
    settings: dict[str, Any] = {"weights_n": np.full(50, 0.02), "batch_size": 20}
    splits = [split_model(model, name) for name in ("second", "first", "third")]
    together = capture_layers(splits, images_nhwc, lambda x: x, **settings)
    for split, captured in zip(splits, together, strict=True):
        alone = capture(split, images_nhwc, lambda x: x, **settings)
        np.testing.assert_allclose(captured.mean_map_hwc, alone.mean_map_hwc, rtol=1e-6)
        for ours, theirs in zip(captured.features, alone.features, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert capture_layers(splits, images_nhwc, lambda x: x, **settings, keep_features=False)[2].features == ()


def test_done_points_are_left_out(toy_model: Any, toy_images: Any) -> None:
    split = split_model(toy_model)
    images_nhwc, labels_n = toy_images
    captured = capture(split, images_nhwc, lambda x: x, weights_n=np.full(4, 0.25), batch_size=4, cache_mb=1)
    steps = plan_pruning(captured.importance_c, split.pruned_map, range(4), "iterative")
    everything = list(sweep_points(split, captured.features, labels_n, steps))
    rest = list(sweep_points(split, captured.features, labels_n, steps, done=everything[::2]))
    assert rest == everything[1::2]


def test_images_are_lost_against_k_0_also_where_it_is_not_swept(toy_model: Any, toy_images: Any) -> None:
    split = split_model(toy_model)
    images_nhwc, labels_n = toy_images
    captured = capture(split, images_nhwc, lambda x: x, weights_n=np.full(4, 0.25), batch_size=4, cache_mb=1)
    steps = plan_pruning(captured.importance_c, split.pruned_map, [2, 3], "iterative")
    points = list(sweep_points(split, captured.features, labels_n, steps))
    assert [(point.class_lost, point.turned_wrong) for point in points] == [((0, 1), (1,)), ((1, 1), (0,))]


def test_importance_is_the_mean_over_images_and_positions(toy_model: Any, toy_images: Any) -> None:
    images_nhwc, _ = toy_images
    split = split_model(toy_model)
    plain = capture(split, images_nhwc, lambda x: x, weights_n=np.full(4, 0.25), batch_size=3, cache_mb=1)
    assert plain.importance_c.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert plain.mean_map_hwc.shape == (2, 2, 4)
    # Batches of 3: the fourth image alone weighs as much as the first three.
    batched = image_weights(4, "batches", 3)
    means = capture(split, images_nhwc, lambda x: x, weights_n=batched, batch_size=2, cache_mb=1).importance_c
    np.testing.assert_allclose(means, [(4 / 3 + 0) / 2, (4 / 3 + 4) / 2, (11 / 3 + 1) / 2, (12 / 3 + 4) / 2])


def test_the_last_convolution_on_the_way_to_the_output_is_found() -> None:
    model = build_model("simplecnn")
    assert find_layer(model) is model.layers[2]
    two_ways = keras.Input((8, 8, 3))
    side = layers.Conv2D(4, 1, name="off_the_way")(two_ways)
    main = layers.Conv2D(4, 1, name="on_the_way")(two_ways)
    model = keras.Model(two_ways, layers.Dense(3)(layers.Flatten()(main)))
    assert side is not None
    assert find_layer(model).name == "on_the_way"


def test_layers_are_named_by_name_or_index_and_near_names_are_suggested() -> None:
    model = sequential()
    assert find_layer(model, -7).name == find_layer(model, 2).name == "pruned"
    with pytest.raises(ConfigError, match=r"got 'prunde'; did you mean pruned\?"):
        find_layer(model, "prunde")
    with pytest.raises(ConfigError, match=r"must be in -9\.\.8 \(the model has 9 layers\), got 9"):
        find_layer(model, 9)
    with pytest.raises(ModelError, match=r"only Conv2D and Dense layers can be pruned, got 'flatten.*a Flatten"):
        find_layer(model, 6)
    with pytest.raises(ModelError, match="makes the class scores: its units are the classes"):
        find_layer(model, -1)


def test_models_that_cannot_be_cut_say_why() -> None:
    inputs = keras.Input((8, 8, 3))
    flat = layers.Flatten()(inputs)
    with pytest.raises(ModelError, match="must have a Conv2D on the way to its output, got none; name a Dense layer"):
        split_model(keras.Model(inputs, layers.Dense(3)(flat)))
    conv = layers.Conv2D(4, 3, padding="same", name="shared")
    once = layers.Conv2D(4, 3, padding="same")(inputs)
    twice = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(conv(conv(once)))))
    with pytest.raises(ModelError, match="'shared' is called on what it gave in an earlier call"):
        split_model(twice, "shared")
    x = layers.Flatten()(layers.Conv2D(4, 3)(inputs))
    with pytest.raises(ModelError, match="must give one class an image, got 3 sigmoids in layer"):
        split_model(keras.Model(inputs, layers.Dense(3, activation="sigmoid")(x)))
    with pytest.raises(ModelError, match="must give one row of class scores an image"):
        split_model(keras.Model(inputs, layers.Conv2D(2, 3)(inputs)))
    with pytest.raises(ModelError, match=r"must have one output, got 2 .*; choose one with model.output"):
        split_model(keras.Model(inputs, [layers.Dense(3)(x), layers.Dense(3)(x)]))
    with pytest.raises(ModelError, match="must be Sequential or Functional with a known input shape"):
        split_model(keras.Sequential([layers.Conv2D(4, 3)]))
    one_channel = layers.Flatten()(layers.Conv2D(1, 3)(inputs))
    with pytest.raises(ModelError, match="must have at least 2 channels, got 1"):
        split_model(keras.Model(inputs, layers.Dense(3)(one_channel)))


def test_weights_that_overflow_are_told(rng: np.random.Generator) -> None:
    model = sequential()
    # Positive, so that there are infinities, not differences of them: a ReLU can hide those.
    for layer in model.layers:
        layer.set_weights([np.abs(weights) for weights in layer.get_weights()])
    model.layers[0].set_weights([np.full((3, 3, 3, 6), 3e38, np.float32), np.zeros(6, np.float32)])
    with pytest.raises(ModelError, match="the outputs of layer 'pruned' must be finite"):
        fast_sweep(model, rng.uniform(size=(4, 8, 8, 3)).astype(np.float32), np.zeros(4, int), None, [0])
