"""Weights & Biases as a tracker."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from lab3.pruning.engine import SweepPoint
from lab3.tracking.client import import_client, stage_below
from lab3.tracking.events import Alert, Asset, Event, RunSettings, Tracker
from lab3.tracking.offline import forget_offline_runs
from lab3.tracking.payloads import POINT_COLUMNS, convert, make_artifact, row_of, summary_of

_CONSEQUENCE = "the run goes on, `lab3 publish` brings W&B up to date"
_PREEMPTION_S = 6.0
_STOPPED = (75, 130)  # exit codes of a run that a signal stopped
_HELD_S = 0.5  # the client takes about a millisecond a row, which fast sweeps would feel
# Arguments of `wandb.init`: one is stronger than the client's environment variable, None is not.
_VARIABLES = {name: f"WANDB_{name.upper()}" for name in ("name", "project", "entity", "job_type", "notes", "tags")}
_VARIABLES |= {"group": "WANDB_RUN_GROUP"}


class WandbTracker(Tracker):
    """One W&B run below `settings.folder / "wandb"`, K as the axis of the sweep and `epoch` of training.

    Everything an offline run needs is kept there, so the folder can be moved before `wandb sync`. What W&B fails at
    goes to `warn`; once a row fails, nothing more is tried. Online without an answer for `start_timeout_s` seconds, the
    run goes on offline; at the end, what is not sent within `finish_timeout_s` seconds is left to `lab3 publish`.

    An offline run that takes the place of another has its times of start and rows; where these cannot be read, it
    starts at `started_s`. (The running time W&B's client takes itself: that of the process.)

    Rows that are there already are not sent again: those that the server had when a run is resumed online, those of
    offline runs that somebody has sent, or the first `n_rows_there`.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        settings: RunSettings,
        warn: Callable[[str], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self.mode, self._settings = mode, settings
        self._warn, self._is_stopping = warn, is_stopping
        self._has_warned = False
        self._run: Any = None
        self._held: list[tuple[int, dict[str, Any]]] = []
        self._last_sent = -_HELD_S
        self._n_rows_there = settings.n_rows_there
        self._rows_s: Mapping[int, float] = {}
        self._try("make its folder", lambda: (settings.folder / "wandb").mkdir(parents=True, exist_ok=True))
        stage_below(settings.folder)
        if mode == "online" and not self._try("start online, so tracking goes on offline", self._start):
            self.mode, self._has_warned = "offline", False
            # W&B's service otherwise says that the run's id is in use.
            import_client().teardown()
        if self.mode == "offline":
            self._try("start", self._start_offline)

    def log(self, step: int, event: Event) -> None:
        """A row of the history, a part of the summary, an artifact or an alert.

        Rows of points that come fast are held back and sent twice a second.
        """
        row, summary = row_of(event), summary_of(event)
        if row is not None and step >= self._n_rows_there:
            self._held.append((step, row))
        if isinstance(event, SweepPoint) and time.monotonic() - self._last_sent < _HELD_S:
            return
        self._send_held()
        if self._run is None:
            return
        if summary:
            self._try("log the summary", lambda: self._run.summary.update(convert(summary)))
        elif isinstance(event, Asset):
            self._try(f"log the {event.type}", lambda: self._log_asset(event))
        elif isinstance(event, Alert):
            self._try("send an alert", lambda: self._run.alert(event.title, event.text))

    def close(self, exit_code: int) -> str | None:
        """End the run; returns where it can be seen, or how to send it."""
        self._send_held()
        run = self._run

        def end() -> None:
            if exit_code in _STOPPED:
                run.mark_preempting()
            # The client's own limit stops its sending, but not what it waits for from its service.
            self._within(self._settings.tracking.finish_timeout_s + 15, lambda: run.finish(exit_code=exit_code))

        if run is None or not self._try("finish", end):
            return None
        if self.mode == "online":
            return f"W&B: {run.url}"
        return f"W&B offline run: {Path(run.dir).parent} (send it with `lab3 publish`)"

    def _start_offline(self) -> None:
        """Unfinished offline files cannot be resumed: one new run takes the place of those that nobody has sent."""
        settings, clock = self._settings, time.time
        n_sent, earlier = forget_offline_runs(settings.folder, settings.run_id, keep_sent=settings.is_resumed)
        self._n_rows_there = max(self._n_rows_there, n_sent)
        # The first time of each row, and of the start.
        self._rows_s = {row["_step"]: row["_timestamp"] for each in reversed(earlier) for row in each.rows}
        started_s = next((each.started_s for each in earlier if each.started_s), settings.started_s) or clock()
        # Beside what was sent it starts now: with the same start it would have the name of another folder.
        ago_s = 0.0 if n_sent else clock() - started_s
        # No setting says when a run started: the client asks the clock, which stands at that time meanwhile.
        with mock.patch.object(time, "time", lambda: clock() - ago_s):
            self._start()

    def _start(self) -> None:
        wandb, settings, tracking = import_client(), self._settings, self._settings.tracking
        limits: dict[str, Any] = {"finish_timeout": tracking.finish_timeout_s, "finish_timeout_raises": True}
        if not os.environ.get("WANDB_INIT_TIMEOUT"):
            limits["init_timeout"] = tracking.start_timeout_s
        values = {**tracking.model_dump(), "name": settings.run_id, "job_type": settings.job_type}
        is_resumed = settings.is_resumed and self.mode == "online"
        self._run = wandb.init(
            mode=self.mode,
            id=settings.run_id,
            dir=str(settings.folder),
            resume="allow" if is_resumed else None,
            config=dict(settings.config),
            settings=wandb.Settings(console="off", silent=True, **limits),
            **{name: None if os.environ.get(_VARIABLES[name]) else values[name] or None for name in _VARIABLES},
        )
        if is_resumed:
            self._n_rows_there = self._run.starting_step
        # Not "*": W&B would then write a K into the rows of training and of media too.
        axes = {
            "K": None,
            "epoch": None,
            "train/*": "epoch",
            "plan": None,
            "frontier/*": "plan",
            **dict.fromkeys(POINT_COLUMNS, "K"),
        }
        for name, axis in axes.items():
            self._run.define_metric(name, step_metric=axis)

    def _send_held(self) -> None:
        held, self._held, self._last_sent = self._held, [], time.monotonic()

        def send() -> None:
            for step, row in held:
                time_s = {"_timestamp": self._rows_s[step]} if step in self._rows_s else {}
                self._run.log({**convert(row), **time_s}, step=step)

        if self._run is not None and not self._try("log", send):
            self._run = None

    def _log_asset(self, asset: Asset) -> None:
        """An artifact; what the run was made from is used by it where online, and logged by it offline.

        What came from W&B is there already: offline, linking with it is left to `lab3 publish`.
        """
        artifact = asset.artifact or make_artifact(asset)
        if asset.role == "input" and self.mode == "online":
            # It waits for the server's answer.
            self._within(self._settings.tracking.start_timeout_s, lambda: self._run.use_artifact(artifact))
        elif asset.artifact is None:
            is_trained = (asset.role, asset.type) == ("output", "model")
            self._run.log_artifact(artifact, aliases=["latest", *(["best"] if is_trained else [])])

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

    def _try(self, what: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            # W&B raises errors of many libraries; none of them may end a sweep whose record is elsewhere.
            if not self._has_warned:
                self._warn(f"W&B could not {what} ({type(error).__name__}: {error}); {_CONSEQUENCE}")
            self._has_warned = True
            return False
        return True
