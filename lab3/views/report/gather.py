"""From the folder of a finished run or group to its facts; nothing is computed that the folder does not hold."""

import glob
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab3.analysis.band import accuracy_band
from lab3.base.csv_text import read_csv
from lab3.base.reading import flatten, reading
from lab3.errors import UnfinishedError
from lab3.inputs.training import Epoch
from lab3.pruning.engine import SweepPoint
from lab3.record import readers
from lab3.record.compaction import PROOF_JSON, Compaction, read_compaction
from lab3.record.exported import Exported, read_exports
from lab3.record.manifest import Manifest
from lab3.record.rundir import RunDir, open_run
from lab3.views.report.facts import (
    Channel,
    Compression,
    How,
    LostImage,
    Member,
    PlannedLayer,
    Point,
    Report,
    Sweep,
    TrainedEpoch,
)

_SETTINGS = ("prune", "sweep", "data", "train", "compress")


def gather_report(path: Path) -> Report:
    """The facts of the run or group at `path`.

    Raises `RunStateError` if there is none, or a file of it is damaged, `UnfinishedError` if it has not come to its
    end.
    """
    if is_several(path):
        return _gather_group(path)
    run = open_run(path)
    if not run.is_finished:
        raise UnfinishedError(f"run {path} has no report before it is finished; go on with `lab3 resume {path}`")
    with reading(run.summary_json, "delete it and resume"):
        return _gather_run(run)


def is_several(path: Path) -> bool:
    """True for the folder of a group or a grid."""
    # A grid's file lies in other folders too, as the user's own.
    has_cells = any(path.glob(f"{glob.escape(path.resolve().name)}-*/manifest.json"))
    return (path / "group.json").exists() or ((path / "grid.yaml").exists() and has_cells)


def _gather_run(run: RunDir) -> Report:
    config, manifest, summary = run.read_config(), run.read_manifest(), readers.read_summary(run)
    compaction, exports = _read_compact(run)
    return Report(
        kind=manifest.kind,
        # The folder can have been renamed.
        run_id=summary["run_id"],
        lab3=manifest.lab3,
        created_at=manifest.created_at,
        finished_at=manifest.finished_at,
        sentence=summary.get("sentence") or _trained(summary),
        sweep=_gather_sweep(run, summary, config.sweep.confidence) if manifest.kind == "sweep" else None,
        compression=_gather_compression(run, summary) if manifest.kind == "compress" else None,
        compaction=compaction,
        exports=exports,
        epochs=tuple(map(_gather_epoch, readers.read_epochs(run))),
        how=_gather_how(manifest, summary),
    )


def _trained(summary: dict[str, Any]) -> str:
    return (
        f"Trained: {summary['correct']:,} of {summary['n_images']:,} test images are right, "
        f"accuracy {summary['accuracy']:.4f}; the weights are those of epoch {summary['kept_epoch']}."
    )


def _gather_sweep(run: RunDir, summary: dict[str, Any], confidence: float) -> Sweep:
    points, names = readers.read_points(run), readers.read_class_names(run)
    certified, observed, lost = summary["certified"], summary["observed"], readers.read_lost(run)
    scores = readers.read_scores(run)
    return Sweep(
        layer=summary["layer"],
        n_channels=summary["n_channels"],
        **{name: summary[name] for name in ("criterion", "effect", "measured", "ranking", "scored_on", "n_images")},
        is_exact=summary["exact"],
        class_names=tuple(names),
        class_total=tuple(points[0].class_total),
        tolerance=certified["tolerance"],
        confidence=confidence,
        certified_k=certified["k"],
        certified_n_pruned=certified["n_pruned"],
        failed_k=certified["failed_k"],
        reason=certified["reason"],
        observed_k=observed and observed["k"],
        points=tuple(_gather_points(run, points, confidence)),
        channels=tuple(
            Channel(
                channel=each.channel,
                importance=_finite(each.importance),
                rank=each.rank,
                pruned_at_k=each.pruned_at_k,
                scores={name: _finite(float(values[each.channel])) for name, values in scores.items()},
            )
            for each in readers.read_channels(run)
        ),
        lost_first=tuple(
            LostImage(flip.image, flip.k, label) for flip, label in zip(lost.flips, lost.labels, strict=True)
        ),
    )


