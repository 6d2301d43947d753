"""Weights & Biases as a tracker."""

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from lab3.engine import SweepPoint
from lab3.errors import ConfigError
from lab3.tracking.client import import_client
from lab3.tracking.offline import forget_offline_runs
from lab3.tracking.payloads import make_artifact, make_table, row_of_epoch, row_of_point
from lab3.tracking.tracker import Asset, ChannelTable, Tracker
from lab3.training import Epoch

_GOES_ON = "the run goes on, its folder has everything"
_LATER = "`lab3 publish` brings W&B up to date"
_PREEMPTION_S = 6.0
_HELD_S = 0.5  # the client takes about a millisecond a row, which fast sweeps would feel
# Not "*": W&B would then write a K into the rows of training and of media too.
_SWEEP_METRICS = (
    "n_pruned",
    "correct",
    "accuracy",
    "loss",
    "top5_accuracy",
    "n_changed",
    "loss_estimate",
    "loss_se",
    "n_inferred",
    "n_audited",
)


def has_key() -> bool:
    """True if W&B's client would find credentials for its server: in the environment or in netrc."""
    wandb = import_client()
    # The client's own reader knows its server's earlier host names, under which older keys are stored.
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth

    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    try:
        return read_netrc_auth(host=wandb.setup().settings.base_url) is not None
    except Exception as error:
        # A damaged netrc or address gives errors of several libraries; their texts may quote the key.
        raise ConfigError(
            f"W&B's settings cannot be read ({type(error).__name__}); look at WANDB_BASE_URL and ~/.netrc, "
            "or use --mode offline"
        ) from error


