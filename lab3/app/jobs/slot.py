"""Which job this process is an attempt of: what its scheduler says, and the run's id that follows from it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab3.base.files import sha256_file
from lab3.config import Config

# What each scheduler gives all attempts at one job, requeued, recovered or run again, and no other job.
_VARIABLES = {
    "Slurm array": ("SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"),
    "Slurm": ("SLURM_JOB_ID",),
    "SkyPilot": ("SKYPILOT_TASK_ID",),
    "dstack": ("DSTACK_RUN_ID",),
    "GitHub Actions": ("GITHUB_RUN_ID",),
}
_N_DIGITS = 12


@dataclass(frozen=True)
class Slot:
    """`name` is the same for all attempts at a job; empty where nothing says which job it is, so that there is one."""

    name: str
    scheduler: str | None


def find_slot(given: str | None, environment: Mapping[str, str]) -> Slot:
    """The slot that somebody gave, else what a scheduler's variables say.

    >>> find_slot(None, {"SLURM_JOB_ID": "17"})
    Slot(name='17', scheduler='Slurm')
    """
    if given is not None:
        return Slot(given, None)
    for scheduler, names in _VARIABLES.items():
        values = [environment.get(name) for name in names]
        if all(values):
            return Slot("-".join(filter(None, values)), scheduler)
    return Slot("", None)


def job_id(config: Config, work: Mapping[str, Any], slot: Slot) -> str:
    """The run id of a job: the experiment's name, and 12 digits of the hash of settings, inputs, `work` and slot.

    Inputs count by their content: a file that was changed is another job, and one that was moved is the same. `work` is
    what the command does besides, as the layers of a group.
    """
    settings = config.model_dump(mode="json", exclude={"tracking"})
    for section, keys in (("model", ("path",)), ("data", ("test", "train"))):
        for key in keys:
            settings[section][key] = _fingerprint(settings[section][key])
    content = json.dumps([settings, dict(work), asdict(slot)], sort_keys=True)
    return f"{config.name}-{hashlib.sha256(content.encode()).hexdigest()[:_N_DIGITS]}"


def _fingerprint(source: str | None) -> str | Sequence[Sequence[str]] | None:
    """The SHA-256 of a file, or of every file in a folder; a name, as `digits` or an artifact's, stands for itself."""
    if source is None or not Path(source).exists():
        return source
    path = Path(source)
    if path.is_file():
        return sha256_file(path)
    return [
        (each.relative_to(path).as_posix(), sha256_file(each)) for each in sorted(path.rglob("*")) if each.is_file()
    ]
