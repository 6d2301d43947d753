"""What is looked at before a run works: room on the disk; settings, files and versions it was begun with."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab3.config import Config
from lab3.errors import NoRoomError, RunStateError
from lab3.foreign import sha256_file
from lab3.manifest import differing_versions
from lab3.pipeline.materials import Materials
from lab3.rundir import RunDir

# Results do not depend on these: what the network may weigh, what is computed at a time.
_FREE = {
    "name", "model.sha256", "model.allow_classes", "data.test_sha256", "data.train_sha256", "sweep.batch_size",
    "sweep.capture_batch_size", "sweep.cache_mb",
}  # fmt: skip
_PLACES = {"model.path", "data.test", "data.train"}
_SMALL_FILES = 16 * 2**20  # figures, tables, journal
_TRACKED_CHANNEL = 4096  # a channel's picture in W&B's table, twice, with what the client stages


def check_room(run: RunDir, config: Config, materials: Materials) -> None:
    """Raise `NoRoomError` if the run's files will not fit on what is free where its folder is."""
    needed = _SMALL_FILES + _TRACKED_CHANNEL * len(materials.schedule)
    if config.sweep.save_predictions:
        needed += 2 * len(materials.schedule) * len(materials.test)
    if materials.model_path is None:
        # The weights; weights and two moments in three checkpoints; the model again as W&B's artifact.
        needed += 4 * materials.model.count_params() * (1 + 3 * 3 + 1)
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise NoRoomError(
            f"the run needs about {needed / 2**20:,.0f} MB in {run.path.parent}, where {free / 2**20:,.0f} are free; "
            "make room, or choose another --out"
        )


def check_same_settings(run: RunDir, manifest: Mapping[str, Any], config: Config, *, has_places: bool = False) -> None:
    """Raise `RunStateError` if `config` would give other results than the configuration the run was begun with.

    Where files are is compared only with `has_places`: their hashes are compared in any case.
    """
    if differences := changed_settings(manifest, config, has_places=has_places):
        raise RunStateError(
            f"run {run.path} was begun with other settings: {'; '.join(differences)}; put them back, or start a new run"
        )


def changed_settings(manifest: Mapping[str, Any], config: Config, *, has_places: bool = False) -> list[str]:
    """Settings that results depend on and that are not those in `manifest`, as `seed was 0, now 1`."""
    then, now = _flatten(manifest["config"]), _flatten(config.model_dump(mode="json"))
    free = _FREE | (set() if has_places else _PLACES)
    return [
        f"{name} was {then.get(name)!r}, now {now.get(name)!r}"
        for name in {**now, **then}
        if then.get(name) != now.get(name)
        and name not in free
        and not name.startswith("tracking.")
        and not str(now.get(name)).startswith("wandb://")
    ]


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat.update(_flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def check_inputs(run: RunDir, config: Config, manifest: Mapping[str, Any], *, say_where: str) -> None:
    """Raise `RunStateError` for a changed file before it fails in some other way; what is missing is told later.

    `say_where`: how the user can say where the file is.
    """
    for what, (path, recorded) in input_files(run, config, manifest).items():
        if path.is_file() and what != "train data" and (now := sha256_file(path)) != recorded:
            raise RunStateError(
                f"the {what} must be what {run.path} was made with (SHA-256 {recorded}), got {path} with {now}; "
                f"put the file back, or say where it is {say_where}"
            )


def input_files(run: RunDir, config: Config, manifest: Mapping[str, Any]) -> dict[str, tuple[Path, str]]:
    """The files the run's numbers come from: where they should be, and the SHA-256 they had."""
    files = {}
    if manifest["model"]["sha256"] is not None:
        trained = run.path / f"model.{config.train.format}"
        files["model"] = Path(config.model.path) if config.model.path else trained, manifest["model"]["sha256"]
    sources = {"test": config.data.test, "train": config.data.train or config.data.test}
    for split in ("test", "train"):
        facts = manifest["data"][split]
        if facts is not None and sources[split] not in ("digits", "cifar10"):
            files[f"{split} data"] = Path(sources[split]), facts["sha256"]
    return files


def check_same_versions(run: RunDir, manifest: dict[str, Any], device: str) -> None:
    """Raise `RunStateError` if other versions would go on with the run than began it."""
    differences = differing_versions(manifest, device)
    if differences:
        raise RunStateError(
            f"run {run.path} was begun with other versions, and its points would not be comparable: "
            f"{'; '.join(differences)}; install those, or start over beside it with `lab3 resume {run.path} --new`"
        )
