"""Which charts a report has."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from lab3.pruning.budget import marked
from lab3.views.report.charts import Chart, Line, draw, style_of
from lab3.views.report.facts import Member, Report, Sweep

_MOST_CLASSES = 16


def draw_charts(report: Report) -> dict[str, Markup]:
    """By the names that the page has for them."""
    charts: dict[str, Markup] = {}
    if report.sweep is not None:
        charts |= _sweep_charts(report.sweep)
    if report.epochs:
        charts["learning"] = _learning_chart(report)
    if report.members:
        charts["members"] = draw_members(report.members)
    if report.compression is not None:
        charts["frontier"] = _frontier_chart(report)
    return charts


def draw_members(members: Sequence[Member]) -> Markup:
    """The curves of several runs over the share that is pruned."""
    lines = [
        Line(each.label, [share for share, _ in each.curve], [right for _, right in each.curve], style_of(number))
        for number, each in enumerate(members)
    ]
    top = max(max(line.ys) for line in lines)
    return draw(Chart("Accuracy against the share pruned", "share of channels pruned", "accuracy", lines, 1, _top(top)))


def _sweep_charts(sweep: Sweep) -> dict[str, Markup]:
    points, n = sweep.points, sweep.n_images
    ks = [point.k for point in points]
    x_label, x_max = f"K, channels pruned of {sweep.n_channels}", max(ks[-1], 1)
    accuracy = [point.accuracy for point in points]
    low = [point.band_low for point in points if point.band_low is not None]
    high = [point.band_high for point in points if point.band_high is not None]
    chance = 1 / len(sweep.class_names)
    posts = [(sweep.certified_k, "certified", f"certified: K = {sweep.certified_k}")] * bool(sweep.certified_n_pruned)
    posts += [(k, "observed", f"observed: K = {k}") for k in [sweep.observed_k] if k is not None]
    fifth = sweep.n_channels // 5
    posts += [(fifth, "fifth", f"a fifth, the first report's choice: K = {fifth}")] * (0 < fifth <= x_max)
    common: dict[str, Any] = {"x_max": x_max, "has_cursor": True}
    curve = Chart(
        f"Accuracy as channels of {sweep.layer} are pruned", x_label, f"accuracy on {n:,} images",
        [Line("accuracy", ks, accuracy, "c0")], y_max=_top(max([*accuracy, *high])),
        rules=[(chance, "chance", f"chance: {chance:.3g}")], posts=posts,
        band=(ks, low, high, f"{100 * sweep.confidence:g} % band of all K at once") if low else None, **common,
    )  # fmt: skip
    flips = [[point.n_lost for point in points], [point.n_gained for point in points]]
    flip_chart = Chart(
        "Images lost and gained against K = 0", x_label, f"of {n:,} images",
        [Line("lost: right at K = 0, now wrong", ks, flips[0], "c1"), Line("gained", ks, flips[1], "c2 d1")],
        y_max=_top(max(map(max, flips)), 1e9), **common,
    )  # fmt: skip
    shown = _fallen_classes(sweep)
    lines = [
        Line(
            sweep.class_names[label],
            ks,
            [point.class_correct[label] / sweep.class_total[label] for point in points],
            style_of(number),
        )
        for number, label in enumerate(shown)
    ]
    class_chart = Chart("Accuracy by class", x_label, "accuracy of the class", lines, y_max=1, **common)
    return {"accuracy": draw(curve), "flips": draw(flip_chart), "classes": draw(class_chart)}


def _fallen_classes(sweep: Sweep) -> list[int]:
    """The classes that are drawn, those that fall most at the certified K, or else the last, first."""
    at = next((point for point in sweep.points if point.k == sweep.certified_k and point.n_pruned), sweep.points[-1])
    first = sweep.points[0]
    labels = [label for label, total in enumerate(sweep.class_total) if total]

    def change(label: int) -> float:
        return (at.class_correct[label] - first.class_correct[label]) / sweep.class_total[label]

    return sorted(labels, key=change)[:_MOST_CLASSES]


def _learning_chart(report: Report) -> Markup:
    numbers = [epoch.epoch for epoch in report.epochs]
    lines = []
    for number, (name, label) in enumerate((("accuracy", "training"), ("val_accuracy", "validation"))):
        known = [(e.epoch, v) for e in report.epochs if (v := getattr(e, name)) is not None]
        if known:
            lines.append(Line(label, [each for each, _ in known], [each for _, each in known], style_of(number)))
    return draw(Chart("Accuracy by epoch of training", "epoch", "accuracy", lines, numbers[-1], 1))


def _frontier_chart(report: Report) -> Markup:
    compression = report.compression
    assert compression is not None
    frontier = compression.frontier
    shares, lost = [each.cost_share for each in frontier], [100 * each.lost for each in frontier]
    last, taken = marked(frontier, sum(layer.n_pruned for layer in compression.plan))
    named = ((last, "mark", "the last that is certified"), (taken, "mark taken", "the one that was taken"))
    marks = [(point.cost_share, 100 * point.lost, style, name) for point, style, name in named if point is not None]
    budget = 100 * compression.budget
    return draw(
        Chart(
            f"Accuracy lost against {compression.cost} left", f"{compression.cost} left", "points lost when choosing",
            [Line("plans", shares, lost, "c0")], 1, _top(max([budget, *lost]), 1e9), y_min=min(0, *lost),
            rules=[(budget, "chance", f"budget: {budget:g} points")], marks=marks, is_percent_left=True,
        )
    )  # fmt: skip


def _top(value: float, most: float = 1.0) -> float:
    """A little above the highest value."""
    return min(most, 1.06 * value) or 1.0
