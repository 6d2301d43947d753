"""Capture, score and sweep inside a run."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab3.analysis.certificate import in_points
from lab3.analysis.flips import LostImages, first_flips
from lab3.app.pipeline.answers import certify_run, due_steps, gather_evidence
from lab3.app.pipeline.checks import check_points, sweep_header, warn_about_chance
from lab3.app.pipeline.materials import Materials, Work
from lab3.app.pipeline.session import timed
from lab3.base.arrays import read_rows
from lab3.base.backend import to_numpy
from lab3.base.files import write_atomically
from lab3.base.progress import Advance
from lab3.config import Config
from lab3.errors import RunStateError, first_few
from lab3.inputs.data import Dataset
from lab3.pruning.capture import Capture, capture_layers, image_weights
from lab3.pruning.engine import SweepPoint, sweep_points
from lab3.pruning.layers import score_convolutions
from lab3.pruning.rank import PruneStep, channel_stats, describe_surplus, plan_pruning
from lab3.pruning.scores import NEED_FEATURES, cheap_scores, score_channels
from lab3.pruning.selfcheck import check_split
from lab3.pruning.split import Split, split_model
from lab3.record import readers, tables
from lab3.record.journal import Journal, open_journal, read_lines
from lab3.tracking.events import Alert
from lab3.views.drawings import draw_feature_maps, draw_results
from lab3.views.figures import about, image_pictures

_MAX_CLASSES_SHOWN, _N_LOST_SHOWN = 100, 24


def sweep_network(work: Work, elapsed: dict[str, float]) -> dict[str, Any]:
    """Every missing point of the run, and all its files; returns the content of `summary.json`."""
    config, materials, progress = work.config, work.materials, work.progress
    prune, test = config.prune, materials.test
    split = _split(materials, config, prune.layer)
    progress.say(
        f"pruning {split.layer_name}: {split.n_channels} channels, {len(materials.schedule)} values of K, "
        f"{len(test):,} images; {prune.criterion} on {materials.scored_on.source}"
    )
    if config.sweep.shortcut == "inferred":
        progress.say("sweep.shortcut is inferred: not every prediction is computed, so counts may be wrong somewhere")
    if prune.layer is None and (names := score_convolutions(materials.model)):
        progress.say(f"the channels of {' and '.join(names)} are the classes: the last convolution before is pruned")
    if split.reason:
        progress.say(f"the network behind {split.layer_name} is run in full for every K: {split.reason}")
    with timed(elapsed, "capture_s"):
        captured = _capture(work, split, test)
    with timed(elapsed, "score_s"):
        steps = _rank(work, split, captured)

    with timed(elapsed, "self_check_s"):
        checked = check_split(
            split,
            materials.model,
            captured.features,
            test.images_nhwc,
            materials.preprocess,
            steps,
            batch_size=config.sweep.batch_size,
            seed=config.seed,
            on_block=progress.stop_if_asked,
        )

    with timed(elapsed, "sweep_s"):
        points = _sweep(work, split, captured, steps)
    return {**_write_results(work, split, points), "self_check": checked.summary()}


def _sweep(work: Work, split: Split, captured: Capture, steps: Sequence[PruneStep]) -> list[SweepPoint]:
    """Every point of the run; those that its journal lacks are computed."""
    run, test, progress = work.run, work.materials.test, work.progress
    with open_journal(run.journal_jsonl, sweep_header(run, work.manifest)) as journal:
        points = readers.points_of_rows(journal.rows, journal.path)
        due, problems = check_points(work.config, points, steps, n_images=len(test), n_labels=split.n_labels)
        if problems:
            raise RunStateError(
                f"{journal.path} has points that this sweep cannot have: {first_few(problems)}; start a new run"
            )
        work.events.replay("points")
        with progress.bar("sweep", len(due), "K") as advance:
            advance(len(points), "")
            _compute(work, split, captured, due, journal, points, advance)
    if points[0].k == 0:
        warn_about_chance(progress, points[0].accuracy, split.n_labels)
    return points


def _write_results(work: Work, split: Split, points: Sequence[SweepPoint]) -> dict[str, Any]:
    """Tables and figures of all points; returns what they come to."""
    run, config, test = work.run, work.config, work.materials.test
    names = test.class_names or [str(label) for label in range(split.n_labels)]
    write_atomically(run.results_csv, tables.results_csv(points))
    write_atomically(run.metrics_csv, tables.metrics_csv(points, names))
    flips = first_flips(points)[:_N_LOST_SHOWN]
    rows = np.array([flip.image for flip in flips], int)
    lost = LostImages(flips, test.labels_n[rows].tolist(), image_pictures(read_rows(test.images_nhwc, rows)))
    if flips:
        write_atomically(run.lost_npz, tables.lost_npz(lost))
    evidence = gather_evidence(config, points, split.layer_name, split.n_channels, names)
    certificate = certify_run(config, evidence)
    if not points[0].is_inferred:
        write_atomically(run.certificate_csv, tables.certificate_csv(points, certificate))
    draw_results(run.figure, evidence, certificate, lost, _facts(config, test))
    work.events.replay("end")
    layer = {"layer": split.layer_name, "layer_index": split.layer_index, "n_channels": split.n_channels}
    settings = {
        **config.prune.model_dump(exclude={"layer", "score_on"}),
        "scored_on": work.materials.scored_on.source,
        "shortcut": config.sweep.shortcut,
        "until": config.sweep.until,
    }
    return tables.summarise(points, layer, settings, certificate)


def _facts(config: Config, images: Dataset) -> str:
    """What the figures' titles say."""
    prune, source = config.prune, Path(images.source).name
    return about(criterion=prune.criterion, effect=prune.effect, n_images=len(images), source=source)


