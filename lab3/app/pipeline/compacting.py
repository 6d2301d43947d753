"""Write the compact model of a finished sweep, with the proof that it is the masked one."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lab3.app.pipeline.answers import ranked_by_test_labels
from lab3.app.pipeline.checks import check_files, check_same_settings, sweep_header
from lab3.app.pipeline.compact_folder import REMEDY, Chosen, load_again, write_compact
from lab3.app.pipeline.finetuning import finetune, judge
from lab3.app.pipeline.materials import Materials
from lab3.app.pipeline.session import Session, with_settings
from lab3.base.reading import reading
from lab3.config import Config
from lab3.errors import ConfigError, UnfinishedError
from lab3.inputs.training import best_epoch
from lab3.pruning.compact import (
    Plan,
    Proof,
    build_compact,
    compact_model,
    mask_layer,
    plan_compaction,
    prove_compact,
    round_width,
)
from lab3.pruning.engine import SweepPoint
from lab3.pruning.split import Split, split_model
from lab3.record import readers
from lab3.record.compaction import Compaction, Finetuned, PrunedLayer, Trial
from lab3.record.journal import check_header, read_lines
from lab3.record.manifest import Manifest
from lab3.record.rundir import RunDir, open_run
from lab3.tracking import choose_mode
from lab3.views.report import write_report


@dataclass(frozen=True)
class Tuning:
    """How a compact model is trained on: `epochs` on the run's training images, or on `train_data`.

    `target_accuracy`, in 0..1 on validation images, chooses K: the largest that reaches it.
    """

    epochs: int
    target_accuracy: float | None = None
    train_data: str | None = None


def compact_run(
    path: Path,
    session: Session,
    *,
    k: int | str | None = None,
    round_to: int | None = None,
    tuning: Tuning | None = None,
) -> tuple[Path, Compaction]:
    """Write `compact/` of the finished sweep at `path`; returns that folder and what its `proof.json` says.

    `k`: a K of the sweep, `certified` (as None is) or `observed`. `round_to`: keep channels until the
    layer's width is a multiple of it. Raises `UnfinishedError` or `ConfigError` for a run or a K that has no compact
    model, `RunStateError` if model or data are not those of the run, and `ModelError` where the channels cannot be
    taken out exactly, or where the compact model is not the masked one: then nothing is written.
    """
    run = open_run(path)
    with run.lock():
        if not run.is_finished:
            raise UnfinishedError(
                f"only a finished run can be compacted, {path} is not; go on with `lab3 resume {path}`"
            )
        config, manifest = run.read_config(), run.read_manifest()
        if manifest.kind != "sweep":
            raise ConfigError(
                f"a run to be compacted must be a sweep, {path} is of the kind {manifest.kind}; sweep its model file"
            )
        check_same_settings(run, manifest, config)
        check_files(run, config, manifest, REMEDY)
        with reading(run.manifest_json):
            check_header(run.journal_jsonl, read_lines(run.journal_jsonl), sweep_header(run, manifest))
        points = {point.k: point for point in readers.read_points(run)}
        # A K that cannot be taken shows before anything is loaded.
        by_target = tuning is not None and tuning.target_accuracy is not None
        found = None if by_target else _choose_point(run, points, k)
        # What ranked the channels then; training images given now do not change it.
        obstacle = ranked_by_test_labels(config)
        if tuning is not None and tuning.train_data is not None:
            config = with_settings(config, data={"train": str(Path(tuning.train_data).absolute())})
        with session.progress.stoppable():
            materials = load_again(run, config, manifest, session, trains=tuning is not None)
            prune = config.prune
            split = split_model(
                materials.model, prune.layer, effect=prune.effect, measured=prune.measured, bias=prune.bias
            )
        work = _Work(run, config, manifest, materials, split, session, tuning, obstacle)
        trials: tuple[Trial, ...] = ()
        if found is None:
            found, trials = _reach_target(work, points)
        compaction = _compact(work, *found, round_to, trials)
        write_report(path)
        if choose_mode(session.mode, config.tracking.mode)[0] != "disabled":
            session.progress.say(f"`lab3 publish {path}` shows it in W&B")
        return run.compact, compaction


@dataclass(frozen=True)
class _Work:
    run: RunDir
    config: Config
    manifest: Manifest
    materials: Materials
    split: Split
    session: Session
    tuning: Tuning | None
    obstacle: str | None


def _compact(
    work: _Work, point: SweepPoint, chosen_by: str, round_to: int | None, trials: tuple[Trial, ...]
) -> Compaction:
    """The compact model of one point, in its folder."""
    split, progress, tuning = work.split, work.session.progress, work.tuning
    with progress.stoppable():
        plan, rounding = _plan(work.run, split, point, round_to)
    progress.say(
        f"compacting {split.layer_name}: {split.n_channels} channels to {plan.n_channels}, K={point.k}, {chosen_by}"
    )

    def prove(compact: Any) -> Proof:
        return _prove(split, compact, plan, work.materials, work.session)

    def train_on(compact: Any, copy: Any) -> Finetuned:
        assert tuning is not None
        history = finetune(copy, work.materials, work.config, tuning.epochs, progress)
        models = (work.materials.model, compact, copy)
        tolerance = work.config.sweep.tolerance
        judged = judge(history, models, work.materials, work.config, tolerance, obstacle=work.obstacle)
        return replace(judged, trials=trials)

    layer = PrunedLayer(split.layer_name, split.n_channels, plan.pruned_channels, plan.constant_channels)
    compaction = write_compact(
        work.run,
        work.manifest,
        work.materials,
        progress,
        build_compact(plan),
        Chosen(work.config.prune.effect, (layer,), point.k, chosen_by, rounding),
        prove,
        train_on if tuning else None,
    )
    n_right = compaction.proof.correct
    if n_right != point.correct and plan.pruned_channels == point.pruned_channels:
        progress.warn(
            f"the compact model is right for {n_right:,} images, the sweep counted {point.correct:,}: those scores "
            "are tied, or the sweep inferred them or was computed with other versions"
        )
    return compaction


def _reach_target(work: _Work, points: Mapping[int, SweepPoint]) -> tuple[tuple[SweepPoint, str], tuple[Trial, ...]]:
    """The point of the largest K that reaches the target when fine-tuned, by halves, and what was tried.

    Validation images decide alone. Raises `ConfigError` if none that was tried reaches it.
    """
    assert work.tuning is not None and work.tuning.target_accuracy is not None
    epochs, target = work.tuning.epochs, work.tuning.target_accuracy
    if work.config.train.validation_fraction == 0:
        raise ConfigError("--target-accuracy needs validation images, got train.validation_fraction 0; set another")
    candidates = [point for point in points.values() if point.n_pruned]
    trials: list[Trial] = []

    def reaches(number: int) -> bool:
        point = candidates[number - 1]
        compact = compact_model(work.split.anatomy, point.pruned_channels)
        history = finetune(compact, work.materials, work.config, epochs, work.session.progress)
        trials.append(Trial(point.k, best_epoch(history).val_accuracy or 0.0))
        work.session.progress.say(f"K={point.k}: validation accuracy {trials[-1].val_accuracy:.4f}")
        return trials[-1].val_accuracy >= target

    n_reached = bisect_left(range(1, len(candidates) + 1), True, key=lambda number: not reaches(number))
    if n_reached == 0:
        best = max((trial.val_accuracy for trial in trials), default=0.0)
        raise ConfigError(
            f"--target-accuracy must be reached at some K, got {target:g}, and at most {best:.4f} at {len(trials)} K; "
            "give a lower one, or more epochs"
        )
    return (candidates[n_reached - 1], "target_accuracy"), tuple(trials)


def _choose_point(run: RunDir, points: Mapping[int, SweepPoint], k: int | str | None) -> tuple[SweepPoint, str]:
    """The point to be compacted, and what its K is."""
    chosen_by = "k"
    if not isinstance(k, int):
        chosen_by, summary = k or "certified", readers.read_summary(run)
        chosen = summary[chosen_by]
        if not chosen or chosen["n_pruned"] == 0:
            why = (chosen or {}).get("reason") or "the first K that prunes a channel lost more than the tolerance"
            raise ConfigError(
                f"--k {chosen_by} must be a K that prunes a channel, got none, because {why}. Give a K, as --k 100"
                + " or --k observed" * (chosen_by == "certified")
            )
        k = int(chosen["k"])
    if k == 0 or k not in points:
        why = "which prunes nothing" if k == 0 else "which is not of the run"
        raise ConfigError(
            f"--k must be a K of the run's schedule from {min(points)} to {max(points)} and above 0, got {k} "
            f"({chosen_by}), {why}; give another, as --k observed or --k 100"
        )
    return points[k], chosen_by


def _plan(run: RunDir, split: Split, point: SweepPoint, round_to: int | None) -> tuple[Plan, str | None]:
    if round_to is None:
        return plan_compaction(split.anatomy, point.pruned_channels), None
    _, scores = readers.read_capture(run)
    plan, rounded = round_width(split.anatomy, point.pruned_channels, scores.importance_c, round_to)
    more = build_compact(rounded).count_params() - build_compact(plan).count_params()
    return rounded, (
        f"--round-to {round_to} keeps {rounded.n_channels} channels in place of {plan.n_channels}: "
        f"{len(plan.pruned_channels) - len(rounded.pruned_channels)} fewer are pruned, {more:,} more parameters"
    )


def _prove(split: Split, compact: Any, plan: Plan, materials: Materials, session: Session) -> Proof:
    masked, test = mask_layer(split, plan.pruned_channels), materials.test
    with session.progress.bar("proof", len(test), "images") as advance:
        return prove_compact(
            masked,
            compact,
            test.images_nhwc,
            test.labels_n,
            materials.preprocess,
            on_block=lambda n_images: advance(n_images, ""),
        )
