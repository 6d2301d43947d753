"""Finished sweeps held against each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab3.analysis.comparison import Paired, compare_sweeps
from lab3.base.reading import differences
from lab3.errors import ConfigError, UnfinishedError
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir, open_run
from lab3.views.figures import plot_comparison, save_figure


@dataclass(frozen=True)
class Compared:
    """Two runs: `settings` that differ, in words, and all common K, or the `reason` why images are not compared."""

    first: str
    second: str
    settings: tuple[str, ...]
    points: tuple[Paired, ...]
    reason: str | None


def compare_runs(paths: Sequence[Path]) -> list[Compared]:
    """Each of the finished sweeps at `paths` but the first, against the first.

    Raises `RunStateError` where there is no run, `UnfinishedError` or `ConfigError` where it is no finished sweep.
    """
    first, *others = map(open_finished, paths)
    return [compare_pair(first, other) for other in others]


def draw_runs(paths: Sequence[Path], picture: Path) -> None:
    """The curves of the sweeps in one figure; the ending of `picture` says which kind of file."""
    if picture.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--figure must end in .png, .svg or .pdf, got {picture.name}")
    curves = {}
    for path in paths:
        run = open_finished(path)
        n_channels = read_summary(run)["n_channels"]
        curves[run.run_id] = [(point.n_pruned / n_channels, point.accuracy) for point in read_points(run)]
    save_figure(plot_comparison(curves, "Accuracy as channels are pruned"), picture)


def open_finished(path: Path) -> RunDir:
    """The finished sweep at `path`. Raises as `compare_runs` does."""
    run = open_run(path)
    if not run.is_finished:
        raise UnfinishedError(f"only finished runs are compared, {path} is not; go on with `lab3 resume {path}`")
    if (kind := run.read_manifest().kind) != "sweep":
        raise ConfigError(f"runs that are compared must be sweeps, {path} is of the kind {kind}; leave it out")
    return run


def compare_pair(first: RunDir, second: RunDir) -> Compared:
    """The second against the first."""
    manifests, points = [run.read_manifest() for run in (first, second)], [read_points(run) for run in (first, second)]
    then, now = (
        {
            "model": manifest.model.sha256,
            "data": manifest.data.test.sha256,
            **manifest.config,
            "device": manifest.device,
        }
        for manifest in manifests
    )
    settings, reason = differences(then, now), None
    if manifests[0].data.test.sha256 != manifests[1].data.test.sha256:
        reason = "their test images are not the same"
    elif any(each[0].is_inferred for each in points):
        reason = "predictions of one were inferred"
    confidence = first.read_config().sweep.confidence
    paired = () if reason else tuple(compare_sweeps(points[0], points[1], confidence))
    if not reason and not paired:
        reason = "they have no K in common"
    return Compared(first.run_id, second.run_id, tuple(settings), paired, reason)
