"""What a run must be: settings, files and versions it was started with; points its sweep can have."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab3.analysis.flips import are_consistent
from lab3.app.pipeline.answers import due_steps
from lab3.base.files import sha256_file
from lab3.base.progress import Progress
from lab3.base.reading import differences, flatten
from lab3.config import Config
from lab3.errors import RunStateError
from lab3.pruning.engine import SweepPoint, is_about_chance
from lab3.pruning.rank import PruneStep
from lab3.record.manifest import Manifest, name_inputs
from lab3.record.rundir import RunDir

# Results do not depend on these: what the network may weigh, what is computed at a time.
_FREE = {
    "name", "model.sha256", "model.allow_classes", "data.test_sha256", "data.train_sha256", "sweep.batch_size",
    "sweep.capture_batch_size", "sweep.cache_mb",
}  # fmt: skip
_PLACES = {"model.path", "data.test", "data.train"}


def check_same_settings(run: RunDir, manifest: Manifest, config: Config, *, has_places: bool = False) -> None:
    """Raise `RunStateError` if `config` would give other results than the configuration the run was started with.

    Where files are is compared only with `has_places`: their hashes are compared in any case.
    """
    now = config.model_dump(mode="json")
    free = _FREE if has_places else _FREE | _PLACES
    free = free | {name for name, value in flatten(now).items() if str(value).startswith("wandb://")}
    if manifest.kind != "compress":
        free = free | {name for name in flatten(now) if name.startswith("compress.")}

    def binding(settings: Mapping[str, Any]) -> dict[str, Any]:
        named = flatten(settings).items()
        return {name: value for name, value in named if name not in free and not name.startswith("tracking.")}

    if changed := differences(binding(manifest.config), binding(now)):
        raise RunStateError(
            f"run {run.path} was started with other settings: {'; '.join(changed)}; put them back, or start a new run"
        )


def check_same_versions(run: RunDir, manifest: Manifest, device: str) -> None:
    """Raise `RunStateError` if other versions would go on with the run than started it."""
    if changed := manifest.changed_versions(device):
        raise RunStateError(
            f"run {run.path} was started with other versions, and its points would not be comparable: "
            f"{'; '.join(changed)}; install those, or start over beside it with `lab3 resume {run.path} --new`"
        )


def input_files(run: RunDir, config: Config, manifest: Manifest) -> dict[str, Path]:
    """Where the files that the run's numbers come from should be, by the names that `name_inputs` gives."""
    places = {
        "model": config.model.path or run.path / f"model.{config.train.format}",
        "test data": config.data.test,
        "training data": config.data.train or config.data.test,
    }
    recorded = {what for what, (_, sha256) in name_inputs(manifest.model, manifest.data).items() if sha256}
    named = {what: place for what, place in places.items() if what in recorded and place not in ("digits", "cifar10")}
    return {what: Path(place) for what, place in named.items()}


def check_inputs(manifest: Manifest, found: Mapping[str, tuple[object, str | None]], remedy: str) -> None:
    """Raise `RunStateError` if one of `found`, as `name_inputs` has them, is not what the run was started with."""
    for what, (_, recorded) in name_inputs(manifest.model, manifest.data).items():
        place, now = found.get(what, (None, recorded))
        if recorded not in (None, now):
            raise RunStateError(
                f"the {what} must be what the run was started with (SHA-256 {recorded}), got {now} in {place}; {remedy}"
            )


def check_files(run: RunDir, config: Config, manifest: Manifest, remedy: str) -> None:
    """As `check_inputs`, before a changed file fails in some other way; what is missing is reported later."""
    files = input_files(run, config, manifest).items()
    # Training data may not be needed any more.
    found = {what: (path, sha256_file(path)) for what, path in files if path.is_file() and what != "training data"}
    check_inputs(manifest, found, remedy)


def sweep_header(run: RunDir, manifest: Manifest) -> dict[str, Any]:
    """The header of `journal.jsonl`: all that its points depend on, ranking through the files that it is made from."""
    ranked_by = {"capture": run.capture_npz, "scores": run.scores_csv}
    hashes = {name: sha256_file(path) if path.exists() else None for name, path in ranked_by.items()}
    return {**manifest.identity(), **hashes}


def check_points(
    config: Config,
    points: Sequence[SweepPoint],
    steps: Sequence[PruneStep],
    *,
    n_images: int,
    n_labels: int,
    is_finished: bool = False,
) -> tuple[Sequence[PruneStep], list[str]]:
    """The steps that a run with these points must have, and what of its points it cannot have."""
    about = (n_images, n_labels, config.sweep.shortcut == "inferred")
    if config.sweep.until == "all":
        return steps, _problems_of_points(points, steps, *about, is_finished)
    if problems := _problems_of_points(points, steps, *about, False):
        return steps, problems
    due = due_steps(config, steps, points)
    return due, _problems_of_points(points, due, *about, is_finished)


def _problems_of_points(
    points: Sequence[SweepPoint],
    steps: Sequence[PruneStep],
    n_images: int,
    n_labels: int,
    infers: bool,
    is_finished: bool,
) -> list[str]:
    """What of a journal's points a sweep of `steps` cannot have, as `K=3 must be there once`."""
    pruned = {step.k: step.pruned_channels for step in steps}
    missing = pruned.keys() - {point.k for point in points} if is_finished else set()
    problems = [f"K={k} must be there" for k in sorted(missing)]
    seen: set[int] = set()
    for point in points:
        by_class = (point.class_correct, point.class_total, point.class_lost, point.class_gained)
        rules = {
            "be of the schedule": point.k in pruned,
            "be there once": point.k not in seen,
            "have the channels pruned that the ranking gives": point.pruned_channels == pruned.get(point.k),
            f"be of {n_images} images": point.total == sum(point.class_total) == n_images,
            "be right for as many images as its classes": point.correct == sum(point.class_correct) <= point.total,
            "say what was inferred only where the run infers": point.is_inferred == infers,
            f"have {n_labels} classes": set(map(len, by_class)) == {n_labels},
            "name images that are there": max((*point.turned_wrong, *point.turned_right), default=0) < n_images,
            "have a confusion matrix of its classes": point.confusion is None
            or {len(point.confusion), *map(len, point.confusion)} == {n_labels},
        }
        problems += [f"K={point.k} must {rule}" for rule, is_kept in rules.items() if not is_kept]
        seen.add(point.k)
    if points and not problems:
        fits = zip(points, are_consistent(points), strict=True)
        problems = [f"K={point.k} must have the counts that its turned images give" for point, fit in fits if not fit]
    return problems


def warn_about_chance(progress: Progress, accuracy: float, n_labels: int) -> None:
    """Warn if the unpruned network is no better than guessing."""
    if is_about_chance(accuracy, n_labels):
        progress.warn(
            f"the baseline accuracy is {accuracy:.4f}, about chance for {n_labels} classes: "
            "check data.scale, data.mean, data.std and the order of the classes"
        )
