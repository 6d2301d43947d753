"""Hold a sweep's journal against the settings, and its tables against the journal.

What else is changed in a finished run, the hashes in its manifest tell.
"""

import csv
import tempfile
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from lab3 import outputs, readers
from lab3.config import Config
from lab3.engine import SweepPoint
from lab3.errors import first_few
from lab3.journal import flatten, read_lines
from lab3.pipeline.findings import Verified
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
        known = flatten(expected)
        differing = [name for name, value in flatten(header).items() if value != known.get(name)]
        if differing:
            found.problems.append(
                f"journal.jsonl was begun with other settings than config.yaml and manifest.json have: "
                f"{', '.join(differing)}"
            )
    if points is None:
        return
    with found.reading("capture.npz"):
        _, scores = readers.read_capture(run)
        schedule = parse_schedule(config.sweep.schedule, len(scores.importance_c))
        steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, schedule, config.prune.ranking)
        gone = {step.k: step.pruned_channels for step in steps}
        other = [f"K={point.k}" for point in points if point.k in gone and point.pruned_channels != gone[point.k]]
        if other:
            found.problems.append(
                f"journal.jsonl: other channels than capture.npz gives are gone at {first_few(other)}"
            )
        ks = [point.k for point in points]
        if (ks != list(schedule)) if found.is_finished else (len(set(ks)) < len(ks) or not set(ks) <= set(schedule)):
            found.problems.append(f"journal.jsonl must have each K of sweep.schedule once, got {first_few(ks)}")
        if found.is_finished:
            with found.reading("results.csv, metrics.csv or channels.csv"), tempfile.TemporaryDirectory() as folder:
                anew = RunDir(Path(folder))
                outputs.write_results(anew, points)
                outputs.write_metrics(anew, points, _class_names(run))
                outputs.write_channels(anew, channel_stats(scores.importance_c, steps))
                for name in ("results.csv", "metrics.csv", "channels.csv"):
                    _compare_lines(run.path / name, anew.path / name, found)


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
