"""Read back what a run's folder holds; a file that lab3 cannot have written is a `RunStateError`."""

import json
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lab3.analysis.flips import Flip, LostImages
from lab3.base.csv_text import read_cells, read_csv
from lab3.base.reading import parse, reading
from lab3.inputs.training import Epoch
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import ChannelStats
from lab3.pruning.scores import Scores
from lab3.record.journal import Row, read_journal
from lab3.record.rundir import RunDir


def read_points(run: RunDir) -> list[SweepPoint]:
    """The points a run has so far, in ascending K."""
    return points_of_rows(read_journal(run.journal_jsonl), run.journal_jsonl)


def points_of_rows(rows: Sequence[Row], journal: Path) -> list[SweepPoint]:
    """The points in a journal's rows, in ascending K. Raises `RunStateError` if a row is no point."""
    with reading(journal):
        points = parse(SweepPoint, rows)
        for point in points:
            inference = (point.n_inferred, point.n_audited, point.loss_se)
            lists = (
                point.pruned_channels, point.class_correct, point.class_total, point.class_lost, point.class_gained,
                point.turned_wrong, point.turned_right, *(point.confusion or ()),
            )  # fmt: skip
            counts = (value for value in vars(point).values() if isinstance(value, int))
            if point.total == 0 or min(chain(counts, *lists)) < 0:
                raise ValueError(f"K={point.k} must have images, and no count below 0")
            if inference.count(None) not in (0, len(inference)):
                raise ValueError(f"K={point.k} must have all of n_inferred, n_audited and loss_se, or none")
        return sorted(points, key=lambda point: point.k)


def read_epochs(run: RunDir) -> list[Epoch]:
    """The epochs in `epochs.jsonl`; none if the run did not train."""
    return epochs_of_rows(read_journal(run.epochs_jsonl), run.epochs_jsonl) if run.epochs_jsonl.exists() else []


def epochs_of_rows(rows: Sequence[Row], journal: Path) -> list[Epoch]:
    """The epochs in a journal's rows. Raises `RunStateError` if they are none."""
    with reading(journal):
        # A loss that is NaN is text in JSON; the hashes of the checkpoints beside the numbers are for training.
        history = parse(Epoch, rows, is_strict=False)
        if [epoch.epoch for epoch in history] != list(range(1, len(history) + 1)):
            raise ValueError("epochs must be counted from 1")
        return history


def read_capture(run: RunDir) -> tuple[np.ndarray, Scores]:
    """The mean feature maps `(H, W, C)` and scores `(C,)` of `capture_npz`."""
    with reading(run.capture_npz, "delete it and resume, and it is made again"):
        arrays = _arrays(run.capture_npz)
        mean_map_hwc, scores = arrays["mean_map_hwc"], Scores(arrays["importance_c"], arrays["pruned_importance_c"])
        n_channels = mean_map_hwc.shape[-1]
        if mean_map_hwc.ndim != 3 or {scores.importance_c.shape, scores.pruned_importance_c.shape} != {(n_channels,)}:
            raise ValueError("it must have maps (H, W, C) and a score for each channel")
        # Where a pruned channel can never come back, its score is minus infinity.
        if not all(array.dtype.kind == "f" and not np.isnan(array).any() for array in arrays.values()):
            raise ValueError("it must hold numbers")
        return mean_map_hwc, scores


def read_channels(run: RunDir) -> list[ChannelStats]:
    """The channels of `channels_csv`."""
    with reading(run.channels_csv):
        rows = [{**row, "pruned_at_k": row["pruned_at_k"] or None} for row in _rows(run.channels_csv)]
        return parse(ChannelStats, rows, is_strict=False)


def read_scores(run: RunDir) -> dict[str, np.ndarray]:
    """The scores of `scores_csv`."""
    with reading(run.scores_csv, "delete it and resume, and it is made again"):
        rows = _rows(run.scores_csv)
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "channel"}


def read_plan(run: RunDir) -> list[dict[str, str]]:
    """The rows of `plan_csv`."""
    with reading(run.plan_csv):
        return _rows(run.plan_csv)


def read_frontier(run: RunDir) -> list[FrontierPoint]:
    """The plans in `frontier_csv`."""
    with reading(run.frontier_csv):
        return parse(FrontierPoint, _rows(run.frontier_csv), is_strict=False)


def read_class_names(run: RunDir) -> list[str]:
    """The names in the header of `metrics_csv`; no other file of a run has them."""
    with reading(run.metrics_csv):
        header = read_cells(run.metrics_csv)[0]
        return [name.removeprefix("correct_") for name in header if name.startswith("correct_")]


def read_lost(run: RunDir) -> LostImages:
    """The images that are lost first, from `lost_npz`; none where the run has no such file."""
    if not run.lost_npz.exists():
        return LostImages([], [], np.zeros((0, 1, 1), np.uint8))
    with reading(run.lost_npz, "delete summary.json and resume, and it is made again"):
        arrays = _arrays(run.lost_npz)
        image, k, label, picture = (arrays[name] for name in ("image", "k", "label", "picture"))
        if {image.shape, k.shape, label.shape} != {(len(picture),)} or picture.dtype != np.uint8:
            raise ValueError("it must have a number, a K, a class and a picture of each image")
        flips = [Flip(*each) for each in zip(image.tolist(), k.tolist(), strict=True)]
        return LostImages(flips, label.tolist(), picture)


def read_summary(run: RunDir) -> dict[str, Any]:
    """The content of `summary.json`."""
    with reading(run.summary_json, "delete it and resume"):
        return dict(json.loads(run.summary_json.read_text()))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; there is at least one."""
    rows = read_csv(path)
    if not rows:
        raise ValueError("it must have rows")
    return rows
