"""Write the compact model of a finished sweep, with the proof that it is the masked one."""

from pathlib import Path
from typing import Any

from lab3.app.pipeline.checks import check_files, check_inputs, check_same_settings, sweep_header
from lab3.app.pipeline.compact_folder import Chosen, write_compact
from lab3.app.pipeline.materials import Materials, load_materials
from lab3.app.pipeline.session import Session
from lab3.base.reading import reading
from lab3.config import Config
from lab3.errors import ConfigError, UnfinishedError
from lab3.pruning.compact import (
    Plan,
    Proof,
    build_compact,
    plan_compaction,
    prove_compact,
    round_width,
)
from lab3.pruning.engine import SweepPoint
from lab3.pruning.split import Split, split_model
from lab3.record import readers
from lab3.record.compaction import Compaction, PrunedLayer
from lab3.record.journal import check_header, read_lines
from lab3.record.manifest import Manifest, name_inputs
from lab3.record.rundir import RunDir, open_run

_REMEDY = "put the file back, or say where it is in config.yaml"


def compact_run(
    path: Path, session: Session, *, k: int | str | None = None, round_to: int | None = None
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
        check_files(run, config, manifest, _REMEDY)
        with reading(run.manifest_json):
            check_header(run.journal_jsonl, read_lines(run.journal_jsonl), sweep_header(run, manifest))
        point, chosen_by = _choose_point(run, k)
        with session.progress.stoppable():
            materials = _load(run, config, manifest, session)
            prune = config.prune
            split = split_model(
                materials.model, prune.layer, effect=prune.effect, measured=prune.measured, bias=prune.bias
            )
            plan, rounding = _plan(run, split, point, round_to)
        session.progress.say(
            f"compacting {split.layer_name}: {split.n_channels} channels to {plan.n_channels}, K={point.k}, {chosen_by}"
        )

        def prove(compact: Any) -> Proof:
            return _prove(split, compact, plan, materials, session)

        layer = PrunedLayer(split.layer_name, split.n_channels, plan.pruned_channels, plan.constant_channels)
        chosen = Chosen(prune.effect, (layer,), point.k, chosen_by, rounding)
        compaction = write_compact(run, manifest, materials, session.progress, build_compact(plan), chosen, prove)
        n_right = compaction.proof.correct
        if n_right != point.correct and plan.pruned_channels == point.pruned_channels:
            session.progress.warn(
                f"the compact model is right for {n_right:,} images, the sweep counted {point.correct:,}: those scores "
                "are tied, or the sweep inferred them or was computed with other versions"
            )
        return run.compact, compaction


def _choose_point(run: RunDir, k: int | str | None) -> tuple[SweepPoint, str]:
    """The point to be compacted, and what its K is."""
    points = {point.k: point for point in readers.read_points(run)}
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


def _load(run: RunDir, config: Config, manifest: Manifest, session: Session) -> Materials:
    trained = run.path / f"model.{config.train.format}"
    materials = load_materials(config, str(trained) if trained.exists() else config.model.path, session)
    check_inputs(manifest, name_inputs(*materials.sources()), _REMEDY)
    if other := manifest.changed_versions(materials.device):
        session.progress.warn(f"not computed as then, so the last bits may differ: {'; '.join(other)}")
    return materials


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
    test = materials.test
    with session.progress.bar("proof", len(test), "images") as advance:
        return prove_compact(
            split,
            compact,
            plan.pruned_channels,
            test.images_nhwc,
            test.labels_n,
            materials.preprocess,
            on_block=lambda n_images: advance(n_images, ""),
        )