def _gather_points(run: RunDir, points: Sequence[SweepPoint], confidence: float) -> list[Point]:
    certificate: list[dict[str, str]] = [{} for _ in points]
    band: tuple[Sequence[float | None], Sequence[float | None]] = ([None] * len(points), [None] * len(points))
    if not points[0].is_inferred:
        low_k, high_k = accuracy_band(points, confidence)
        band = (low_k.tolist(), high_k.tolist())
        with reading(run.certificate_csv):
            certificate = read_csv(run.certificate_csv)
    found, before = [], set[int]()
    for point, low, high, row in zip(points, *band, certificate, strict=True):
        now = set(point.pruned_channels)
        drops: dict[str, Any] = {
            name: float(row[name]) if row.get(name) else None for name in ("drop", "drop_low", "drop_high", "p")
        }
        found.append(
            Point(
                k=point.k,
                n_pruned=point.n_pruned,
                correct=point.correct,
                accuracy=point.accuracy,
                loss=point.loss,
                band_low=low,
                band_high=high,
                n_lost=point.n_lost,
                n_gained=point.n_gained,
                **drops,
                class_correct=tuple(point.class_correct),
                new_channels=tuple(channel for channel in point.pruned_channels if channel not in before),
                back_channels=tuple(sorted(before - now)),
            )
        )
        before = now
    return found


def _gather_compression(run: RunDir, summary: dict[str, Any]) -> Compression:
    plan = [
        PlannedLayer(row["layer"], *(int(row[name]) for name in ("n_channels", "n_pruned", "n_kept")))
        for row in readers.read_plan(run)
    ]
    names = (
        "budget", "cost", "cost_share", "confidence", "is_certified", "reason", "n_choosing", "n_certifying",
        "accuracy_before",
    )  # fmt: skip
    known = {name: summary[name] for name in names}
    return Compression(**known, plan=tuple(plan), frontier=tuple(readers.read_frontier(run)))


def _read_compact(run: RunDir) -> tuple[Compaction | None, tuple[Exported, ...]]:
    if not (run.compact / PROOF_JSON).exists():
        return None, ()
    return read_compaction(run), tuple(read_exports(run.compact))


def _gather_epoch(epoch: Epoch) -> TrainedEpoch:
    numbers = {name: _finite(value) for name, value in vars(epoch).items() if name != "epoch"}
    return TrainedEpoch(epoch=epoch.epoch, **numbers)


def _gather_how(manifest: Manifest, summary: dict[str, Any]) -> How:
    return How(
        command=f"lab3 rerun {summary['run_id']}",
        settings=flatten({name: manifest.config[name] for name in _SETTINGS if name in manifest.config}),
        versions=manifest.versions,
        device=manifest.device,
        model=manifest.model.path,
        model_sha256=manifest.model.sha256,
        data=manifest.data.test.source,
        data_sha256=manifest.data.test.sha256,
        git_commit=manifest.git_commit,
        attempts=manifest.attempts,
        elapsed_s=manifest.elapsed_s or {},
        self_check=summary.get("self_check"),
    )


def _gather_group(path: Path) -> Report:
    certificates = path / "certificates.csv"
    if not certificates.exists():
        is_grid = (path / "grid.yaml").exists()
        way = "its `lab3 grid` command" if is_grid else f"`lab3 resume {path}`"
        raise UnfinishedError(f"{path} has no report before it is finished; go on with {way}")
    with reading(certificates):
        rows = read_csv(certificates)
    members = []
    for row in rows:
        run = RunDir(path / f"{path.resolve().name}-{row['run']}")
        summary, points = readers.read_summary(run), readers.read_points(run)
        baseline = summary["baseline"]
        members.append(
            Member(
                label=row["run"],
                run_id=run.run_id,
                layer=summary["layer"],
                criterion=summary["criterion"],
                n_channels=summary["n_channels"],
                certified_k=int(row["k"]),
                certified_share=float(row["share"]),
                baseline=baseline and baseline["accuracy"],
                sentence=row["sentence"],
                curve=tuple((point.n_pruned / summary["n_channels"], point.accuracy) for point in points),
            )
        )
    best = max(members, key=lambda each: each.certified_share)
    first = RunDir(path / members[0].run_id).read_manifest()
    return Report(
        kind="group",
        run_id=path.resolve().name,
        lab3=first.lab3,
        created_at=first.created_at,
        finished_at=RunDir(path / members[-1].run_id).read_manifest().finished_at,
        sentence=f"{best.label}: {best.sentence}",
        members=tuple(members),
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
