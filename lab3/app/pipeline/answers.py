"""What a run's points say of how many channels can be pruned, by its settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from lab3.analysis.certificate import (
    Certificate,
    Evidence,
    certify,
    certify_together,
    error_of_each,
    find_obstacle,
    find_shortage,
)
from lab3.config import Config
from lab3.pruning.engine import SweepPoint
from lab3.pruning.rank import PruneStep
from lab3.pruning.schedule import parse_schedule
from lab3.record.readers import read_class_names, read_points, read_summary
from lab3.record.rundir import RunDir

_WITH_TRAINING_SPLIT = ("digits", "cifar10")


def has_training_images(config: Config) -> bool:
    """True if the data has training images beside those that accuracy is measured on."""
    return config.data.train is not None or config.data.test in _WITH_TRAINING_SPLIT


def scores_on_training_images(config: Config) -> bool:
    """True if channels are scored on training images, False if on those that accuracy is measured on."""
    return config.prune.score_on == "train" or (config.prune.score_on == "auto" and has_training_images(config))


def _obstacle(config: Config) -> str | None:
    """Why a run with these settings can certify nothing; None if it can."""
    return find_obstacle(
        config.prune.criterion,
        scored_on_these=not scores_on_training_images(config),
        infers=config.sweep.shortcut == "inferred",
    )


def ranked_by_test_labels(config: Config) -> str | None:
    """Why nothing can be certified of channels that such a run ranked, whatever is done with them; None if it can."""
    return find_obstacle(config.prune.criterion, scored_on_these=not scores_on_training_images(config), infers=False)


def gather_evidence(
    config: Config, points: Sequence[SweepPoint], layer_name: str, n_channels: int, class_names: Sequence[str]
) -> Evidence:
    """A run's points for its certificate."""
    return Evidence(points, layer_name, n_channels, config.prune.effect, class_names, _obstacle(config))


def certify_run(config: Config, evidence: Evidence) -> Certificate:
    """The run's certificate by its settings."""
    sweep = config.sweep
    return certify(evidence, sweep.tolerance, sweep.confidence, sweep.n_compared)


def why_nothing(config: Config, n_images: int) -> str | None:
    """Why a run with these settings can certify nothing on so many images, whatever it counts; None if it can."""
    sweep = config.sweep
    alpha = error_of_each(sweep.confidence, sweep.n_compared)
    return _obstacle(config) or find_shortage(n_images, sweep.tolerance, alpha)


def due_steps(config: Config, steps: Sequence[PruneStep], points: Sequence[SweepPoint]) -> Sequence[PruneStep]:
    """The steps that a run must have, by its points so far: all, or up to the first K that cannot be certified."""
    if config.sweep.until == "all" or not points:
        return steps
    unnamed = [""] * len(points[0].class_total)
    failed_k = certify_run(config, gather_evidence(config, points, "", 1, unnamed)).failed_k
    return [step for step in steps if failed_k is None or step.k <= failed_k]


def read_evidence(run: RunDir, points: Sequence[SweepPoint]) -> Evidence:
    """The points of a finished run for its certificate, with the names that its folder has."""
    config, summary, names = run.read_config(), read_summary(run), read_class_names(run)
    evidence = gather_evidence(config, points, summary["layer"], summary["n_channels"], names)
    last_k = parse_schedule(config.sweep.schedule, evidence.n_channels)[-1]
    return replace(evidence, is_whole=points[-1].k == last_k)


def certify_runs(runs: Mapping[str, RunDir]) -> dict[str, Certificate]:
    """The certificates of a group's finished runs, all of which hold at once."""
    sweep = next(iter(runs.values())).read_config().sweep
    evidence = {label: read_evidence(run, read_points(run)) for label, run in runs.items()}
    return certify_together(evidence, sweep.tolerance, sweep.confidence, sweep.n_compared)
