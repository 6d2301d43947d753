"""Read back what a run's folder holds; a file that lab3 cannot have written is a `RunStateError`."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from lab3.engine import SweepPoint
from lab3.errors import RunStateError
from lab3.foreign import one_line
from lab3.journal import Row, read_journal
from lab3.rank import ChannelStats
from lab3.rundir import RunDir
from lab3.scores import Scores
from lab3.training import Epoch


def points_of_rows(rows: Iterable[Row]) -> list[SweepPoint]:
    """The points in a journal's rows, in ascending K. Raises `RunStateError` if a row is no point."""
    return sorted((_point_of_row(row) for row in rows), key=lambda point: point.k)


def read_points(run: RunDir) -> list[SweepPoint]:
    """The points a run has so far, in ascending K."""
    return points_of_rows(read_journal(run.journal_jsonl))


def read_capture(run: RunDir) -> tuple[np.ndarray, Scores]:
    """The mean feature maps `(H, W, C)` and scores `(C,)` of `write_capture`."""
    with _reading(run.capture_npz, "delete it and resume, and it is made again"):
        arrays = _arrays(run.capture_npz)
        mean_map_hwc, scores = arrays["mean_map_hwc"], Scores(arrays["importance_c"], arrays["pruned_importance_c"])
        n_channels = mean_map_hwc.shape[-1]
        if mean_map_hwc.ndim != 3 or {scores.importance_c.shape, scores.pruned_importance_c.shape} != {(n_channels,)}:
            raise ValueError("it must have maps (H, W, C) and a score for each channel")
        # Where a channel that has gone can never come back, its score is minus infinity.
        if not all(array.dtype.kind == "f" and not np.isnan(array).any() for array in arrays.values()):
            raise ValueError("it must hold numbers")
        return mean_map_hwc, scores


def read_channels(run: RunDir) -> list[ChannelStats]:
    """The channels of `write_channels`."""
    with _reading(run.channels_csv):
        return [
            ChannelStats(
                int(row["channel"]),
                float(row["importance"]),
                int(row["rank"]),
                int(row["pruned_at_k"]) if row["pruned_at_k"] else None,
            )
            for row in _rows(run.channels_csv)
        ]


def read_scores(run: RunDir) -> dict[str, np.ndarray]:
    """The scores of `write_scores`."""
    with _reading(run.scores_csv, "delete it and resume, and it is made again"):
        rows = _rows(run.scores_csv)
        return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "channel"}


def read_predictions(run: RunDir) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The K, the predicted classes `(K, N)` and the labels `(N,)` of `write_predictions`."""
    with _reading(run.predictions_npz, "repeat the run to have it again"):
        arrays = _arrays(run.predictions_npz)
        ks, predicted_kn, labels_n = arrays["k"], arrays["predicted"], arrays["label"]
        if ks.ndim != 1 or labels_n.ndim != 1 or predicted_kn.shape != (len(ks), len(labels_n)):
            raise ValueError("it must have a row for each K, and in it a class for each image")
        return ks.tolist(), predicted_kn, labels_n


def read_epochs(run: RunDir) -> list[Epoch]:
    """The epochs in `epochs.jsonl`; none if the run did not train."""
    return epochs_of_rows(read_journal(run.epochs_jsonl)) if run.epochs_jsonl.exists() else []


def epochs_of_rows(rows: Sequence[Row]) -> list[Epoch]:
    """The epochs in a journal's rows. Raises `RunStateError` if they are none."""
    try:
        history = [
            Epoch(
                row["epoch"],
                float(row["loss"]),
                float(row["accuracy"]),
                None if row["val_loss"] is None else float(row["val_loss"]),
                None if row["val_accuracy"] is None else float(row["val_accuracy"]),
            )
            for row in rows
        ]
        if [epoch.epoch for epoch in history] != list(range(1, len(history) + 1)):
            raise ValueError("epochs must be counted from 1")
        if not all(isinstance(row["checkpoint"], str) for row in rows):
            raise ValueError("each epoch must name its checkpoint's hash")
        return history
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunStateError(f"epochs.jsonl has a row that is no epoch ({error}); start a new run instead") from error


def read_summary(run: RunDir) -> dict[str, Any]:
    """The content of `summary.json`."""
    with _reading(run.summary_json, "delete it and resume"):
        return dict(json.loads(run.summary_json.read_text()))


def _point_of_row(row: Row) -> SweepPoint:
    try:
        values = {**row, **{name: tuple(row[name]) for name in ("pruned_channels", "class_correct")}}
        if "confusion" in row:
            values["confusion"] = tuple(tuple(counts) for counts in row["confusion"])
        lists = [values["pruned_channels"], values["class_correct"], *values.get("confusion", ())]
        counts = [row[name] for name in ("k", "correct", "total", "top5_correct", "n_changed", "n_tied", "n_run")]
        counts += [row[name] for name in ("n_inferred", "n_audited") if name in row]
        if not all(type(count) is int and count >= 0 for count in [*counts, *chain(*lists)]):
            raise ValueError("counts must be whole numbers")
        if row["total"] == 0 or type(row["loss"]) is not float:
            raise ValueError("there must be images and a loss")
        inference = [row.get(name) for name in ("n_inferred", "n_audited", "loss_se")]
        if [type(value) for value in inference] not in ([int, int, float], [type(None)] * 3):
            raise ValueError("of a run that infers each point must have n_inferred, n_audited and loss_se")
        return SweepPoint(**values)
    except (KeyError, TypeError, ValueError) as error:
        raise RunStateError(f"the journal has a row that is no point of a sweep ({error}); start a new run") from error


def _arrays(path: Path) -> dict[str, np.ndarray]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table by the names of its columns; there is at least one."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    if not rows or any(None in row or None in row.values() for row in rows):
        raise ValueError("it must have rows with a value in each column")
    return rows


@contextmanager
def _reading(path: Path, remedy: str = "start a new run instead") -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Readers of CSV, JSON, zip and NumPy files let errors of a dozen types through.
        raise RunStateError(f"{path} cannot be read ({one_line(error)}); {remedy}") from error
