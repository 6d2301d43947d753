"""How many channels can be pruned, with what confidence.

Every K is evaluated on the same images as K = 0, so what counts is pairs: images lost and images gained. Each K in
ascending order is tested by Tango's score test at its exact level, up to the first that does not pass: fixed-sequence
testing. No correction for many K is needed: to err, the first K that truly loses too much must pass one test. Source:
Angelopoulos, Bates, Candès, Jordan and Lei, Learn then Test, arXiv 2110.01052, section 2.

That holds where tolerance, layer and criterion were fixed before these images were seen, and the ranking did not use
their labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab3.analysis.tango import exact_level, images_needed, least_tolerance, tango_p
from lab3.errors import printable
from lab3.pruning.engine import SweepPoint
from lab3.vocabulary import Criterion, Effect

_USE_LABELS: tuple[Criterion, ...] = ("taylor", "oracle")
_DONE = {"remove": "removed", "zero_weights": "zeroed"}


@dataclass(frozen=True)
class Evidence:
    """A sweep as its certificate needs it: `points` in ascending K, and what was pruned.

    `obstacle`: why nothing can be certified whatever the counts are, as `find_obstacle` says; else None.
    `is_whole`: False where the sweep stopped before the end of its schedule.
    """

    points: Sequence[SweepPoint]
    layer_name: str
    n_channels: int
    effect: Effect
    class_names: Sequence[str]
    obstacle: str | None = None
    is_whole: bool = True


@dataclass(frozen=True)
class Certificate:
    """How many channels can be pruned: accuracy falls by less than `tolerance` at `k` and every smaller K of the sweep.

    Of all test sets, that is wrong for at most 1 - `confidence`. `share` is that of the layer's channels that are
    pruned at `k`. With nothing certified `k`, `n_pruned` and `share` are 0, and `reason` says why and what would help.
    `failed_k`: the first K that did not pass, None if all did or none was tested. `level`: the nominal level of each
    test, 0 where none was tested. Printed, it is its `sentence`.
    """

    k: int
    n_pruned: int
    share: float
    tolerance: float
    confidence: float
    n_images: int
    failed_k: int | None
    level: float
    reason: str | None
    sentence: str

    def __str__(self) -> str:
        return self.sentence

    def summary(self) -> dict[str, Any]:
        """All but the sentence, as `summary.json` has it."""
        return {name: value for name, value in asdict(self).items() if name != "sentence"}


def find_obstacle(criterion: Criterion, *, scored_on_these: bool, infers: bool) -> str | None:
    """Why no count of a sweep can certify anything; None if nothing stands in the way.

    `scored_on_these`: the channels were scored on the images that accuracy is measured on.
    """
    if scored_on_these and criterion in _USE_LABELS:
        return (
            f"criterion {criterion} ranked the channels by the labels of the images that measure accuracy; "
            "score on training images, or choose a criterion without labels"
        )
    if infers:
        return "predictions were inferred, so counts can be wrong; sweep without --infer"
    return None


def certify(evidence: Evidence, tolerance: float, confidence: float, n_compared: int = 1) -> Certificate:
    """The certificate of one sweep; it is one of `n_compared` on these images among which somebody chooses.

    0 <= `tolerance` < 1, a share of images; 0.5 <= `confidence` < 1. The error of all compared sweeps together is at
    most 1 - `confidence`: each has the same part of it.
    """
    return _certify(evidence, tolerance, confidence, n_compared, error_of_each(confidence, n_compared))


def certify_together(
    sweeps: Mapping[str, Evidence], tolerance: float, confidence: float, n_compared: int
) -> dict[str, Certificate]:
    """The certificates of sweeps on the same images, `n_compared` in all: all of them hold at once, by Holm's method.

    The part of the error of a sweep whose every K passed goes to the others. Sources: Holm, A simple sequentially
    rejective multiple test procedure, Scandinavian Journal of Statistics 6:65-70, 1979; for sequences of tests Bretz,
    Maurer, Brannath and Posch, A graphical approach to sequentially rejective multiple test procedures, Statistics in
    Medicine 28:586-604, 2009.
    """
    found: dict[str, Certificate] = {}
    passed: set[str] = set()
    while True:
        alpha = error_of_each(confidence, n_compared - len(passed))
        for label in sweeps.keys() - passed:
            found[label] = _certify(sweeps[label], tolerance, confidence, n_compared, alpha)
        newly = {label for label in sweeps.keys() - passed if sweeps[label].is_whole and _passed_all(found[label])}
        passed |= newly
        if not newly or len(passed) == len(sweeps):
            return {label: found[label] for label in sweeps}


def error_of_each(confidence: float, n_compared: int) -> float:
    """The part that each of `n_compared` sweeps has of the error.

    >>> error_of_each(0.95, 2)
    0.025
    """
    # 1 - 0.95 is not exact.
    return round(1 - confidence, 12) / n_compared


def observe(points: Sequence[SweepPoint], tolerance: float) -> SweepPoint | None:
    """The largest K up to which no K lost more than `tolerance` on these images; None if the first did.

    No promise for other images: of many test sets, about four in ten have it too large.
    """
    # A product such as 0.07 * 100 is not exact.
    allowed = tolerance * points[0].total + 1e-6
    n_kept = next((i for i, point in enumerate(points) if point.n_lost - point.n_gained > allowed), len(points))
    return points[n_kept - 1] if n_kept else None


def _passed_all(certificate: Certificate) -> bool:
    return certificate.failed_k is None and certificate.level > 0


def _certify(evidence: Evidence, tolerance: float, confidence: float, n_compared: int, alpha: float) -> Certificate:
    points = evidence.points
    n_images, last, failed, level = points[0].total, None, None, 0.0
    reason = evidence.obstacle or find_shortage(n_images, tolerance, alpha)
    if reason is None:
        level = exact_level(n_images, tolerance, alpha)
        lost_k, gained_k = (np.array([getattr(point, name) for point in points]) for name in ("n_lost", "n_gained"))
        passes_k = tango_p(lost_k, gained_k, n_images, tolerance) <= level
        passes_k |= [point.n_pruned == 0 for point in points]
        n_passed = len(points) if passes_k.all() else int(passes_k.argmin())
        last = points[n_passed - 1] if n_passed else None
        failed = points[n_passed] if n_passed < len(points) else None
        if last is None or last.n_pruned == 0:
            last, reason = None, _why_none(failed, tolerance)
    n_pruned = last.n_pruned if last else 0
    return Certificate(
        k=last.k if last else 0,
        n_pruned=n_pruned,
        share=n_pruned / evidence.n_channels,
        tolerance=tolerance,
        confidence=confidence,
        n_images=n_images,
        failed_k=failed.k if failed else None,
        level=level,
        reason=reason,
        sentence=_sentence(evidence, last, reason, tolerance, confidence, n_compared),
    )


def find_shortage(n_images: int, tolerance: float, alpha: float) -> str | None:
    """Why no count of `n_images` passes the test with an error of at most `alpha`; None if some does."""
    if tolerance == 0:
        return "no number of images can show that nothing at all is lost; give a tolerance above 0"
    needed = images_needed(tolerance, alpha)
    if n_images >= needed:
        return None
    return (
        f"a tolerance of {tolerance:g} needs at least {needed:,} images, got {n_images:,}; give more images, or a "
        f"tolerance of at least {least_tolerance(n_images, alpha):g}"
    )


def _why_none(failed: SweepPoint | None, tolerance: float) -> str:
    if failed is None:
        return "the schedule has no K that prunes a channel; give it some"
    return (
        f"already K={failed.k} lost {failed.n_lost:,} and gained {failed.n_gained:,} of {failed.total:,} images, so it "
        f"is not sure that less than {tolerance:g} is lost; take more and other images, or set a larger tolerance for "
        "those"
    )


def _sentence(
    evidence: Evidence,
    last: SweepPoint | None,
    reason: str | None,
    tolerance: float,
    confidence: float,
    n_compared: int,
) -> str:
    channels = f"of {evidence.n_channels} channels of {printable(evidence.layer_name)}"
    done = _DONE[evidence.effect]
    if last is None:
        return f"How many {channels} can be {done} is not certified: {reason}."
    sure = f"{100 * confidence:g} % confidence" + f" for {n_compared} sweeps at once" * (n_compared > 1)
    return (
        f"{last.n_pruned} {channels} can be {done}: accuracy falls by at most {in_points(tolerance)} "
        f"({sure}, {last.total:,} images). {_say_worst_class(last, evidence.class_names)}"
    )


def worst_class(point: SweepPoint, class_names: Sequence[str]) -> tuple[str, float]:
    """The class whose own accuracy fell most on these images, and by which share of them."""
    counts = zip(class_names, point.class_total, point.class_lost, point.class_gained, strict=True)
    drops = [((lost - gained) / total, name) for name, total, lost, gained in counts if total]
    drop, name = max(drops, key=lambda each: each[0])
    return name, drop


def _say_worst_class(point: SweepPoint, class_names: Sequence[str]) -> str:
    name, drop = worst_class(point, class_names)
    return f"Worst class: {printable(name)}, -{in_points(drop)}." if drop > 0 else "No class lost accuracy."


def in_points(share: float) -> str:
    """A share as percentage points.

    >>> in_points(0.01), in_points(0.005), in_points(0.1034)
    ('1 point', '0.5 points', '10.3 points')
    """
    number = f"{100 * share:.3g}"
    return f"{number} point{'s' * (number != '1')}"
