"""Write the compact model of a finished sweep, with the proof that it is the masked one."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lab3
from lab3.app.pipeline.checks import check_files, check_inputs, check_same_settings, sweep_header
from lab3.app.pipeline.materials import Materials, load_materials
from lab3.app.pipeline.session import Session
from lab3.base.backend import to_numpy
from lab3.base.files import fsync_folder, sha256_file, write_atomically
from lab3.base.graph import flatten_model
from lab3.base.reading import reading
from lab3.config import Config
from lab3.errors import ConfigError, ModelError, UnfinishedError
from lab3.inputs.model_files import load_model, save_model
from lab3.pruning.compact import (
    Plan,
    Proof,
    build_compact,
    compare_speed,
    measure_cost,
    plan_compaction,
    prove_compact,
    round_width,
)
from lab3.pruning.engine import SweepPoint
from lab3.pruning.split import Split, split_model
from lab3.record import readers
from lab3.record.compaction import PROOF_JSON, Compaction, Measures
from lab3.record.journal import check_header, read_lines
from lab3.record.manifest import Manifest, current_versions, name_inputs, now
from lab3.record.rundir import RunDir, open_run

_REMEDY = "put the file back, or say where it is in config.yaml"
_BATCH_SIZES, _TIMING_S = (1, 256), 5.0


@dataclass(frozen=True)
class _Choice:
    """What is compacted: a point of the sweep, and the plan for it."""

    point: SweepPoint
    chosen_by: str
    plan: Plan
    rounding: str | None


def compact_run(
    path: Path, session: Session, *, k: int | str | None = None, round_to: int | None = None
) -> tuple[Path, Compaction]:
    """Write `compact/` of the finished sweep at `path`; returns that folder and what its `proof.json` says.

    `k`: a K of the sweep, `certified` (as None is) or `observed`. `round_to`: keep
    channels until the layer's width is a multiple of it. Raises `UnfinishedError` or `ConfigError` for a run or a K
    that has no compact model, `RunStateError` if model or data are not those of the run, and `ModelError` where the
    channels cannot be taken out exactly, or where the compact model is not the masked one: then nothing is written.
    """
    run = open_run(path)
    with run.lock():
        if not run.is_finished:
            raise UnfinishedError(
                f"only a finished run can be compacted, {path} is not; go on with `lab3 resume {path}`"
            )
        config, manifest = run.read_config(), run.read_manifest()
        if manifest.kind == "train":
            raise ConfigError(f"{path} only trained a network; sweep its model file, and compact that run")
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
        return run.compact, _write(run, manifest, materials, split, _Choice(point, chosen_by, plan, rounding), session)


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


def _write(
    run: RunDir, manifest: Manifest, materials: Materials, split: Split, choice: _Choice, session: Session
) -> Compaction:
    """Build, save, prove and measure in a hidden folder, which then takes the place of `compact/`."""
    plan = choice.plan
    compact = build_compact(plan)
    with tempfile.TemporaryDirectory(prefix=".compact-", dir=run.path) as temporary:
        folder = Path(temporary) / run.compact.name
        folder.mkdir()
        written = _save(compact, folder, manifest)
        proof = _prove(split, written, plan, materials, session)
        save_model(materials.model, Path(temporary) / "before.keras")
        files = (Path(temporary) / "before.keras", folder / "model.keras")
        widths = (split.n_channels, plan.n_channels)
        before, after = _measure((materials.model, written), widths, files, materials, session)
        compaction = Compaction(
            run_id=run.run_id,
            created_at=now(),
            lab3=lab3.__version__,
            versions=current_versions(),
            device=materials.device,
            model=str(manifest.model.sha256),
            data=manifest.data.test,
            layer=split.layer_name,
            effect=split.anatomy.effect,
            k=choice.point.k,
            chosen_by=choice.chosen_by,
            pruned_channels=plan.pruned_channels,
            constant_channels=plan.constant_channels,
            rounding=choice.rounding,
            proof=proof,
            before=before,
            after=after,
            files={path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        )
        write_atomically(folder / PROOF_JSON, compaction.encode())
        if run.compact.exists():
            run.compact.rename(Path(temporary) / "earlier")
        folder.rename(run.compact)
        fsync_folder(run.path)
    if proof.correct != choice.point.correct and plan.pruned_channels == choice.point.pruned_channels:
        session.progress.warn(
            f"the compact model is right for {proof.correct:,} images, the sweep counted {choice.point.correct:,}: "
            "those scores are tied, or the sweep inferred them or was computed with other versions"
        )
    return compaction


def _save(compact: Any, folder: Path, manifest: Manifest) -> Any:
    """Write both files; returns the model that the `.keras` file holds. Raises `ModelError` if one holds another."""
    weights = compact.get_weights()
    loaded = []
    for ending in ("keras", "h5"):
        path = folder / f"model.{ending}"
        save_model(compact, path)
        loaded.append(load_model(path, allow_classes=manifest.config["model"]["allow_classes"]))
        if not all(np.array_equal(*pair) for pair in zip(weights, loaded[-1].get_weights(), strict=True)):
            raise ModelError(f"{path.name} must hold the weights that were written, got others; please report it")
    return loaded[0]


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


def _measure(
    models: tuple[Any, Any],
    n_channels: tuple[int, int],
    files: tuple[Path, Path],
    materials: Materials,
    session: Session,
) -> list[Measures]:
    """The measures of both models, saved the same way, side by side on the same images."""
    images_nhwc = materials.test.images_nhwc
    speeds = []
    for size in _BATCH_SIZES:
        session.progress.say(f"timing batches of {size}")
        block = materials.preprocess(images_nhwc[np.arange(size) % len(images_nhwc)])
        inputs = flatten_model(models[0]).feed(block)
        speeds.append(
            compare_speed(models, to_numpy(inputs), budget_s=_TIMING_S, on_round=session.progress.stop_if_asked)
        )
    costs = [measure_cost(model, inputs.shape[1:]) for model in models]
    return [
        Measures(
            n_channels=n,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            peak_activation_bytes=cost.peak_activation_bytes,
            file_bytes=file.stat().st_size,
            speeds=tuple(speed),
        )
        for n, cost, file, speed in zip(n_channels, costs, files, zip(*speeds, strict=True), strict=True)
    ]
