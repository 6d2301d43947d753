"""Bring W&B up to date with a run's folder."""

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab3.engine import SweepPoint
from lab3.errors import ServerError
from lab3.pipeline.record import tell_record, tracker_settings
from lab3.progress import Progress
from lab3.rundir import RunDir, open_run
from lab3.tracking import Asset, ChannelTable, Tracker, open_tracker, prepare_client
from lab3.tracking.remote import RemoteRun, read_remote, sync
from lab3.tracking.wandb_tracker import has_key, row_of_epoch, row_of_point
from lab3.training import Epoch

_TIMEOUT_S = 20.0
_N_READS, _PAUSE_S = 10, 2.0


@dataclass(frozen=True)
class Published:
    """What `publish_run` found and did: `n_rows` in the record, `n_sent` of them now. `differences`: what is left."""

    run_id: str
    n_rows: int
    n_sent: int
    differences: list[str]
    message: str


def publish_run(path: Path, *, check: bool = False, progress: Progress) -> Published:
    """Send what the server lacks of the run at `path`, and compare what it then shows with the folder.

    `check` only compares. Without a key, or without a server, a whole offline run is left in the folder. The run is
    locked meanwhile. Raises `RunStateError` if there is no run, `RunLockedError` if it is being worked on.
    """
    run = open_run(path)
    with run.lock():
        expected = Expected()
        tell_record(run, expected)
        n_rows = len(expected.rows)

        def published(n_sent: int, differences: list[str], message: str) -> Published:
            return Published(run.run_id, n_rows, n_sent, differences, message)

        prepare_client(run.path)
        remote, unreachable = None, "no W&B key is configured: set WANDB_API_KEY or call `wandb login`"
        if has_key():
            try:
                remote, unreachable = _read(run), ""
            except ServerError as error:
                unreachable = str(error)
        if unreachable:
            if not check:
                _build(run, run.path, 0, progress)
            left = "" if check else f"; a whole offline run is in {run.path / 'wandb'}"
            return published(0, ["not compared"], f"{unreachable}{left}")
        differences = expected.differences(remote)
        if differences and not check:
            # What came a moment ago may not be shown yet, and would be sent twice.
            remote = _read_at_rest(run, remote)
            differences = expected.differences(remote)
        if not differences:
            return published(0, [], f"up to date, {n_rows} rows")
        if check:
            return published(0, differences, "; ".join(differences))
        n_there = expected.n_rows_in(remote)
        if remote is not None and remote.n_lines > n_there:
            message = (
                f"the server has {remote.n_lines} rows of it, of which only the first {n_there} are this run's; "
                "delete the run there, copy the folder to another name and publish that"
            )
            return published(0, differences, message)
        if n_there:
            with tempfile.TemporaryDirectory(prefix="lab3-publish-") as folder:
                _build(run, Path(folder), n_there, progress)
                sync(Path(folder))
        else:
            _build(run, run.path, 0, progress)
            sync(run.path)
        differences = _differences_in_time(run, expected)
        sent = f"sent {n_rows - n_there} of {n_rows} rows"
        return published(n_rows - n_there, differences, "; ".join([sent, *differences]))


def _read(run: RunDir) -> RemoteRun | None:
    tracking = run.read_config().tracking
    return read_remote(tracking.project, tracking.entity, run.run_id, _TIMEOUT_S)


def _read_at_rest(run: RunDir, remote: RemoteRun | None) -> RemoteRun | None:
    """What the server shows when it shows the same twice."""
    for _ in range(_N_READS):
        time.sleep(_PAUSE_S)
        again = _read(run)
        if (again and again.n_lines) == (remote and remote.n_lines):
            return again
        remote = again
    return remote


def _differences_in_time(run: RunDir, expected: "Expected") -> list[str]:
    """What differs when the server has had time to show what it was sent."""
    for _ in range(_N_READS):
        differences = expected.differences(_read(run))
        if not differences:
            break
        time.sleep(_PAUSE_S)
    return differences


def _build(run: RunDir, folder: Path, n_rows_there: int, progress: Progress) -> None:
    settings = tracker_settings(run, run.read_config())
    tracker = open_tracker(
        "offline", folder, run.run_id, warn=progress.warn, is_resumed=False, n_rows_there=n_rows_there, **settings
    )
    tell_record(run, tracker)
    prepare_client(run.path)


@dataclass
class Expected:
    """A tracker that keeps what the server should show."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    media: list[frozenset[str]] = field(default_factory=list)
    artifacts: set[str] = field(default_factory=set)
    summary: Mapping[str, Any] = field(default_factory=dict)
    state: str = "finished"
    _waiting: set[str] = field(default_factory=set)

    def log_epoch(self, epoch: Epoch) -> None:
        """Expect a row."""
        self._expect(row_of_epoch(epoch))

    def log_asset(self, asset: Asset) -> None:
        """Expect an artifact."""
        self.artifacts.add(asset.name)

    def log_channels(self, table: ChannelTable) -> None:
        """Expect a table in the next row."""
        self._waiting.add("channels")

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Expect pictures in the next row."""
        self._waiting.update(figures)

    def log_point(self, point: SweepPoint) -> None:
        """Expect a row, with what waits."""
        self._expect(row_of_point(point), frozenset(self._waiting))
        self._waiting.clear()

    def alert(self, title: str, text: str) -> None:
        """Nothing that is kept."""

    def finish(self, summary: Mapping[str, Any], exit_code: int, *, is_preempted: bool = False) -> str | None:
        """Expect a summary and a state, and what still waits."""
        if self._waiting and exit_code == 0:
            self._expect({}, frozenset(self._waiting))
        self.summary, self.state = summary, "finished" if exit_code == 0 else "failed"
        return None

    def n_rows_in(self, remote: RemoteRun | None) -> int:
        """How many rows, from the first on, the server has."""
        rows = remote.rows if remote else []
        for number, (expected, media, found) in enumerate(zip(self.rows, self.media, rows, strict=False)):
            if any(found.get(name) != value for name, value in expected.items()) or not media <= set(found):
                return number
        return min(len(rows), len(self.rows))

    def differences(self, remote: RemoteRun | None) -> list[str]:
        """What the server does not show as the folder has it, in words; nothing if all is there."""
        if remote is None:
            return ["the server has no such run"]
        found = []
        n_there = self.n_rows_in(remote)
        if n_there < len(self.rows) or remote.n_lines != len(self.rows):
            found.append(f"{n_there} of {len(self.rows)} rows are there, in {remote.n_lines} lines")
        missing = sorted(self.artifacts - remote.artifacts)
        if missing:
            found.append(f"artifacts are missing: {', '.join(missing)}")
        wrong = sorted(name for name, value in self.summary.items() if remote.summary.get(name) != value)
        if wrong:
            found.append(f"the summary differs in {', '.join(wrong)}")
        if remote.state != self.state:
            found.append(f"its state is {remote.state}, not {self.state}")
        return found

    def _expect(self, row: dict[str, Any], media: frozenset[str] = frozenset()) -> None:
        self.rows.append(row)
        self.media.append(media)


def _conforms(expected: Expected) -> Tracker:
    return expected
