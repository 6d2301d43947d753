"""Hold a sweep's tables, figures, predictions and summary against its journal, and the journal against the settings."""

import csv
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from lab3 import outputs, readers
from lab3.config import Config
from lab3.engine import SweepPoint
from lab3.journal import read_lines
from lab3.pipeline.findings import Verified, check_figures
from lab3.pipeline.fingerprints import sweep_header
from lab3.rank import channel_stats, plan_pruning
from lab3.rundir import RunDir
from lab3.schedule import parse_schedule


def check_sweep(run: RunDir, config: Config, manifest: Mapping[str, Any], found: Verified) -> None:
    """Everything that the journal of a sweep implies; of an unfinished run, the journal alone."""
    points: list[SweepPoint] | None = None
    with found.reading("journal.jsonl"):
        lines = read_lines(run.journal_jsonl, is_finished=found.is_finished)
        if not lines:
            return
        header, points = lines[0], readers.points_of_rows(lines[1:])
        found.n_counted = len(points)
        expected = sweep_header(run, config, manifest)
        # A later lab3 can know settings that the header does not have yet.
        whole = [name for name in expected if name not in ("journal", "settings")]
        differing = [name for name in whole if header[name] != expected[name]]
        differing += [name for name, value in header["settings"].items() if value != expected["settings"].get(name)]
        if differing:
            found.problems.append(
                f"journal.jsonl was begun with other settings than config.yaml and manifest.json have: "
                f"{', '.join(differing)}"
            )
        _check_points(points, config, manifest, found)
    if points is None:
        return
    with found.reading("capture.npz"):
        _, scores = readers.read_capture(run)
        schedule = parse_schedule(config.sweep.schedule, len(scores.importance_c))
        steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, schedule, config.prune.ranking)
        gone = {step.k: step.pruned_channels for step in steps}
        other = [point.k for point in points if point.k in gone and point.pruned_channels != gone[point.k]]
        if other:
            found.problems.append(f"journal.jsonl: other channels than capture.npz gives are gone at {_few(other)}")
        is_complete = _check_schedule(points, schedule, found)
        if found.is_finished and is_complete:
            with found.reading("results.csv, metrics.csv or channels.csv"), tempfile.TemporaryDirectory() as folder:
                anew = RunDir(Path(folder))
                outputs.write_results(anew, points)
                outputs.write_metrics(anew, points, _class_names(run))
                outputs.write_channels(anew, channel_stats(scores.importance_c, steps))
                for name in ("results.csv", "metrics.csv", "channels.csv"):
                    _compare_lines(run.path / name, anew.path / name, found)
            with found.reading("summary.json"):
                _check_summary(run, config, points, len(scores.importance_c), found)
            _check_pictures(run, config, points, found)
            if config.sweep.save_predictions:
                with found.reading("predictions.npz"):
                    _check_predictions(run, points, found)


def _check_points(points: Sequence[SweepPoint], config: Config, manifest: Mapping[str, Any], found: Verified) -> None:
    n_images = manifest["data"]["test"]["n_images"]
    infers = config.sweep.shortcut == "inferred"
    for what, wrong in {
        "what was inferred is not told just where the run infers": [p.k for p in points if p.is_inferred != infers],
        f"total is not {n_images}, the number of images": [p.k for p in points if p.total != n_images],
        "correct is not the sum over the classes": [p.k for p in points if p.correct != sum(p.class_correct)],
        "the confusion matrix does not fit class_correct": [
            p.k for p in points if p.confusion and np.diag(p.confusion).tolist() != list(p.class_correct)
        ],
    }.items():
        if wrong:
            found.problems.append(f"journal.jsonl: {what} at {_few(wrong)}")


def _check_schedule(points: Sequence[SweepPoint], schedule: Sequence[int], found: Verified) -> bool:
    """Whether each K of the schedule is there once, and no other."""
    times = Counter(point.k for point in points)
    before = len(found.problems)
    for what, ks in {
        "has more than once": [k for k, n in times.items() if n > 1],
        "has, though the schedule does not,": sorted(set(times) - set(schedule)),
        "lacks": sorted(set(schedule) - set(times)) if found.is_finished else [],
    }.items():
        if ks:
            found.problems.append(f"journal.jsonl {what} {_few(ks)}")
    return len(found.problems) == before


def _class_names(run: RunDir) -> list[str]:
    """The only thing in `metrics.csv` that nothing else in the folder tells."""
    with run.metrics_csv.open(newline="") as file:
        header = next(csv.reader(file), [])
    return [name.removeprefix("correct_") for name in header if name.startswith("correct_")]


def _compare_lines(path: Path, anew: Path, found: Verified) -> None:
    lines = zip_longest(anew.read_text().splitlines(), path.read_text().splitlines(), fillvalue="no such line")
    differing = [(number, want, got) for number, (want, got) in enumerate(lines, start=1) if want != got]
    if differing:
        number, want, got = differing[0]
        more = f", and {len(differing) - 1} more lines differ" if len(differing) > 1 else ""
        found.problems.append(f"{path.name} line {number} must be {want!r} by journal.jsonl, got {got!r}{more}")


def _check_summary(run: RunDir, config: Config, points: Sequence[SweepPoint], n_channels: int, found: Verified) -> None:
    summary = readers.read_summary(run)
    settings = {**config.prune.model_dump(exclude={"layer", "score_on"}), "shortcut": config.sweep.shortcut}
    summarised = outputs.summarise(points, {"n_channels": n_channels}, settings, config.sweep.safe_drop)
    for name, value in summarised.items():
        if summary.get(name) != value:
            found.problems.append(f"summary.json: {name} must be {value!r}, got {summary.get(name)!r}")


def _check_pictures(run: RunDir, config: Config, points: Sequence[SweepPoint], found: Verified) -> None:
    names = ["accuracy_curve", "feature_map_0", "feature_maps"]
    names += [f"feature_maps_k{k}" for k in config.sweep.feature_maps_k]
    names += [f"confusion_k{point.k}" for point in points if point.confusion is not None]
    check_figures(run, names + (["learning_curves"] if run.epochs_csv.exists() else []), found)


def _check_predictions(run: RunDir, points: Sequence[SweepPoint], found: Verified) -> None:
    ks, predicted_kn, labels_n = readers.read_predictions(run)
    if ks != [point.k for point in points]:
        found.problems.append(f"predictions.npz must have a row for each of {len(points)} K, got {predicted_kn.shape}")
        return
    if len(labels_n) and max(labels_n.max(), -labels_n.min()) >= len(points[0].class_correct):
        found.problems.append(f"predictions.npz must have labels below {len(points[0].class_correct)}")
        return
    wrong = []
    for point, predicted_n in zip(points, predicted_kn, strict=True):
        right_n = labels_n[predicted_n == labels_n]
        of_classes = np.bincount(right_n, minlength=len(point.class_correct)).tolist()
        # Only where K = 0 gave the very classes that changes were counted from.
        has_baseline = ks[0] == 0 and points[0].n_changed == 0
        n_changed = int((predicted_n != predicted_kn[0]).sum()) if has_baseline else point.n_changed
        if of_classes != list(point.class_correct) or n_changed != point.n_changed:
            wrong.append(point.k)
    if wrong:
        found.problems.append(f"predictions.npz does not give the counts of journal.jsonl at {_few(wrong)}")


def _few(ks: Sequence[int]) -> str:
    more = f" and {len(ks) - 5} more" if len(ks) > 5 else ""
    return ", ".join(f"K={k}" for k in ks[:5]) + more
