"""Compress a network inside its run: channels of all layers for a budget of accuracy, certified, as a smaller model."""

from dataclasses import replace
from typing import Any

import numpy as np

from lab3.analysis.certificate import in_points
from lab3.app.pipeline.checks import warn_about_chance
from lab3.app.pipeline.compact_folder import Chosen, write_compact
from lab3.app.pipeline.finetuning import finetune, judge
from lab3.app.pipeline.materials import Work
from lab3.app.pipeline.measuring import MAX_ROUNDS, Decision, Facts, Measured, aim, decide, summarise
from lab3.app.pipeline.probing import NetworkProbe
from lab3.app.pipeline.session import timed
from lab3.base.files import write_atomically
from lab3.config import Config
from lab3.errors import ConfigError, counted
from lab3.inputs.data import Dataset, split_validation
from lab3.inputs.training import best_epoch
from lab3.pruning.compact import Proof
from lab3.pruning.scores import NEED_FEATURES
from lab3.record import tables
from lab3.record.compaction import Compaction, Finetuned, PrunedLayer, Trial
from lab3.record.journal import open_journal
from lab3.views.figures import plot_frontier, save_figure


def compress_network(work: Work, elapsed: dict[str, float]) -> dict[str, Any]:
    """Every missing measurement of the run, and all its files; returns the content of `summary.json`.

    Raises `ModelError` for a model that has no layer to be pruned, or whose smaller form does not give what the masked
    network gives.
    """
    run, progress, settings = work.run, work.progress, work.config.compress
    choosing, certifying = _divide(work)
    with open_journal(run.measured_jsonl, work.manifest.compression_identity()) as journal:
        probe = NetworkProbe(work, choosing, certifying)
        measured = Measured(journal.rows, probe, journal.append)
        progress.say(
            f"compressing {len(measured.facts.names)} layers for {settings.cost}: {len(choosing):,} images choose, "
            f"{len(certifying):,} certify"
        )
        warn_about_chance(progress, measured.facts.n_right / len(certifying), probe.n_labels)
        with timed(elapsed, "choose_s"), progress.bar("choose", MAX_ROUNDS, "rounds") as advance:
            decision = decide(
                measured,
                work.config,
                lambda number, best: advance(
                    1, f"{best.cost / max(1e-12, measured.cost((0,) * len(best.ks))):.0%} left"
                ),
            )
        with timed(elapsed, "aim_s"):
            decision = aim(measured, work.config, decision)
        for name, reason in measured.refused.items():
            progress.say(f"{name} stays as it is: {reason}")
        ks = decision.chosen.ks
        compaction = None
        if sum(ks):
            with timed(elapsed, "compact_s"):
                compaction = _write(work, probe, measured, decision)
    write_atomically(run.plan_csv, tables.plan_csv(measured.facts.names, measured.facts.n_channels, ks))
    write_atomically(run.frontier_csv, tables.frontier_csv(decision.frontier))
    facts = f"{len(choosing):,} images choose, {len(certifying):,} certify"
    title = f"{run.run_id}: compression"
    figure = plot_frontier(decision.frontier, sum(ks), settings.budget, settings.cost, title, facts)
    save_figure(figure, run.figures / "frontier.png")
    return _summary(work, measured, decision, compaction)


def check_compression(config: Config) -> None:
    """Raise `ConfigError` for settings that a whole network cannot be compressed with."""
    prune = config.prune
    for name, got, fits in (
        ("effect", prune.effect, prune.effect == "remove"),
        ("ranking", prune.ranking, prune.ranking == "once"),
        ("criterion", prune.criterion, prune.criterion not in NEED_FEATURES),
    ):
        if not fits:
            raise ConfigError(
                f"prune.{name} must be one that compression of a whole network has, got {got}; leave it out, or sweep "
                "layer by layer with `lab3 sweep --layer all`"
            )
    if config.compress.target_accuracy is None:
        return
    if config.compress.finetune == 0:
        raise ConfigError("compress.target_accuracy needs epochs of training, got compress.finetune 0; give --finetune")
    if config.train.validation_fraction == 0:
        raise ConfigError(
            "compress.target_accuracy needs validation images, got train.validation_fraction 0; set another"
        )


