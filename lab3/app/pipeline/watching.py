"""A run watched for what got worse than in an earlier one, as after each night's training."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from lab3.analysis.comparison import Paired
from lab3.app.pipeline.comparing import compare_pair, open_finished
from lab3.errors import ConfigError, Lab3Error
from lab3.record.readers import read_summary
from lab3.record.rundir import RunDir, new_run_id
from lab3.tracking import RunSettings, choose_mode, open_tracker
from lab3.tracking.artifacts import PREFIX, fetch_artifact
from lab3.tracking.events import Alert


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


def watch_run(path: Path, against: str, *, drop: float, share: float, slower: float | None) -> Watched:
    """The finished sweep at `path` held against the earlier one `against`: a folder, or the results of a run in W&B.

    Worse are: accuracy without pruning that fell by more than `drop`, and more than chance allows at the run's
    confidence; a certified share of channels that fell by more than `share`; a sweep that took more than `slower` times
    as long, on the same device. Raises as `compare_runs` does, `ConfigError` if their images are not the same, and
    `ServerError` if W&B does not give the results.
    """
    if not against.startswith(PREFIX):
        return _watch(open_finished(path), open_finished(Path(against)), drop, share, slower)
    now = open_finished(path)
    with tempfile.TemporaryDirectory() as temporary:
        folder, name = fetch_artifact(against, "results", Path(temporary))
        try:
            before = open_finished(folder)
        except Lab3Error as error:
            raise ConfigError(
                f"{against} must be the results of a sweep of this version of lab3, got {name} ({error}); give the "
                "folder of the run, or sweep it again"
            ) from error
        return _watch(now, before, drop, share, slower)


def alert_of(watched: Watched, path: Path, warn: Callable[[str], None]) -> str | None:
    """Send what got worse to W&B, as an alert of a small run of the kind `watch`; returns where it is.

    Online only. Where nothing is sent, `warn` gets the reason, and None is returned.
    """
    config, failures = open_finished(path).read_config(), list[str]()
    try:
        mode, reason = choose_mode(None, config.tracking.mode)
    except ConfigError as error:
        warn(f"no alert was sent: {error}")
        return None
    if mode != "online":
        warn(f"no alert was sent: W&B {mode}, {reason}")
        return None
    # The client may still be writing when it is given up on.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        settings = RunSettings(
            folder=Path(temporary),
            run_id=new_run_id(f"watch-{watched.run}"[:80]),
            # Not of the run's group, whose sweeps are compared.
            tracking=config.tracking.model_copy(update={"group": None}),
            job_type="watch",
            config=asdict(watched),
        )
        tracker = open_tracker(mode, settings, failures.append)
        text = f"{watched.run} against {watched.against}: {'; '.join(watched.worse)}"
        tracker.log(0, Alert("worse than the earlier run", text))
        place = tracker.close(0)
    if failures:
        warn(f"no alert was sent: {failures[0].partition(';')[0]}")
        return None
    return place


def _watch(now: RunDir, before: RunDir, drop: float, share: float, slower: float | None) -> Watched:
    compared = compare_pair(before, now)
    start = next((point for point in compared.points if point.k == 0), None)
    if start is None:
        reason = compared.reason or "one of them lacks K = 0"
        raise ConfigError(f"{now.path} cannot be held against {before.run_id}: {reason}")
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
