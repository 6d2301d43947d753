"""W&B's client, imported once the settings of the current folder are known to be harmless."""

import configparser
import os
from pathlib import Path
from typing import Any

from lab3.errors import ConfigError

_HARMLESS = {"entity", "project"}


def import_client() -> Any:
    """The package `wandb`. Raises as `check_local_settings` does."""
    check_local_settings()
    # The client takes an empty variable for a value.
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]:
        del os.environ[name]
    import wandb

    return wandb


def check_local_settings() -> None:
    """Raise `ConfigError` if `wandb/settings` of the current folder says where the key goes, and nobody else does.

    The client obeys that file, and it can come with a folder from a stranger. `WANDB_BASE_URL` is stronger.
    """
    for path in (Path("wandb", "settings"), Path(".wandb", "settings")):
        if not path.exists():
            continue
        found = configparser.ConfigParser(interpolation=None)
        try:
            found.read_string(path.read_text())
        except (OSError, ValueError, configparser.Error) as error:
            raise ConfigError(f"{path.absolute()} cannot be read ({str(error).splitlines()[0]}); remove it") from error
        names = {name for section in found for name in found[section]}
        allowed = _HARMLESS | ({"base_url"} if os.environ.get("WANDB_BASE_URL") else set())
        if names - allowed:
            raise ConfigError(
                f"{path.absolute()} may set entity and project, and base_url where WANDB_BASE_URL is set too, got "
                f"{', '.join(sorted(names - allowed))}: W&B's client would send your key where that file says; set "
                "WANDB_BASE_URL if you trust the server, or remove the file"
            )
