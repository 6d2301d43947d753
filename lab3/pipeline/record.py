"""Tell a tracker what a run's folder holds: all of it, or the parts that a running sweep tells as they come."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

from lab3 import readers
from lab3.config import Config
from lab3.engine import SweepPoint
from lab3.figures import channel_pictures
from lab3.rank import ChannelStats
from lab3.rundir import RunDir
from lab3.tracking import Asset, ChannelTable, Tracker


def tell_record(run: RunDir, tracker: Tracker) -> str | None:
    """Everything that is in the folder, in the order in which a run tells it; returns what `finish` does."""
    config = run.read_config()
    tell_training(run, tracker)
    tell_inputs(run, config, tracker)
    if run.capture_npz.exists() and run.channels_csv.exists():
        tell_channels(run, config, readers.read_channels(run), tracker)
    points = readers.read_points(run) if run.journal_jsonl.exists() else []
    for point in points:
        tracker.log_point(point)
    if (run.figures / "accuracy_curve.png").exists():
        tell_end(run, config, points, tracker)
    if not run.is_finished:
        return tracker.finish({}, exit_code=1)
    tell_results(run, tracker)
    return tracker.finish(flatten_summary(readers.read_summary(run)), exit_code=0)


def tracker_settings(run: RunDir, config: Config) -> dict[str, Any]:
    """What a tracker says of the run as a whole."""
    tracking, manifest = config.tracking, run.read_manifest()
    # Hashes of the files come at the end; W&B's artifacts have their own.
    told = {name: value for name, value in manifest.as_json().items() if name not in ("config", "files")}
    return {
        "started_s": datetime.fromisoformat(manifest.created_at).timestamp(),
        "project": tracking.project,
        "entity": tracking.entity,
        "group": tracking.group,
        "job_type": manifest.kind,
        "notes": tracking.notes,
        "tags": tracking.tags,
        "config": {**config.model_dump(), "manifest": told},
    }


def tell_training(run: RunDir, tracker: Tracker) -> None:
    """The epochs of a run that has trained, and their curves."""
    for epoch in readers.read_epochs(run):
        tracker.log_epoch(epoch)
    _tell_figures(run, tracker, "learning_curves")


def tell_inputs(run: RunDir, config: Config, tracker: Tracker) -> None:
    """What the run was made from; the model too if the run has trained it."""
    manifest = run.read_manifest()
    for split, facts in asdict(manifest.data).items():
        if facts is not None:
            source = facts["source"]
            name = f"dataset-{_plain(Path(source).stem)}-{split}"
            reference = Path(source).as_uri() if Path(source).is_absolute() else None
            # The path is in the reference: the same data elsewhere is the same data.
            told = {"split": split, **facts, "source": Path(source).name}
            artifact = told.pop("artifact", None)
            tracker.log_asset(Asset("input", "dataset", name, told, reference=reference, artifact=artifact))
    model = manifest.model
    if model.path is None or not config.tracking.log.model:
        return
    path = Path(model.path)
    if config.model.path is not None:
        told = {"sha256": model.sha256, "file": path.name}
        name, artifact = f"model-{_plain(path.stem)}", model.artifact
        tracker.log_asset(Asset("input", "model", name, told, reference=path.as_uri(), artifact=artifact))
        return
    told = {"sha256": model.sha256, "architecture": config.model.architecture, "run": run.run_id}
    files = {path.name: run.path / path.name}
    aliases = ("latest", "best")
    tracker.log_asset(Asset("output", "model", f"model-{_plain(config.name)}", told, files, aliases=aliases))


def tell_channels(run: RunDir, config: Config, channels: list[ChannelStats], tracker: Tracker) -> None:
    """The channel table and the feature maps, in a row of their own before the first point."""
    _tell_table(run, config, channels, {}, tracker)
    if config.tracking.log.feature_maps:
        drawn = [f"feature_maps_k{k}" for k in config.sweep.feature_maps_k]
        _tell_figures(run, tracker, "feature_map_0", "feature_maps", *drawn)
    tracker.log_media()


def tell_end(run: RunDir, config: Config, points: list[SweepPoint], tracker: Tracker) -> None:
    """Curve, confusion matrices, and the channel table with the accuracy at every channel's K, in a row behind all."""
    _tell_figures(run, tracker, "accuracy_curve", *(f"confusion_k{each.k}" for each in points if each.confusion))
    _tell_table(run, config, readers.read_channels(run), {point.k: point.accuracy for point in points}, tracker)
    tracker.log_media()


def tell_results(run: RunDir, tracker: Tracker) -> None:
    """The files of a finished run."""
    summary = readers.read_summary(run)
    tables = [run.journal_jsonl, run.results_csv, run.metrics_csv, run.channels_csv, run.epochs_csv, run.summary_json]
    others = [run.scores_csv, run.epochs_jsonl, run.config_yaml, run.predictions_npz]
    named = [*tables, *others, *sorted(run.figures.glob("*.png"))]
    files = {path.relative_to(run.path).as_posix(): path for path in named if path.exists()}
    facts = {"run": run.run_id, **{name: summary.get(name) for name in ("best", "baseline", "exact")}}
    tracker.log_asset(Asset("output", "results", f"results-{_plain(run.run_id)}", facts, files))


def flatten_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`{"best": {"k": 3}}` as `{"best/K": 3}`, the names that W&B shows."""
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{'K' if key == 'k' else key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _tell_table(
    run: RunDir, config: Config, channels: list[ChannelStats], accuracy_at_k: dict[int, float], tracker: Tracker
) -> None:
    if config.tracking.log.channel_table:
        mean_map_hwc, _ = readers.read_capture(run)
        pictures = channel_pictures(mean_map_hwc)
        tracker.log_channels(ChannelTable(channels, pictures, readers.read_scores(run), accuracy_at_k))


def _tell_figures(run: RunDir, tracker: Tracker, *names: str) -> None:
    paths = {name: run.figures / f"{name}.png" for name in names}
    found = {name: path for name, path in paths.items() if path.exists()}
    if found:
        tracker.log_figures(found)


def _plain(name: str) -> str:
    """A name W&B allows for artifacts."""
    kept = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
    return kept[:100]
