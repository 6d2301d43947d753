"""How many channels can be pruned, with what confidence: golden values, slow obvious code, and simulated test sets."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom, norm

from lab3.analysis.band import accuracy_band, critical_value
from lab3.analysis.certificate import Evidence, certify, certify_together, find_obstacle, in_points, observe
from lab3.analysis.flips import Flip, are_consistent, first_flips, rightness
from lab3.analysis.tango import exact_level, images_needed, largest_losses, least_tolerance, tango_interval, tango_p
from lab3.pruning.engine import SweepPoint
from tests.points import make_counted, make_points, share_too_large

# Lost, gained, images, one-sided p, and the limit of the score interval of (lost - gained) / images that has this p.
# R, PropCIs::scoreci.mp(gained, lost, n) at 90 % and 95 %, as published tests of ports of it have them; and
# contingencytables::Tango_asymptotic_score_CI_paired_2x2 of the data of Cavo et al. 2012, from its own tests and
# Fagerland, Lydersen and Laake, Statistical Analysis of Contingency Tables, 2017, chapter 8.
GOLDEN = [
    (28, 25, 618, 0.05, 0.0247, 5e-5),
    (25, 28, 618, 0.05, 0.0148, 5e-5),
    (7, 0, 14, 0.025, 0.732008, 1e-6),
    (7, 0, 14, 0.975, 0.177034, 1e-6),
    (16, 6, 161, 0.025, 0.1240, 5e-5),
    (16, 6, 161, 0.975, 0.0054, 5e-5),
]


def p_of(n_lost: int, n_gained: int, n: int, tolerance: float) -> float:
    return float(tango_p(np.array(n_lost), np.array(n_gained), n, tolerance))


def literal_p(n_lost: int, n_gained: int, n: int, tolerance: float) -> float:
    """Tango's p with the nuisance probability found by a search for the largest likelihood."""

    def minus_log_likelihood(q: float) -> float:
        pairs = ((n_lost, q + tolerance), (n_gained, q), (n - n_lost - n_gained, 1 - 2 * q - tolerance))
        return float(-sum(count * np.log(probability) for count, probability in pairs if count))

    bounds = (1e-12, (1 - tolerance) / 2 - 1e-12)
    q = minimize_scalar(minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-13}).x
    variance = n * (2 * q + tolerance - tolerance**2)
    return float(norm.cdf((n_lost - n_gained - n * tolerance) / np.sqrt(variance)))


def literal_size(n: int, tolerance: float, level: float, psis: np.ndarray) -> float:
    """The largest probability of passing where the loss is just the tolerance, summed over every pair of counts."""
    m, b = np.arange(n + 1)[:, np.newaxis], np.arange(n + 1)[np.newaxis, :]
    passes = (b <= m) & (tango_p(np.minimum(b, m), np.maximum(m - b, 0), n, tolerance) <= level)
    sizes = [
        (binom.pmf(m, n, psi) * binom.pmf(b, m, min(1.0, (1 + tolerance / psi) / 2)) * passes).sum() for psi in psis
    ]
    return float(max(sizes))


def evidence_of(points: list[SweepPoint], **other: Any) -> Evidence:
    names = [f"class{label}" for label in range(len(points[0].class_total))]
    settings: dict[str, Any] = {"layer_name": "conv", "n_channels": 64, "effect": "remove", "class_names": names}
    return Evidence(points, **{**settings, **other})


@pytest.mark.parametrize(("n_lost", "n_gained", "n", "p", "limit", "rounding"), GOLDEN)
def test_p_is_that_of_published_intervals(
    n_lost: int, n_gained: int, n: int, p: float, limit: float, rounding: float
) -> None:
    assert p_of(n_lost, n_gained, n, limit + rounding) < p < p_of(n_lost, n_gained, n, limit - rounding)


@pytest.mark.parametrize(
    ("n_lost", "n_gained", "n", "confidence", "low", "high"),
    [(28, 25, 618, 0.9, -0.0148, 0.0247), (16, 6, 161, 0.95, 0.0054, 0.1240), (7, 0, 14, 0.95, 0.177034, 0.732008)],
)
def test_the_interval_is_the_published_one(
    n_lost: int, n_gained: int, n: int, confidence: float, low: float, high: float
) -> None:
    found = tango_interval(np.array([n_lost, n_gained]), np.array([n_gained, n_lost]), n, confidence)
    np.testing.assert_allclose([found[0][0], found[1][0]], [low, high], atol=6e-5)
    # The other way round it is mirrored.
    np.testing.assert_allclose([found[0][1], found[1][1]], [-found[1][0], -found[0][0]], atol=1e-9)