def _split(materials: Materials, config: Config, layer: str | int | None) -> Split:
    prune = config.prune
    return split_model(materials.model, layer, effect=prune.effect, measured=prune.measured, bias=prune.bias)


def _compute(
    work: Work,
    split: Split,
    captured: Capture,
    steps: Sequence[PruneStep],
    journal: Journal,
    points: list[SweepPoint],
    advance: Advance,
) -> None:
    """Add every missing point to the journal, then to `points`, and log it.

    With `until: certified` the first K that cannot be certified is the last.
    """
    config, labels_n = work.config, work.materials.test.labels_n
    floor = config.tracking.alert_below
    # The journal does not hold predictions: they are computed again for points that it has.
    shared, model_path = work.materials.shared, work.materials.model_path
    tally_blocks = None
    if shared.share_out is not None:
        tally_blocks = shared.share_out(config, str(model_path), captured.features, labels_n, steps)
    predictions_kn = np.zeros((len(steps), len(labels_n)), np.uint16) if config.sweep.save_predictions else None
    for point in sweep_points(
        split,
        captured.features,
        labels_n,
        steps,
        done=tuple(points),
        batch_size=config.sweep.batch_size,
        shortcut=config.sweep.shortcut,
        predictions_kn=predictions_kn,
        on_block=work.progress.stop_if_asked,
        confusion_k={0, *config.sweep.feature_maps_k} if split.n_labels <= _MAX_CLASSES_SHOWN else (),
        tally_blocks=tally_blocks,
    ):
        journal.append(tables.row_of_point(point))
        points.append(point)
        work.events.log(point)
        if point.k == 0 and floor is not None and point.accuracy < floor:
            text = f"accuracy {point.accuracy:.4f} before any channel is pruned, below {floor}"
            work.events.log(Alert("low baseline", text))
        advance(1, f"K={point.k} accuracy {point.accuracy:.4f}")
        if len(due_steps(config, steps, points)) < len(steps):
            work.progress.say(
                f"the sweep ends at K={point.k}: that accuracy falls by at most {in_points(config.sweep.tolerance)} "
                f"cannot be certified there ({point.n_lost:,} images lost, {point.n_gained:,} gained)"
            )
            break
    if predictions_kn is not None:
        ks = [point.k for point in points]
        write_atomically(work.run.predictions_npz, tables.predictions_npz(ks, predictions_kn[: len(ks)], labels_n))


