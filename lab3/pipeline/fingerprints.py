"""What a run's journals depend on: their headers, which must be the same when the run goes on."""

from collections.abc import Mapping
from typing import Any

from lab3.config import Config
from lab3.foreign import sha256_file
from lab3.manifest import computing_versions
from lab3.rundir import RunDir


def sweep_header(run: RunDir, config: Config, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The header of `journal.jsonl`; training acts through the model's hash, ranking through that of `capture.npz`."""
    settings = {
        **config.data.model_dump(include={"color", "scale", "mean", "std"}),
        **config.prune.model_dump(),
        "schedule": config.sweep.schedule,
        "shortcut": config.sweep.shortcut,
    }
    return {
        "journal": 1,
        "model": manifest["model"]["sha256"],
        "data": manifest["data"]["test"]["sha256"],
        "settings": settings,
        "seed": config.seed,
        "versions": computing_versions(manifest),
        "capture": sha256_file(run.capture_npz) if run.capture_npz.exists() else None,
        "scores": sha256_file(run.scores_csv) if run.scores_csv.exists() else None,
    }


def training_header(config: Config, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The header of `epochs.jsonl`."""
    settings = {
        **config.data.model_dump(include={"color", "scale", "mean", "std"}),
        "architecture": config.model.architecture,
        **config.train.model_dump(),
    }
    return {
        "journal": 1,
        "data": manifest["data"]["train"] and manifest["data"]["train"]["sha256"],
        "settings": settings,
        "seed": config.seed,
        "versions": computing_versions(manifest),
    }
