"""The tables of a run, each a function from results to the bytes of a file, and its summary."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from math import isfinite
from typing import Any

import numpy as np

from lab3.analysis.certificate import Certificate, observe
from lab3.analysis.flips import LostImages
from lab3.analysis.tango import tango_interval, tango_p
from lab3.base.csv_text import encode_csv
from lab3.inputs.training import Epoch
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import ChannelStats
from lab3.pruning.scores import Scores
from lab3.record.journal import Row
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir


def row_of_point(point: SweepPoint) -> Row:
    """The journal's row of a point."""
    return {name: value for name, value in vars(point).items() if value is not None}


def row_of_epoch(epoch: Epoch, checkpoint: str) -> Row:
    """The row of `epochs.jsonl` of an epoch whose checkpoint has this SHA-256."""
    # JSON has no NaN, which a loss can be.
    numbers = {
        name: str(value) if value is not None and not isfinite(value) else value for name, value in vars(epoch).items()
    }
    return {**numbers, "checkpoint": checkpoint}


def capture_npz(mean_map_hwc: np.ndarray, scores: Scores) -> bytes:
    """The mean feature maps and the scores, so that a resumed run ranks by exactly the same numbers."""
    content = io.BytesIO()
    np.savez(content, mean_map_hwc=mean_map_hwc, **asdict(scores))
    return content.getvalue()


def predictions_npz(ks: Sequence[int], predictions_kn: np.ndarray, labels_n: np.ndarray) -> bytes:
    """Compressed `k` `(K,)`, `predicted` `(K, N)` in the smallest unsigned type, `label` `(N,)`."""
    smallest = np.min_scalar_type(max(int(predictions_kn.max()), int(labels_n.max())))
    content = io.BytesIO()
    np.savez_compressed(content, k=np.array(ks), predicted=predictions_kn.astype(smallest), label=labels_n)
    return content.getvalue()


def lost_npz(lost: LostImages) -> bytes:
    """`image`, `k` and `label`, int64 `(n,)`, and `picture`, of the images that are lost first."""
    content = io.BytesIO()
    image, k = ([getattr(flip, name) for flip in lost.flips] for name in ("image", "k"))
    np.savez(content, image=image, k=k, label=lost.labels, picture=lost.pictures)
    return content.getvalue()


def channels_csv(channels: Sequence[ChannelStats]) -> bytes:
    """A row a channel, the least important first; `pruned_at_k` is empty for a channel that is never pruned."""
    return encode_csv([field.name for field in fields(ChannelStats)], map(astuple, channels))


def scores_csv(scores: Mapping[str, np.ndarray]) -> bytes:
    """A row a channel in the layer's order, a column a criterion; `scores` are `(C,)` each."""
    rows = zip(*([float(value) for value in column] for column in scores.values()), strict=True)
    return encode_csv(["channel", *scores], ((channel, *row) for channel, row in enumerate(rows)))


def results_csv(points: Sequence[SweepPoint]) -> bytes:
    """A row a point; accuracy and loss to 6 decimals.

    Of a run that infers, the loss is in the column `loss_estimate`, and columns behind it say how much was inferred.
    """
    header = ["k", "n_pruned", "correct", "total", "accuracy", "loss"]
    rows: list[tuple[Any, ...]] = [
        (p.k, p.n_pruned, p.correct, p.total, f"{p.accuracy:.6f}", f"{p.loss:.6f}") for p in points
    ]
    if points[0].is_inferred:
        header[-1:] = ["loss_estimate", "loss_se", "n_inferred", "n_audited"]
        rows = [(*row, f"{p.loss_se:.6f}", p.n_inferred, p.n_audited) for row, p in zip(rows, points, strict=True)]
    return encode_csv(header, rows)


def metrics_csv(points: Sequence[SweepPoint], class_names: Sequence[str]) -> bytes:
    """A row a point with what it has beyond `results_csv`; `correct_<class>` counts images of a class.

    `n_lost` are right at K = 0 and wrong here, `n_gained` the other way round; `lost_<class>`, `gained_<class>` count
    those of a class.
    """
    names = ["k", "top5_correct", "n_changed", "n_tied", "n_run"] + ["n_inferred"] * points[0].is_inferred
    rows = [
        (
            *(getattr(point, name) for name in names),
            *point.class_correct,
            point.n_lost,
            point.n_gained,
            *point.class_lost,
            *point.class_gained,
        )
        for point in points
    ]
    correct, lost, gained = ([f"{what}_{name}" for name in class_names] for what in ("correct", "lost", "gained"))
    return encode_csv([*names, *correct, "n_lost", "n_gained", *lost, *gained], rows)


