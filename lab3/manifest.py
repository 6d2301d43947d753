"""What a run was made with: versions, machine, commit, hashes."""

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lab3
from lab3.backend import backend_versions
from lab3.data import Dataset
from lab3.foreign import sha256_file

# Nothing else of the environment is kept: the rest can hold secrets.
_VARIABLES = (
    "KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "TF_ENABLE_ONEDNN_OPTS", "TF_DETERMINISTIC_OPS", "XLA_FLAGS",
)  # fmt: skip
_PACKAGES = ("numpy", "wandb", "matplotlib", "pillow", "h5py", "pydantic")


def make_manifest(
    *,
    kind: str,
    seed: int,
    device: str,
    model: Path | None,
    test: Dataset,
    train: Dataset | None,
    artifacts: Mapping[str, str],
) -> dict[str, Any]:
    """The manifest of a run that starts now. `model` is None where it is trained first.

    `artifacts`: names of W&B artifacts by the path they were fetched to.
    """
    return {
        "kind": kind,
        "lab3": lab3.__version__,
        "created_at": now(),
        "seed": seed,
        "model": {
            "path": str(model) if model else None,
            "sha256": sha256_file(model) if model else None,
            "artifact": artifacts.get(str(model)),
        },
        "data": {
            "test": _describe(test, artifacts),
            "train": _describe(train, artifacts) if train is not None else None,
        },
        "device": device,
        "versions": _versions(),
        "machine": {"system": platform.system(), "processor": platform.machine(), "n_cpus": os.cpu_count()},
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "git_commit": _git_commit(),
    }


def computing_versions(manifest: Mapping[str, Any]) -> dict[str, str | None]:
    """Of what `manifest` names, all that a bit of a result can depend on: versions, backend, device."""
    versions = {**manifest["versions"], "lab3": manifest.get("lab3"), "device": manifest.get("device")}
    names = ("lab3", "device", "python", "numpy", "keras", "backend", str(versions.get("backend")))
    return {name: versions.get(name) for name in names}


def differing_versions(manifest: Mapping[str, Any], device: str) -> list[str]:
    """What computes here and is not what `manifest` names, as `keras 3.15.1, here 3.16.0`."""
    then = computing_versions(manifest)
    here = computing_versions({"lab3": lab3.__version__, "device": device, "versions": _versions()})
    return [
        f"{name} {then.get(name)}, here {here.get(name)}"
        for name in {**then, **here}
        if then.get(name) != here.get(name)
    ]


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a run by its name in the run's folder.

    Left out are the manifest itself, what belongs to W&B's client, and hidden files, which a kill can leave.
    """
    return {name: sha256_file(folder / name) for name in names_of_files(folder)}


def names_of_files(folder: Path) -> list[str]:
    """The names that `hash_files` gives."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return [
        name.as_posix()
        for name in names
        if name.parts[0] not in ("manifest.json", "wandb") and not name.name.startswith(".")
    ]


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **backend_versions(), **packages}


def _describe(dataset: Dataset, artifacts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "source": dataset.source,
        "sha256": dataset.sha256,
        "n_images": len(dataset),
        "artifact": artifacts.get(dataset.source),
    }


def _git_commit() -> str | None:
    """The commit of the folder lab3 was called in; None outside git.

    Whether files differ from it is not asked: `git status` runs programs that the repository names.
    """
    try:
        command = ["git", "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
