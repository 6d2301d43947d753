"""Live views of a run. The run folder is the record: a tracker logs what is already written there."""

import os
from collections.abc import Callable
from typing import Literal

from lab3.errors import ConfigError
from lab3.tracking.client import check_local_settings, has_key
from lab3.tracking.events import Event, RowEvent, RunSettings, Tracker

Mode = Literal["online", "offline", "disabled"]

__all__ = ["Event", "Mode", "RowEvent", "RunSettings", "Tracker", "choose_mode", "open_tracker"]

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
    if has_key():
        return "online", "a key is configured"
    return "offline", "no W&B key is configured"


def open_tracker(
    mode: Mode,
    settings: RunSettings,
    warn: Callable[[str], None],
    is_stopping: Callable[[], bool] = lambda: False,
) -> Tracker:
    """A tracker of one run. Trouble with W&B goes to `warn` once and is never raised.

    While `is_stopping` gives True, it waits for W&B only for seconds.
    """
    if mode == "disabled":
        return Tracker()
    from lab3.tracking.wandb_tracker import WandbTracker

    return WandbTracker(mode, settings, warn, is_stopping)