def _divide(work: Work) -> tuple[Dataset, Dataset]:
    """Images that choose, in random order, and images that certify: of training and test images, or two test halves."""
    materials, seed = work.materials, work.config.seed
    if materials.train is not None:
        pool, certifying = materials.train, materials.test
    else:
        pool, certifying = (
            _take(materials.test, rows) for rows in split_validation(materials.test.labels_n, 0.5, seed)
        )
    rng = np.random.default_rng(seed)
    return _take(pool, rng.permutation(len(pool))[: work.config.compress.n_images]), certifying


def _take(images: Dataset, rows: np.ndarray) -> Dataset:
    return replace(images, images_nhwc=images.images_nhwc[rows], labels_n=images.labels_n[rows])


def _write(work: Work, probe: NetworkProbe, measured: Measured, decision: Decision) -> Compaction:
    """The folder of the smaller model, proven on all test images."""
    facts, pruned = measured.facts, measured.pruned(decision.chosen.ks)

    def prove(compact: Any) -> Proof:
        with work.progress.bar("proof", len(work.materials.test), "images") as advance:
            return probe.prove(compact, pruned, lambda n_images: advance(n_images, ""))

    layers = tuple(
        PrunedLayer(name, n_channels, tuple(channels))
        for name, n_channels, channels in zip(facts.names, facts.n_channels, pruned, strict=True)
        if channels
    )

    def train_on(compact: Any, copy: Any) -> Finetuned:
        config, materials = work.config, work.materials
        history = finetune(copy, materials, config, config.compress.finetune, work.progress)
        budget, models = config.compress.budget, (materials.model, compact, copy)
        trials = tuple(Trial(sum(decision.plans[number].ks), accuracy) for number, accuracy in decision.trials)
        return replace(judge(history, models, materials, config, budget, n_compared=2), trials=trials)

    chosen = Chosen("remove", layers, None, "target_accuracy" if decision.trials else "budget")
    return write_compact(
        work.run,
        work.manifest,
        work.materials,
        work.progress,
        probe.compact(pruned),
        chosen,
        prove,
        train_on if work.config.compress.finetune else None,
    )


def _summary(work: Work, measured: Measured, decision: Decision, compaction: Compaction | None) -> dict[str, Any]:
    settings, confidence = work.config.compress, work.config.sweep.confidence
    return {
        "budget": settings.budget,
        "cost": settings.cost,
        "confidence": confidence,
        **summarise(measured, decision),
        "sentence": _sentence(work.config, measured.facts, decision, compaction),
        "compact": compaction and compaction.summary(),
    }


def _sentence(config: Config, facts: Facts, decision: Decision, compaction: Compaction | None) -> str:
    budget, confidence, target = config.compress.budget, config.sweep.confidence, config.compress.target_accuracy
    if compaction is None and decision.trials:
        best = max(accuracy for _, accuracy in decision.trials)
        return (
            f"No plan that loses at most {in_points(budget)} untrained was found that fine-tuning brings to an "
            f"accuracy of {target:g} on validation images; the best reached {best:.4f}."
        )
    if compaction is None:
        return f"No channel was found that can be removed within {in_points(budget)}."
    shares = [
        f"{100 * getattr(compaction.after, name) / getattr(compaction.before, name):.0f} %"
        for name in ("multiply_adds", "parameters")
    ]
    left = (
        f"{counted(sum(decision.chosen.ks), 'channel')} of {counted(len(compaction.layers), 'layer')} can be removed, "
        f"which leaves {shares[0]} of the multiply-adds and {shares[1]} of the parameters: "
    )
    sure = f"{100 * confidence:g} % confidence, {facts.n_certifying:,} images that chose nothing"
    if found := compaction.finetuned:
        if target is not None:
            accuracy = best_epoch(list(found.epochs)).val_accuracy or 0.0
            reached = f"fine-tuned to {accuracy:.4f} on validation images"
            # Training does not repeat bit by bit on every device.
            reached += f", not the {target:g} that its trial reached" * (accuracy < target)
            return f"{left}{reached}, accuracy falls by at most {in_points(found.least_tolerance)} ({sure})."
        passed = "" if found.is_certified else f"; {in_points(budget)} cannot be certified"
        fall = in_points(budget if found.is_certified else found.least_tolerance)
        return f"{left}fine-tuned, accuracy falls by at most {fall} ({sure}{passed})."
    if decision.n_certified:
        return f"{left}accuracy falls by at most {in_points(budget)} ({sure})."
    return left + (
        f"accuracy fell by {in_points(max(0.0, decision.chosen.lost))} on the {facts.n_choosing:,} images that chose "
        f"them. That is not certified: {decision.reason}."
    )