def test_the_interval_has_its_ends_where_the_test_just_rejects() -> None:
    lost_k, gained_k = np.array([0, 3, 40, 445]), np.array([0, 9, 2, 0])
    low_k, high_k = tango_interval(lost_k, gained_k, 445, 0.9)
    for lost, gained, low, high in zip(lost_k, gained_k, low_k, high_k, strict=True):
        assert -1 < low < (lost - gained) / 445 <= high + 1e-9 and high <= 1
        if high < 0.999:
            assert p_of(lost, gained, 445, high) == pytest.approx(0.05, abs=1e-6)
        if low > 0:
            assert p_of(lost, gained, 445, low) == pytest.approx(0.95, abs=1e-6)
    assert low_k[0] == pytest.approx(-high_k[0])


@given(st.integers(1, 400), st.floats(0, 1), st.floats(0, 1), st.floats(0.001, 0.5))
def test_p_is_that_of_the_largest_likelihood(n: int, share: float, lost: float, tolerance: float) -> None:
    m = round(share * n)
    n_lost = round(lost * m)
    expected = literal_p(n_lost, m - n_lost, n, tolerance)
    assert p_of(n_lost, m - n_lost, n, tolerance) == pytest.approx(expected, abs=2e-6)


def test_p_without_a_change_is_known_on_paper() -> None:
    assert p_of(0, 0, 300, 0.01) == pytest.approx(float(norm.cdf(-np.sqrt(300 * 0.01 / 0.99))), rel=1e-12)


@pytest.mark.parametrize(("n", "tolerance"), [(60, 0.05), (60, 0.3), (120, 0.03)])
def test_the_level_is_the_largest_whose_error_is_at_most_alpha(n: int, tolerance: float) -> None:
    level = exact_level(n, tolerance, 0.05)
    psis = np.unique(np.concatenate([np.linspace(tolerance, 1, 300), np.geomspace(tolerance, 1, 100)]))
    assert literal_size(n, tolerance, level, psis) <= 0.05 + 1e-6
    m, b = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    p = tango_p(b[b <= m], (m - b)[b <= m], n, tolerance)
    following = p[p > level + 1e-8].min()
    assert literal_size(n, tolerance, following + 1e-9, psis) > 0.05


