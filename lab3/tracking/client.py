"""W&B's client, imported once the settings of the current folder are known to be harmless."""

import configparser
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lab3.errors import ConfigError, ServerError

_HARMLESS = {"entity", "project"}


def import_client() -> Any:
    """The package `wandb`. Raises as `check_local_settings` does."""
    check_local_settings()
    # The client takes an empty variable for a value.
    for name in [name for name, value in os.environ.items() if name.startswith("WANDB_") and not value]:
        del os.environ[name]
    import wandb

    return wandb


def stage_below(folder: Path) -> None:
    """Have W&B's client keep what it stages below `folder`, not in the home folder: the folder can then be moved."""
    os.environ["WANDB_DATA_DIR"] = str((folder / "wandb" / "data").absolute())


def restart_client(folder: Path) -> None:
    """Have W&B's client read its environment once more, and stage below `folder`."""
    import_client().teardown()
    stage_below(folder)


def has_key() -> bool:
    """True if W&B's client would find credentials for its server: in the environment or in netrc.

    Raises `ConfigError` if its settings cannot be read. The only place that uses a private name of the client.
    """
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


@contextmanager
def asking(failure: str, remedy: str = "try again later") -> Iterator[None]:
    """Make what goes wrong in W&B's client a `ServerError`: "W&B <failure> (...); <remedy>"."""
    try:
        yield
    except Exception as error:
        # The client raises errors of many libraries, and one type of its own for whatever the server answers.
        raise ServerError(f"W&B {failure} ({type(error).__name__}: {error}); {remedy}") from error


def check_local_settings() -> None:
    """Raise `ConfigError` if `wandb/settings` of the current folder says where the key goes, and nobody else does.

    The client obeys that file, and it can come with an untrusted folder. `WANDB_BASE_URL` is stronger.
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
