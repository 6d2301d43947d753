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
    first, *others = map(_open, paths)
    return [_compare(first, other) for other in others]


@dataclass(frozen=True)
class Watched:
    """A run held against an earlier one. `worse`: what got worse by more than may be, in words; empty if nothing did.

    `seconds`: of the sweeps, the earlier one first.
    """

    run: str
    against: str
    baseline: Paired
    certified_share: tuple[float, float]
    seconds: tuple[float | None, float | None]
    worse: tuple[str, ...]


def watch_run(path: Path, against: Path, *, drop: float, share: float, slower: float | None) -> Watched:
    """The finished sweep at `path` held against the earlier one `against`.

    Worse are: accuracy without pruning that fell by more than `drop`, and more than chance allows at the run's
    confidence; a certified share of channels that fell by more than `share`; a sweep that took more than `slower` times
    as long, on the same device. Raises as `compare_runs` does, and `ConfigError` if their images are not the same.
    """
    before, now = _open(against), _open(path)
    compared = _compare(before, now)
    start = next((point for point in compared.points if point.k == 0), None)
    if start is None:
        reason = compared.reason or "one of them lacks K = 0"
        raise ConfigError(f"{path} cannot be held against {against}: {reason}")
    worse = []
    confidence = now.read_config().sweep.confidence
    if -start.difference > drop and start.p < 1 - confidence:
        worse.append(
            f"accuracy fell from {start.first:.4f} to {start.second:.4f} ({start.only_first:,} images lost, "
            f"{start.only_second:,} gained, p = {start.p:.3g})"
        )
    earlier, later = (float(read_summary(run)["certified"]["share"]) for run in (before, now))
    if earlier - later > share:
        worse.append(f"the certified share of channels fell from {earlier:.1%} to {later:.1%}")
    manifests = [run.read_manifest() for run in (before, now)]
    then_s, now_s = ((manifest.elapsed_s or {}).get("sweep_s") for manifest in manifests)
    same_device = manifests[0].device == manifests[1].device
    if slower is not None and same_device and then_s and now_s and now_s > slower * then_s:
        worse.append(f"the sweep took {now_s:.1f} s, earlier {then_s:.1f} s")
    return Watched(now.run_id, before.run_id, start, (earlier, later), (then_s, now_s), tuple(worse))


def draw_runs(paths: Sequence[Path], picture: Path) -> None:
    """The curves of the sweeps in one figure; the ending of `picture` says which kind of file."""
    if picture.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"--figure must end in .png, .svg or .pdf, got {picture.name}")
    curves = {}
    for path in paths:
        run = _open(path)
        n_channels = read_summary(run)["n_channels"]
        curves[run.run_id] = [(point.n_pruned / n_channels, point.accuracy) for point in read_points(run)]
    save_figure(plot_comparison(curves, "Accuracy as channels are pruned"), picture)


def _open(path: Path) -> RunDir:
    run = open_run(path)
    if not run.is_finished:
        raise UnfinishedError(f"only finished runs are compared, {path} is not; go on with `lab3 resume {path}`")
    if (kind := run.read_manifest().kind) != "sweep":
        raise ConfigError(f"runs that are compared must be sweeps, {path} is of the kind {kind}; leave it out")
    return run


def _compare(first: RunDir, second: RunDir) -> Compared:
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
