"""Live views of a run. The run folder is the record: a tracker is told what is already written there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from lab3.errors import ConfigError
from lab3.tracking.client import check_local_settings, import_client
from lab3.tracking.tracker import Asset, ChannelTable, Tracker

Mode = Literal["online", "offline", "disabled"]

__all__ = [
    "Asset",
    "ChannelTable",
    "Mode",
    "Tracker",
    "choose_mode",
    "open_tracker",
    "prepare_client",
    "tracking_folder",
]

_MODES: dict[str, Mode] = {"online": "online", "offline": "offline", "disabled": "disabled"}
_MODES |= {"run": "online", "dryrun": "offline"}  # W&B's earlier names


def choose_mode(flag: str | None, configured: str) -> tuple[Mode, str]:
    """Where to track, and why, in words.

    In order: the command line's flag, `WANDB_MODE`, the configuration; `auto` is online where a key is configured.
    Raises `ConfigError` if `WANDB_MODE` is none of W&B's, or as `check_local_settings` does.
    """
    environment = os.environ.get("WANDB_MODE")
    for choice, origin in ((flag, "--mode"), (environment, "WANDB_MODE"), (configured, "the configuration")):
        if not choice or choice == "auto":
            continue
        if choice not in _MODES:
            raise ConfigError(f"{origin} must be online, offline or disabled, got {choice!r}")
        if _MODES[choice] != "disabled":
            check_local_settings()
        return _MODES[choice], f"chosen by {origin}"
    from lab3.tracking.wandb_tracker import has_key

    if has_key():
        return "online", "a key is configured"
    return "offline", "no W&B key is configured"


def prepare_client(folder: Path) -> None:
    """Have W&B's client, which reads its environment once, keep what it stages below `folder` from now on."""
    import_client().teardown()
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").absolute())


def tracking_folder(run: Path) -> Path:
    """Where W&B's files of the run in the folder `run` lie: `WANDB_DIR`, else the folder itself."""
    return Path(os.environ.get("WANDB_DIR") or run)


def open_tracker(mode: Mode, folder: Path, run_id: str, *, warn: Callable[[str], None], **settings: Any) -> Tracker:
    """A tracker that writes W&B's files below `folder`. Trouble with W&B is told to `warn` once and never raised.

    `settings`: those of `WandbTracker`.
    """
    if mode == "disabled":
        return Tracker()
    from lab3.tracking.wandb_tracker import WandbTracker

    return WandbTracker(mode, folder, run_id, warn=warn, **settings)
