"""What is looked at before a run works: room on the disk, and the versions that it was begun with."""

import shutil
from typing import Any

from lab3.config import Config
from lab3.errors import NoRoomError, RunStateError
from lab3.manifest import differing_versions
from lab3.pipeline.materials import Materials
from lab3.rundir import RunDir

_SMALL_FILES = 16 * 2**20  # figures, tables, journal
_TRACKED_CHANNEL = 4096  # a channel's picture in W&B's table, twice, with what the client stages


def check_room(run: RunDir, config: Config, materials: Materials) -> None:
    """Raise `NoRoomError` if the run's files will not fit on what is free where its folder is."""
    needed = estimate_bytes(config, materials)
    free = shutil.disk_usage(run.path).free
    if free < needed:
        raise NoRoomError(
            f"the run needs about {needed / 2**20:,.0f} MB in {run.path.parent}, where {free / 2**20:,.0f} are free; "
            "make room, or choose another --out"
        )


def estimate_bytes(config: Config, materials: Materials) -> int:
    """The size of the run's folder at its largest, roughly."""
    n_bytes = _SMALL_FILES + _TRACKED_CHANNEL * len(materials.schedule)
    if config.sweep.save_predictions:
        n_bytes += 2 * len(materials.schedule) * len(materials.test)
    if materials.model_path is None:
        # The weights; weights and two moments in three checkpoints; the model again as W&B's artifact.
        n_bytes += 4 * materials.model.count_params() * (1 + 3 * 3 + 1)
    return n_bytes


def check_same_versions(run: RunDir, manifest: dict[str, Any], device: str) -> None:
    """Raise `RunStateError` if other versions would go on with the run than began it."""
    differences = differing_versions(manifest, device)
    if differences:
        raise RunStateError(
            f"run {run.path} was begun with other versions, and its points would not be comparable: "
            f"{'; '.join(differences)}; install those, or start over beside it with `lab3 resume {run.path} --new`"
        )
