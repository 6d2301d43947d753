"""The events of a run in the one order that every run has, from what its folder holds."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from lab3.analysis.certificate import worst_class
from lab3.config import Config
from lab3.record import readers
from lab3.record.compaction import read_compaction
from lab3.record.rundir import RunDir
from lab3.tracking import RunSettings, Tracker
from lab3.tracking.events import Asset, ChannelTable, Compacted, Event, Finished, LostTable, MediaReady, RowEvent
from lab3.views.figures import channel_pictures

Stage = Literal["epochs", "inputs", "channels", "points", "end", "results", "compact"]


def events(run: RunDir, config: Config) -> dict[Stage, Iterator[Event]]:
    """What the folder holds, by stages of a run, in order; files of a stage are read when its events are taken."""
    return {
        "epochs": _epochs(run),
        "inputs": _inputs(run, config),
        "channels": _channels(run, config),
        "points": _points(run),
        "end": _end(run, config),
        "results": _results(run, config),
        "compact": _compact(run, config),
    }


class EventLog:
    """Logs the events of a run to its tracker, each with the number of its row, as the folder comes to hold them."""

    def __init__(self, run: RunDir, config: Config, tracker: Tracker) -> None:
        self._stages, self._tracker, self._step = events(run, config), tracker, 0

    def log(self, event: Event) -> None:
        """Log what has just happened: an epoch, a point, an alert."""
        self._tracker.log(self._step, event)
        self._step += isinstance(event, RowEvent)

    def replay(self, last: Stage = "compact") -> None:
        """Log what the folder holds of every stage up to `last` that was not replayed yet."""
        while last in self._stages:
            for event in self._stages.pop(next(iter(self._stages))):
                self.log(event)


def replay_record(run: RunDir, tracker: Tracker) -> str | None:
    """Log everything that is in the folder, and close the tracker; returns what `close` does."""
    EventLog(run, run.read_config(), tracker).replay()
    return tracker.close(0 if run.is_finished else 1)


def run_settings(run: RunDir, config: Config) -> RunSettings:
    """What a tracker shows of the run as a whole; W&B's files lie in `WANDB_DIR`, else in the run's folder."""
    manifest = run.read_manifest()
    # Hashes of the files come at the end; W&B's artifacts have their own.
    shown = {name: value for name, value in manifest.as_json().items() if name not in ("config", "files")}
    return RunSettings(
        folder=Path(os.environ.get("WANDB_DIR") or run.path),
        run_id=run.run_id,
        tracking=config.tracking,
        job_type=manifest.kind,
        config={**config.model_dump(), "manifest": shown},
        started_s=datetime.fromisoformat(manifest.created_at).timestamp(),
    )


def _epochs(run: RunDir) -> Iterator[Event]:
    yield from readers.read_epochs(run)


def _inputs(run: RunDir, config: Config) -> Iterator[Event]:
    """What the run was made from; the model too if the run has trained it."""
    manifest = run.read_manifest()
    for split, images in (("test", manifest.data.test), ("train", manifest.data.train)):
        if images is not None:
            source = Path(images.source)
            reference = source.as_uri() if source.is_absolute() else None
            # The path is in the reference: the same data elsewhere is the same data.
            facts = {"split": split, "source": source.name, "sha256": images.sha256, "n_images": images.n_images}
            name = f"dataset-{_allowed(source.stem)}-{split}"
            yield Asset("input", "dataset", name, facts, reference=reference, artifact=images.artifact)
    model = manifest.model
    if model.path is None or not config.tracking.log.model:
        return
    path, shown = Path(model.path), {"sha256": model.sha256}
    if config.model.path is not None:
        shown |= {"file": path.name}
        name, artifact = f"model-{_allowed(path.stem)}", model.artifact
        yield Asset("input", "model", name, shown, reference=path.as_uri(), artifact=artifact)
    else:
        shown |= {"architecture": config.model.architecture, "run": run.run_id}
        files = {path.name: run.path / path.name}
        yield Asset("output", "model", f"model-{_allowed(config.name)}", shown, files)


def _channels(run: RunDir, config: Config) -> Iterator[Event]:
    """The channel table; the feature maps, with the curves of the training before them."""
    if run.capture_npz.exists() and run.channels_csv.exists():
        yield from _table(run, config, {})
        drawn = ["feature_map_0", "feature_maps", *(f"feature_maps_k{k}" for k in config.sweep.feature_maps_k)]
        yield from _media(run, "learning_curves", *(drawn if config.tracking.log.feature_maps else ()))


def _points(run: RunDir) -> Iterator[Event]:
    if run.journal_jsonl.exists():
        yield from readers.read_points(run)


def _end(run: RunDir, config: Config) -> Iterator[Event]:
    """The channel table with the accuracy at every channel's K; the images lost first; curves and matrices."""
    if (run.figures / "accuracy_curve.png").exists():
        points = readers.read_points(run) if run.journal_jsonl.exists() else []
        yield from _table(run, config, {point.k: point.accuracy for point in points})
        lost = readers.read_lost(run)
        if lost.flips:
            yield LostTable(lost, readers.read_class_names(run))
        drawn = ["accuracy_curve", "class_accuracy", "flips"]
        yield from _media(run, *drawn, *(f"confusion_k{point.k}" for point in points if point.confusion))