class WandbTracker(Tracker):
    """One W&B run below `folder/wandb`, K as the axis of the sweep and `epoch` of training.

    Everything an offline run needs is kept there, so the folder can be moved before `wandb sync`. The first failure of
    W&B is told to `warn`, and nothing more is tried. Project, entity, group, notes and tags from W&B's own environment
    variables are stronger than the arguments. Online without an answer for `start_timeout_s` seconds, the run goes on
    offline; at the end, what is not sent within `finish_timeout_s` seconds is left to `lab3 publish`.

    An offline run that takes the place of another has its times of start and rows; where these cannot be read, it
    starts at `started_s`. (The running time W&B's client takes itself: that of the process.)

    A row's number is W&B's step. Rows that are there already are not sent again: those that the server had when a run
    is resumed online, or the first `n_rows_there`.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        folder: Path,
        run_id: str,
        *,
        warn: Callable[[str], None],
        is_stopping: Callable[[], bool] = lambda: False,
        is_resumed: bool = False,
        n_rows_there: int = 0,
        started_s: float | None = None,
        start_timeout_s: float = 30.0,
        finish_timeout_s: float = 60.0,
        project: str = "lab3",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._warn, self._is_stopping = warn, is_stopping
        self._warned: set[str] = set()
        self._waiting: dict[str, Any] = {}
        self._held: list[dict[str, Any]] = []
        self._last_sent = -_HELD_S
        self._run: Any = None
        self._n_told, self._n_rows_there = 0, n_rows_there
        self._rows_s: Mapping[int, float] = {}
        self._start_timeout_s, self._finish_timeout_s = start_timeout_s, finish_timeout_s
        # Staged files otherwise lie in the home folder, and an offline run moved elsewhere loses them.
        self._try("make its folder", _GOES_ON, lambda: (folder / "wandb").mkdir(parents=True, exist_ok=True))
        os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").absolute())
        self._limits = {"finish_timeout": finish_timeout_s, "finish_timeout_raises": True}
        if not os.environ.get("WANDB_INIT_TIMEOUT"):
            self._limits["init_timeout"] = start_timeout_s
        settings = {
            "id": run_id,
            "name": None if os.environ.get("WANDB_NAME") else run_id,
            "dir": str(folder),
            "resume": "allow" if is_resumed and mode == "online" else None,
            **_choices(project=project, entity=entity, group=group, job_type=job_type, notes=notes, tags=tags),
            "config": dict(config or {}),
        }
        self.mode: Literal["online", "offline"] = mode
        if mode == "online" and not self._try(
            "start online", f"tracking goes on offline, {_LATER}", lambda: self._start(settings)
        ):
            self.mode = "offline"
            # W&B's service otherwise says that the run's id is in use.
            import_client().teardown()
        if self.mode == "offline":
            # Unfinished offline files cannot be resumed; one fresh, complete run takes the place of those not sent.
            settings["resume"] = None
            self._try("start", _GOES_ON, lambda: self._start_afresh(folder, settings, is_resumed, started_s))

    def log_epoch(self, epoch: Epoch) -> None:
        """One history row `epoch, train/...`."""
        self._log(row_of_epoch(epoch))

    def log_asset(self, asset: Asset) -> None:
        """An artifact; what the run was made from is used by it where online, and logged by it offline.

        What came from W&B is there already: offline, linking with it is left to `lab3 publish`.
        """

        def log() -> None:
            artifact = asset.artifact or make_artifact(asset)
            if asset.role == "input" and self.mode == "online":
                # It waits for the server's answer.
                self._within(self._start_timeout_s, lambda: self._run.use_artifact(artifact))
            else:
                self._run.log_artifact(artifact, aliases=list(asset.aliases))

        if self._run is not None and not (asset.artifact and self.mode == "offline"):
            self._try(f"log the {asset.type}", _LATER, log)

    def log_channels(self, table: ChannelTable) -> None:
        """The table `channels` of the summary, with each channel's mean feature map as an image."""
        # In a row of the history its numbers of rows and columns would be metrics, with a chart each.
        self._when_running("log the channel table", lambda: self._run.summary.update({"channels": make_table(table)}))

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Images by name, with the next media."""

        def wait() -> None:
            import wandb

            self._waiting.update({name: wandb.Image(str(path)) for name, path in figures.items()})

        self._when_running("log figures", wait)

    def log_media(self) -> None:
        """One history row of what waits; sending it takes long compared with a point."""
        self._send_held()
        if self._waiting:
            self._log(self._waiting)
            self._waiting = {}

    def log_point(self, point: SweepPoint) -> None:
        """One history row, `K` and the point's metrics; rows that come fast are held back and sent twice a second."""
        self._held.append(row_of_point(point))
        if time.monotonic() - self._last_sent >= _HELD_S:
            self._send_held()

    def alert(self, title: str, text: str) -> None:
        """A W&B alert."""
        self._send_held()
        if self._run is not None:
            self._try("send an alert", _GOES_ON, lambda: self._run.alert(title, text))

    def finish(self, summary: Mapping[str, Any], exit_code: int, *, is_preempted: bool = False) -> str | None:
        """Write the summary and end the run; returns where it can be seen, or how to send it."""
        self._send_held()
        if self._run is None:
            return None
        run = self._run
        if exit_code == 0:
            # The curves of a run that only trains.
            self.log_media()

        def end() -> None:
            run.summary.update(dict(summary))
            if is_preempted:
                run.mark_preempting()
            # The client's own limit stops its sending, but not what it waits for from its service.
            self._within(self._finish_timeout_s + 15, lambda: run.finish(exit_code=exit_code))

        if not self._try("finish", _LATER, end):
            return None
        if self.mode == "online":
            return f"W&B: {run.url}"
        return f"W&B offline run: {Path(run.dir).parent} (send it with `lab3 publish`)"

    def _start_afresh(self, folder: Path, settings: dict[str, Any], is_resumed: bool, started_s: float | None) -> None:
        # Of a run that is resumed, what somebody has sent meanwhile would come twice.
        n_rows_there, times = forget_offline_runs(folder, settings["id"], keep_sent=is_resumed)
        self._n_rows_there, self._rows_s = max(self._n_rows_there, n_rows_there), times.rows_s
        clock = time.time
        # Beside what was sent it is a part that starts now: another with that start would be another folder's namesake.
        ago_s = 0.0 if n_rows_there else clock() - (times.started_s or started_s or clock())
        # No setting says when a run started: the client asks the clock, which stands at that time meanwhile.
        with mock.patch.object(time, "time", lambda: clock() - ago_s):
            self._start(settings)

    def _start(self, settings: dict[str, Any]) -> None:
        wandb = import_client()
        quiet = wandb.Settings(console="off", silent=True, **self._limits)
        self._run = wandb.init(mode=self.mode, settings=quiet, **settings)
        if settings["resume"]:
            self._n_rows_there = self._run.starting_step
        self._run.define_metric("K")
        self._run.define_metric("epoch")
        self._run.define_metric("train/*", step_metric="epoch")
        for name in _SWEEP_METRICS:
            self._run.define_metric(name, step_metric="K")

    def _send_held(self) -> None:
        for row in self._held:
            self._log(row)
        self._held, self._last_sent = [], time.monotonic()

    def _log(self, row: Mapping[str, Any]) -> None:
        number, self._n_told = self._n_told, self._n_told + 1
        if number >= self._n_rows_there:
            told = {**row, "_timestamp": self._rows_s[number]} if number in self._rows_s else dict(row)
            self._when_running("log", lambda: self._run.log(told, step=number))

    def _when_running(self, what: str, action: Callable[[], None]) -> None:
        if self._run is not None and not self._try(what, _GOES_ON, action):
            self._run = None

    def _within(self, limit_s: float, action: Callable[[], None]) -> None:
        """Do it in a thread, and raise `TimeoutError` if it is not done in time; the thread is left alone."""
        errors: list[Exception] = []

        def work() -> None:
            try:
                action()
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        start, waited_s = time.monotonic(), 0.0
        while thread.is_alive() and waited_s < (min(limit_s, _PREEMPTION_S) if self._is_stopping() else limit_s):
            thread.join(0.1)
            waited_s = time.monotonic() - start
        if thread.is_alive():
            raise TimeoutError(f"no answer for {waited_s:.0f} s")
        if errors:
            raise errors[0]

    def _try(self, what: str, consequence: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            # W&B raises errors of many libraries; none of them may end a sweep whose record is elsewhere.
            if consequence not in self._warned:
                self._warn(f"W&B could not {what} ({type(error).__name__}: {error}); {consequence}")
            self._warned.add(consequence)
            return False
        return True


def _choices(**choices: Any) -> dict[str, Any]:
    """Arguments of `wandb.init`: one is stronger than W&B's environment variable of that name, None is not."""
    variables = {"group": "WANDB_RUN_GROUP"}
    return {
        name: None if os.environ.get(variables.get(name, f"WANDB_{name.upper()}")) else value or None
        for name, value in choices.items()
    }