@pytest.mark.parametrize(("n", "tolerance"), [(60, 0.05), (60, 0.4), (300, 0.01)])
def test_p_rises_with_what_is_lost(n: int, tolerance: float) -> None:
    for m in range(n + 1):
        p = tango_p(np.arange(m + 1), m - np.arange(m + 1), n, tolerance)
        assert (np.diff(p) >= 0).all() and (np.diff(p[p < 0.9]) > 0).all()
    passing = largest_losses(n, tolerance, 0.05)
    for m in (0, 1, n // 2, n):
        expected = [b for b in range(m + 1) if p_of(b, m - b, n, tolerance) <= 0.05]
        assert passing[m] == (expected[-1] if expected else -1)


def can_certify(n: int, tolerance: float) -> bool:
    return p_of(0, 0, n, tolerance) <= exact_level(n, tolerance, 0.05)


@pytest.mark.parametrize(("tolerance", "n"), [(0.005, 598), (0.01, 299), (0.02, 149), (0.05, 59)])
def test_so_many_images_are_needed(tolerance: float, n: int) -> None:
    assert images_needed(tolerance, 0.05) == n
    assert can_certify(n, tolerance) and not can_certify(n - 1, tolerance)


def test_the_least_tolerance_is_rounded_so_that_it_works() -> None:
    assert [least_tolerance(n, 0.05) for n in (445, 299, 20, 10_000)] == [0.0068, 0.01, 0.14, 0.0003]
    for n in (20, 97, 299, 445):
        assert can_certify(n, least_tolerance(n, 0.05))


def test_the_sequence_ends_at_the_first_k_that_does_not_pass() -> None:
    n_lost, n_gained = [0, 2, 4, 3, 30, 0, 40], [0, 1, 2, 5, 2, 0, 1]
    points = make_counted(n_lost, n_gained, 1000)
    certificate = certify(evidence_of(points), 0.02, 0.95)
    level = exact_level(1000, 0.02, 0.05)
    passes = [p_of(b, c, 1000, 0.02) <= level for b, c in zip(n_lost, n_gained, strict=True)]
    assert passes == [True, True, True, True, False, True, False], "K = 5 would pass, but comes too late"
    assert (certificate.k, certificate.n_pruned, certificate.failed_k) == (3, 3, 4)
    assert (certificate.share, certificate.level, certificate.reason) == (3 / 64, level, None)
    assert str(certificate) == certificate.sentence
    observed = observe(points, 0.02)
    assert observed is not None and observed.k == 3
    assert observe([replace(points[1], class_lost=(30,)), points[2]], 0.02) is None


def test_every_k_can_pass_and_k_0_is_no_test() -> None:
    points = make_counted([0, 0, 1], [0, 0, 0], 299)
    certificate = certify(evidence_of(points), 0.05, 0.95)
    assert (certificate.k, certificate.failed_k, certificate.reason) == (2, None, None)
    certificate = certify(evidence_of(points[:1]), 0.05, 0.95)
    assert (certificate.k, certificate.reason) == (0, "the schedule has no K that prunes a channel; give it some")


def test_the_sentence_says_what_can_be_pruned_and_which_class_lost_most() -> None:
    right_kn = np.ones((3, 1000), bool)
    labels_n = np.arange(1000) % 4
    right_kn[2, :8:4] = False  # two of class 0
    right_kn[1:, 1] = False  # one of class 1
    points = make_points(right_kn, labels_n)
    assert certify(evidence_of(points), 0.01, 0.95).sentence == (
        "2 of 64 channels of conv can be removed: accuracy falls by at most 1 point (95 % confidence, 1,000 images). "
        "Worst class: class0, -0.8 points."
    )
    zeroed = certify(evidence_of(points, effect="zero_weights", layer_name="a\nb"), 0.015, 0.9, 3)
    assert zeroed.sentence == (
        "2 of 64 channels of a\\nb can be zeroed: accuracy falls by at most 1.5 points (90 % confidence for 3 sweeps "
        "at once, 1,000 images). Worst class: class0, -0.8 points."
    )
    unchanged = certify(evidence_of(make_counted([0, 0], [0, 1], 500)), 0.01, 0.95)
    assert unchanged.sentence.endswith("No class lost accuracy.")
    assert [in_points(share) for share in (0.01, 0.005, 0.125)] == ["1 point", "0.5 points", "12.5 points"]


@pytest.mark.parametrize(
    ("n_images", "tolerance", "obstacle", "reason"),
    [
        (445, 0.0, None, "no number of images can show that nothing at all is lost; give a tolerance above 0"),
        (
            445,
            0.005,
            None,
            "a tolerance of 0.005 needs at least 598 images, got 445; give more images, or a tolerance of at least "
            "0.0068",
        ),
        (
            445,
            0.01,
            None,
            "already K=1 lost 9 and gained 0 of 445 images, so it is not sure that less than 0.01 is lost; take more "
            "and other images, or set a larger tolerance for those",
        ),
        (445, 0.05, "they also chose", "they also chose"),
    ],
)
def test_where_nothing_is_certified_it_says_why(
    n_images: int, tolerance: float, obstacle: str | None, reason: str
) -> None:
    certificate = certify(evidence_of(make_counted([0, 9], [0, 0], n_images), obstacle=obstacle), tolerance, 0.95)
    assert (certificate.k, certificate.n_pruned, certificate.share) == (0, 0, 0.0)
    assert certificate.reason == reason
    assert certificate.sentence == f"How many of 64 channels of conv can be removed is not certified: {reason}."
    was_tested = reason.startswith("already")
    assert (certificate.failed_k, certificate.level > 0) == (1 if was_tested else None, was_tested)


def test_labels_of_the_images_and_inference_stand_in_the_way() -> None:
    assert find_obstacle("taylor", scored_on_these=False, infers=False) is None
    assert find_obstacle("mean_activation", scored_on_these=True, infers=False) is None
    for criterion in ("taylor", "oracle"):
        reason = find_obstacle(criterion, scored_on_these=True, infers=False)
        assert reason is not None and f"criterion {criterion} ranked the channels by the labels" in reason
    assert "inferred" in str(find_obstacle("mean_activation", scored_on_these=True, infers=True))


def test_sweeps_that_are_compared_share_the_error_and_pass_theirs_on() -> None:
    # Passes at 0.025 and at 0.05; at 0.05 alone; ends at once.
    sweeps = {
        "whole": evidence_of(make_counted([0, 0], [0, 0], 1000)),
        "close": evidence_of(make_counted([0, 4, 40], [0, 1, 0], 1000)),
        "none": evidence_of(make_counted([0, 40], [0, 0], 1000)),
    }
    alone = {label: certify(each, 0.01, 0.95) for label, each in sweeps.items()}
    parts = {label: certify(each, 0.01, 0.95, 3) for label, each in sweeps.items()}
    together = certify_together(sweeps, 0.01, 0.95, 3)
    assert parts["close"].level == exact_level(1000, 0.01, 0.05 / 3)
    assert together["close"].level == exact_level(1000, 0.01, 0.05 / 2), "the whole one passed its part on"
    assert together["whole"].level == parts["whole"].level
    ks = [[each[label].k for label in sweeps] for each in (alone, parts, together)]
    assert ks == [[1, 1, 0], [1, 0, 0], [1, 1, 0]]
    assert "(95 % confidence for 3 sweeps at once, 1,000 images)" in together["close"].sentence
    stopped = {**sweeps, "whole": replace(sweeps["whole"], is_whole=False)}
    assert certify_together(stopped, 0.01, 0.95, 3)["close"].k == 0, "what was not swept did not pass"


def test_images_are_followed_from_k_to_k() -> None:
    right_kn = np.array([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    points = make_points(right_kn)
    assert [(point.turned_wrong, point.turned_right) for point in points] == [
        ((2,), ()), ((1,), (2,)), ((2, 3), (1,)), ((0, 1), (3,)),
    ]  # fmt: skip
    assert (rightness(points) == right_kn).all() and all(are_consistent(points))
    assert first_flips(points) == [Flip(1, 1), Flip(3, 2), Flip(0, 3)]
    assert first_flips(make_points(right_kn[1:], ks=[1, 2, 3])) == []


def test_a_band_holds_whole_curves(rng: np.random.Generator) -> None:
    right_kn = rng.random((1, 500)) < 0.8
    assert critical_value(right_kn, 0.95) == pytest.approx(1.96, abs=0.06)
    assert critical_value(right_kn.repeat(40, axis=0), 0.95) == pytest.approx(1.96, abs=0.06)
    # Independent K: each one at the level 0.95^(1/40).
    independent_kn = rng.random((40, 4000)) < 0.5
    assert critical_value(independent_kn, 0.95) == pytest.approx(norm.ppf((1 + 0.95 ** (1 / 40)) / 2), abs=0.1)
    assert critical_value(np.ones((3, 50), bool), 0.95) == pytest.approx(1.959964)
    points = make_points(right_kn)
    (low,), (high,) = accuracy_band(points)
    z, n, p = critical_value(right_kn, 0.95), 500, points[0].accuracy
    for end in (low, high):  # where the score test of one share just passes
        assert abs(p - end) == pytest.approx(z * np.sqrt(end * (1 - end) / n))


def population(rng: np.random.Generator, n_images: int, n_k: int) -> np.ndarray:
    """Which images are right at each K, correlated over K as predictions are, bool `(K, n_images)`."""
    margin_n, drift_n = rng.normal(2.0, 2.0, n_images), rng.normal(0.6, 1.0, n_images)
    noise_kn = rng.normal(0, 0.12, (n_k, n_images)).cumsum(axis=0)
    right_kn: np.ndarray = margin_n - drift_n * (np.arange(n_k)[:, np.newaxis] / n_k) ** 2 + noise_kn > 0
    return right_kn


@pytest.mark.parametrize(("n", "tolerance"), [(300, 0.05), (1_000, 0.02), (10_000, 0.01)])
def test_few_simulated_test_sets_certify_too_much(n: int, tolerance: float) -> None:
    right_kn = population(np.random.default_rng(0), 5000, 60)
    certified, observed = share_too_large(right_kn, n, tolerance)
    # Three standard errors of 2,000 sets above 0.05 are 0.0646.
    assert certified <= 0.0646, certified
    assert observed > 0.2, "what is observed is no promise"


def test_a_simulated_test_set_is_certified_as_its_points_are() -> None:
    right_kn = population(np.random.default_rng(0), 5000, 60)[:, np.random.default_rng(1).integers(0, 5000, 1000)]
    points = make_points(right_kn)
    level = exact_level(1000, 0.02, 0.05)
    k = 0
    while p_of(points[k + 1].n_lost, points[k + 1].n_gained, 1000, 0.02) <= level:
        k += 1
    assert 0 < k < 50 and certify(evidence_of(points), 0.02, 0.95).k == k