def _results(run: RunDir, config: Config) -> Iterator[Event]:
    """The files of a finished run and its summary; the curves of one that only trains."""
    if not run.is_finished:
        return
    summary = readers.read_summary(run)
    every = [run.manifest_json, run.config_yaml, run.summary_json, run.epochs_jsonl, run.epochs_csv]
    tables = [run.journal_jsonl, run.results_csv, run.metrics_csv, run.certificate_csv, run.channels_csv]
    others = [run.scores_csv, run.predictions_npz, run.lost_npz]
    compressed = [run.measured_jsonl, run.plan_csv, run.frontier_csv]
    named = [*every, *tables, *others, *compressed, *sorted(run.figures.glob("*.png"))]
    files = {path.relative_to(run.path).as_posix(): path for path in named if _is_own(path)}
    facts = {"run": run.run_id, **{name: summary.get(name) for name in ("certified", "best", "baseline", "exact")}}
    yield Asset("output", "results", f"results-{_allowed(run.run_id)}", facts, files)
    if run.frontier_csv.exists():
        yield from readers.read_frontier(run)
    manifest = run.read_manifest()
    if manifest.kind != "sweep":
        yield from _media(run, "learning_curves", "frontier")
    if manifest.kind == "sweep":
        summary |= _at_certified_k(run, summary)
    cost = {"cost": asdict(manifest.cost)} if manifest.cost else {}
    yield Finished({**summary, **cost})


def _at_certified_k(run: RunDir, summary: dict[str, Any]) -> dict[str, Any]:
    """What the certified K does to classes and images."""
    points = {point.k: point for point in readers.read_points(run)}
    point = points.get(summary["certified"]["k"])
    if point is None:
        return {}
    name, drop = worst_class(point, readers.read_class_names(run))
    counts = {"n_lost": point.n_lost, "n_gained": point.n_gained}
    return {"at_certified": {**counts, "worst_class": name, "worst_class_drop": drop}}


def _compact(run: RunDir, config: Config) -> Iterator[Event]:
    """The smaller model of a finished run, if it has one."""
    if not (run.is_finished and run.compact.exists()):
        return
    compaction = read_compaction(run)
    summary = compaction.summary()
    if config.tracking.log.model:
        facts = {"run": run.run_id, "source": compaction.model, "effect": compaction.effect, **summary}
        facts["layers"] = {layer.name: f"{layer.n_kept} of {layer.n_channels}" for layer in compaction.layers}
        files = {path.name: path for path in sorted(run.compact.iterdir()) if _is_own(path)}
        yield Asset("output", "model", f"model-{_allowed(run.run_id)}-compact", facts, files)
    yield Compacted(summary)


def _table(run: RunDir, config: Config, accuracy_at_k: dict[int, float]) -> Iterator[Event]:
    if config.tracking.log.channel_table:
        mean_map_hwc, _ = readers.read_capture(run)
        scores = readers.read_scores(run)
        yield ChannelTable(readers.read_channels(run), channel_pictures(mean_map_hwc), scores, accuracy_at_k)


def _media(run: RunDir, *names: str) -> Iterator[Event]:
    paths = {name: run.figures / f"{name}.png" for name in names}
    if found := {name: path for name, path in paths.items() if _is_own(path)}:
        yield MediaReady(found)


def _is_own(path: Path) -> bool:
    """True if the run has this file; what a link leads to is not the run's, and could be a secret."""
    return path.exists() and not path.is_symlink()


def _allowed(name: str) -> str:
    """A name W&B allows for artifacts."""
    kept = "".join(character if character.isalnum() or character in "-_." else "-" for character in name)
    return kept[:100]
