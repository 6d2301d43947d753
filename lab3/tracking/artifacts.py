"""Models, data and results that are artifacts of Weights & Biases."""

import re
from pathlib import Path
from typing import Literal

from lab3.errors import ConfigError
from lab3.tracking.client import asking, import_client

PREFIX = "wandb://"
_FORM = re.compile(r"wandb://[\w.-]+/[\w.-]+/[\w.-]+:[\w.-]+")
_ENDINGS = {"model": (".h5", ".hdf5", ".keras"), "dataset": (".npz", ".zip", ".tar.gz", ".tgz")}  # results are a folder


def fetch_artifact(address: str, type: Literal["model", "dataset", "results"], folder: Path) -> tuple[Path, str]:
    """Download `wandb://entity/project/name:alias` below `folder`; what is there already is not fetched again.

    Returns the file, or the folder of several, and `entity/project/name:version`, never an alias.

    Raises `ConfigError` if the address or what is there is not usable, `ServerError` if W&B does not give it.
    """
    if not _FORM.fullmatch(address):
        raise ConfigError(f"an artifact must be wandb://entity/project/name:alias, got {address}")
    wandb = import_client()
    with asking(f"did not give {address}", "look at the name and the key"):
        artifact = wandb.Api().artifact(address.removeprefix(PREFIX))
    if type == "results" and artifact.type != type:
        raise ConfigError(f"{address} must be the results of a run, got an artifact of the type {artifact.type}")
    with asking(f"did not give {address}", "look at the name and the key"):
        # An alias is another version tomorrow.
        name = f"{artifact.qualified_name.rpartition(':')[0]}:{artifact.version}"
        root = folder / re.sub(r"[/:]", "-", name)
        artifact.download(root=str(root))
    if type == "results":
        return root, name
    files = [path for path in root.rglob("*") if path.is_file()]
    fitting = [path for path in files if path.name.endswith(_ENDINGS[type])]
    if len(fitting) == 1:
        return fitting[0], name
    if type == "dataset" and not fitting and files:
        return root, name
    raise ConfigError(
        f"{address} must hold one file that ends in {', '.join(_ENDINGS[type])}, "
        f"got {', '.join(sorted(path.name for path in files)[:5]) or 'none'}"
    )