def certificate_csv(points: Sequence[SweepPoint], certificate: Certificate) -> bytes:
    """A row a point with what its certificate rests on, to 6 decimals.

    Images lost and gained against K = 0, the fall of accuracy with the score interval of this K alone, and the p of a
    fall of at least the tolerance; that is empty where the tolerance is 0.
    """
    n, tolerance = points[0].total, certificate.tolerance
    lost_k, gained_k = (np.array([getattr(point, name) for point in points]) for name in ("n_lost", "n_gained"))
    low_k, high_k = tango_interval(lost_k, gained_k, n, certificate.confidence)
    p_k = tango_p(lost_k, gained_k, n, tolerance) if tolerance else None
    rows = [
        (
            point.k,
            point.n_pruned,
            point.n_lost,
            point.n_gained,
            *(f"{value:.6f}" for value in ((point.n_lost - point.n_gained) / n, low_k[i], high_k[i])),
            "" if p_k is None else f"{p_k[i]:.6f}",
        )
        for i, point in enumerate(points)
    ]
    return encode_csv(["k", "n_pruned", "n_lost", "n_gained", "drop", "drop_low", "drop_high", "p"], rows)


def epochs_csv(history: Sequence[Epoch]) -> bytes:
    """A row an epoch of training."""
    return encode_csv([field.name for field in fields(Epoch)], map(astuple, history))


def comparison_csv(runs: Mapping[str, RunDir]) -> bytes:
    """A row for each point of finished runs, by their labels."""
    rows: list[tuple[Any, ...]] = []
    for label, run in runs.items():
        summary, points = read_summary(run), read_points(run)
        layer, criterion, n_channels = (summary[name] for name in ("layer", "criterion", "n_channels"))
        label += " (inferred)" * points[0].is_inferred
        rows += [(label, layer, criterion, p.k, p.n_pruned, n_channels, p.correct, f"{p.accuracy:.6f}") for p in points]
    return encode_csv(["run", "layer", "criterion", "k", "n_pruned", "n_channels", "correct", "accuracy"], rows)


def certificates_csv(certificates: Mapping[str, Certificate]) -> bytes:
    """A row for each run of a group, by its label, with what is certified of all of them at once."""
    names = ["k", "n_pruned", "share", "tolerance", "confidence", "n_images", "failed_k", "level", "sentence"]
    rows = ((label, *(getattr(each, name) for name in names)) for label, each in certificates.items())
    return encode_csv(["run", *names], rows)


def plan_csv(names: Sequence[str], n_channels: Sequence[int], ks: Sequence[int]) -> bytes:
    """A row for each layer of a compressed network: how many channels it had, loses and keeps."""
    rows = zip(names, n_channels, ks, (n - k for n, k in zip(n_channels, ks, strict=True)), strict=True)
    return encode_csv(["layer", "n_channels", "n_pruned", "n_kept"], rows)


def frontier_csv(frontier: Sequence[FrontierPoint]) -> bytes:
    """A row for each plan as it grew: accuracy lost on the images that chose, and what is left of the cost."""
    return encode_csv([field.name for field in fields(FrontierPoint)], map(astuple, frontier))


def summarise(
    points: Sequence[SweepPoint], layer: Mapping[str, Any], settings: Mapping[str, Any], certificate: Certificate
) -> dict[str, Any]:
    """The content of `summary.json`: what was pruned and how, the answer, the baseline, the best and the last point.

    `exact` is False where the run infers predictions. `certified` is the certificate, `sentence` says it in words.
    `observed` is the largest K up to which no accuracy on these images is more than the tolerance below the baseline,
    which is no promise for others; `share` is that of the layer's channels that are then pruned.
    """
    best = max(points, key=lambda point: (point.correct, point.k))
    observed = observe(points, certificate.tolerance)
    return {
        **layer,
        **settings,
        "exact": not points[0].is_inferred,
        "n_points": len(points),
        "n_images": points[0].total,
        "sentence": certificate.sentence,
        "certified": certificate.summary(),
        "observed": observed and {**_describe(observed), "share": observed.n_pruned / layer["n_channels"]},
        "baseline": _describe(points[0]) if points[0].k == 0 else None,
        "best": _describe(best),
        "last": _describe(points[-1]),
    }


def _describe(point: SweepPoint) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("k", "n_pruned", "correct", "accuracy")}
