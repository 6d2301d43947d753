"""Weights & Biases as a tracker. The only module that imports wandb."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from lab3.engine import SweepPoint
from lab3.tracking.tracker import ChannelTable, Tracker
from lab3.training import Epoch

_GOES_ON = "the run goes on, its folder has everything"


def has_key() -> bool:
    """True if W&B's client would find credentials for its server: in the environment or in netrc."""
    import wandb

    # The client's own reader knows its server's earlier host names, under which older keys are stored.
    from wandb.sdk.lib.wbauth.wbnetrc import read_netrc_auth

    if any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")):
        return True
    return read_netrc_auth(host=wandb.setup().settings.base_url) is not None


class WandbTracker:
    """One W&B run below `folder/wandb`, K as the axis of the sweep and `epoch` of training.

    Everything an offline run needs is kept there, so the folder can be moved before `wandb sync`. The first failure of
    W&B is told to `warn`, and nothing more is tried. Project, entity, group, notes and tags from W&B's own environment
    variables are stronger than the arguments. Online without an answer, the run goes on offline.
    """

    def __init__(
        self,
        mode: Literal["online", "offline"],
        folder: Path,
        run_id: str,
        *,
        warn: Callable[[str], None],
        is_resumed: bool = False,
        project: str = "lab3",
        entity: str | None = None,
        group: str | None = None,
        job_type: str | None = None,
        notes: str | None = None,
        tags: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self._warn = warn
        self._waiting: dict[str, Any] = {}
        self._run: Any = None
        # Staged table images otherwise lie in the home folder, and an offline run moved elsewhere loses them.
        (folder / "wandb").mkdir(exist_ok=True)
        os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").absolute())
        settings = {
            "id": run_id,
            "name": run_id,
            "dir": str(folder),
            "resume": "allow" if is_resumed and mode == "online" else None,
            # An argument is stronger than W&B's environment variables, None is not.
            "project": None if os.environ.get("WANDB_PROJECT") else project,
            "entity": None if os.environ.get("WANDB_ENTITY") else entity,
            "group": None if os.environ.get("WANDB_RUN_GROUP") else group,
            "job_type": None if os.environ.get("WANDB_JOB_TYPE") else job_type,
            "notes": None if os.environ.get("WANDB_NOTES") else notes,
            "tags": None if os.environ.get("WANDB_TAGS") else list(tags) or None,
            "config": dict(config or {}),
        }
        self.mode: Literal["online", "offline"] = mode
        if mode == "online" and not self._try(
            "start online", "tracking goes on offline", lambda: self._start(settings)
        ):
            self.mode = "offline"
            self._forget_failed_start()
        if self.mode == "offline":
            # Unfinished offline files cannot be resumed; one fresh, complete run takes their place.
            for earlier in (folder / "wandb").glob("offline-run-*"):
                shutil.rmtree(earlier)
            self._try("start", _GOES_ON, lambda: self._start(settings))
        self.wants_all_points = self.mode == "offline"

    def log_epoch(self, epoch: Epoch) -> None:
        """One history row `epoch, train/...`."""
        values = {f"train/{name}": value for name, value in asdict(epoch).items() if value is not None}
        self._log({"epoch": values.pop("train/epoch"), **values})

    def log_model(self, path: Path, sha256: str) -> None:
        """An artifact of type model that refers to the file and is not a copy of it."""

        def log() -> None:
            import wandb

            artifact = wandb.Artifact(f"model-{self._run.id}", type="model", metadata={"sha256": sha256})
            artifact.add_reference(path.absolute().as_uri())
            self._run.log_artifact(artifact)

        self._when_running("log the model", log)

    def log_channels(self, table: ChannelTable) -> None:
        """The table `channels`, with each channel's mean feature map as an image, in the next row."""

        def wait() -> None:
            import wandb

            columns: list[str | int] = ["channel", "importance", "rank", "pruned_at_k", "mean_feature_map"]
            rows = [[*asdict(stats).values(), wandb.Image(table.pictures[stats.channel])] for stats in table.channels]
            self._waiting["channels"] = wandb.Table(columns, rows)

        self._when_running("log the channel table", wait)

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Images by name, in the next row."""

        def wait() -> None:
            import wandb

            self._waiting.update({name: wandb.Image(str(path)) for name, path in figures.items()})

        self._when_running("log figures", wait)

    def log_point(self, point: SweepPoint) -> None:
        """One history row, `K` and the point's metrics, with what waits for it."""
        row = {
            "K": point.k,
            "n_pruned": point.n_pruned,
            "correct": point.correct,
            "accuracy": point.accuracy,
            "loss": point.loss,
            "top5_accuracy": point.top5_correct / point.total,
            "n_changed": point.n_changed,
        }
        self._log(row | self._waiting)
        self._waiting.clear()

    def finish(self, summary: Mapping[str, Any], exit_code: int) -> str | None:
        """Write the summary and end the run; returns where it can be seen, or how to send it."""
        if self._run is None:
            return None
        run = self._run

        def end() -> None:
            run.summary.update(dict(summary))
            run.finish(exit_code=exit_code)

        self._when_running("finish", end)
        if self._run is None:
            return None
        if self.mode == "online":
            return f"W&B: {run.url}"
        return f"W&B offline run: {Path(run.dir).parent} (send it with `wandb sync`)"

    def _start(self, settings: dict[str, Any]) -> None:
        import wandb

        quiet = wandb.Settings(console="off", silent=True)
        self._run = wandb.init(mode=self.mode, settings=quiet, **settings)
        self._run.define_metric("K")
        self._run.define_metric("epoch")
        self._run.define_metric("train/*", step_metric="epoch")
        # Not "*": W&B would then write a K into the rows of training too.
        for name in (
            "n_pruned",
            "correct",
            "accuracy",
            "loss",
            "top5_accuracy",
            "n_changed",
            "channels",
            "feature_map*",
            "accuracy_curve",
        ):
            self._run.define_metric(name, step_metric="K")

    def _forget_failed_start(self) -> None:
        import wandb

        # W&B's service otherwise says that the run's id is in use.
        wandb.teardown()

    def _log(self, row: Mapping[str, Any]) -> None:
        self._when_running("log", lambda: self._run.log(dict(row)))

    def _when_running(self, what: str, action: Callable[[], None]) -> None:
        if self._run is not None and not self._try(what, _GOES_ON, action):
            self._run = None

    def _try(self, what: str, consequence: str, action: Callable[[], None]) -> bool:
        try:
            action()
        except Exception as error:
            # W&B raises errors of many libraries; none of them may end a sweep whose record is elsewhere.
            self._warn(f"W&B could not {what} ({type(error).__name__}: {error}); {consequence}")
            return False
        return True


def _conforms(tracker: WandbTracker) -> Tracker:
    return tracker