def _rank(work: Work, split: Split, captured: Capture) -> tuple[PruneStep, ...]:
    """The channels pruned at each K, with the channel table and the feature maps drawn and logged."""
    run, config, materials, progress = work.run, work.config, work.materials, work.progress
    prune = config.prune
    # What the hashes in a journal do not cover is made again.
    is_covered = run.journal_jsonl.exists() and bool(read_lines(run.journal_jsonl))
    if not (is_covered and run.capture_npz.exists() and run.scores_csv.exists()):
        scored = materials.scored_on
        if scored is not materials.test:
            needs_features = prune.criterion in NEED_FEATURES
            captured_for_scores = _capture(work, split, scored, needs_features)
        else:
            captured_for_scores = captured
        scores = score_channels(
            prune.criterion,
            split,
            captured_for_scores,
            scored.labels_n,
            seed=config.seed,
            batch_size=config.sweep.batch_size,
            on_block=progress.stop_if_asked,
        )
        write_atomically(run.scores_csv, tables.scores_csv(cheap_scores(split, captured_for_scores)))
        write_atomically(run.capture_npz, tables.capture_npz(captured.mean_map_hwc, scores))
    mean_map_hwc, scores = readers.read_capture(run)
    if len(scores.importance_c) != split.n_channels:
        raise RunStateError(
            f"{run.capture_npz} must have a score for each of {split.n_channels} channels, got "
            f"{len(scores.importance_c)}; start a new run instead"
        )
    steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, materials.schedule, prune.ranking)
    if surplus := describe_surplus(scores.importance_c, scores.pruned_importance_c, steps, prune.ranking):
        progress.warn(surplus)
    channels = channel_stats(scores.importance_c, steps)
    write_atomically(run.channels_csv, tables.channels_csv(channels))
    drawn = [step for step in steps if step.k in config.sweep.feature_maps_k]
    draw_feature_maps(
        run.figure, split.layer_name, mean_map_hwc, split.pruned_map, drawn, _facts(config, materials.test)
    )
    work.events.replay("channels")
    return steps


def _capture(work: Work, split: Split, dataset: Dataset, keep_features: bool = True) -> Capture:
    """What one pass leaves of the layer; the same pass serves the layers of the same group that follow."""
    config, materials = work.config, work.materials
    group, captures = materials.shared.layers, materials.shared.captures
    following = group[group.index(split.layer_index) + 1 :] if group else ()
    for other in [key for key in captures if key[0] not in (split.layer_index, *following)]:
        del captures[other]
    # One file can hold both splits, so its hash does not tell them apart.
    images = (dataset is materials.test, keep_features)
    if (split.layer_index, *images) not in captures:
        splits = [split, *(_split(materials, config, index) for index in following)]
        if keep_features and following:
            splits = splits[: _n_that_fit(splits, materials, dataset)]
        found = _capture_now(work, splits, dataset, keep_features)
        captures.update({(each.layer_index, *images): one for each, one in zip(splits, found, strict=True)})
    return captures[(split.layer_index, *images)]


def _n_that_fit(splits: Sequence[Split], materials: Materials, dataset: Dataset) -> int:
    """How many of the layers, at least the first, have room for their features on half of what is free."""
    one_image_nhwc = dataset.images_nhwc[:1]
    room = shutil.disk_usage(tempfile.gettempdir()).free / 2
    for number, split in enumerate(splits):
        _, *kept = split.trunk.run(materials.preprocess(one_image_nhwc))
        room -= len(dataset) * sum(to_numpy(tensor).nbytes for tensor in kept)
        if room < 0:
            return max(1, number)
    return len(splits)


def _capture_now(work: Work, splits: Sequence[Split], dataset: Dataset, keep_features: bool) -> list[Capture]:
    config, materials = work.config, work.materials
    title = "capture" if dataset is materials.test else "score"
    with work.progress.bar(title, len(dataset), "images") as advance:
        return capture_layers(
            splits,
            dataset.images_nhwc,
            materials.preprocess,
            weights_n=image_weights(len(dataset), config.prune.average, config.prune.average_batch_size),
            batch_size=config.sweep.capture_batch_size,
            cache_mb=config.sweep.cache_mb,
            keep_features=keep_features,
            on_progress=lambda n: advance(n, ""),
        )
