"""What W&B's server shows of a run, and adding to it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from lab3.tracking.client import asking, import_client
from lab3.tracking.offline import ShownRun

_TIMEOUT_S = 20
_REPLACED_BY = "replaced_by"  # in the configuration of a damaged run: the id of the one that was published after it


def find_place(project: str, entity: str | None) -> tuple[str, str | None]:
    """Project and entity: `WANDB_PROJECT` and `WANDB_ENTITY`, else the arguments."""
    return os.environ.get("WANDB_PROJECT") or project, os.environ.get("WANDB_ENTITY") or entity


@dataclass(frozen=True)
class Project:
    """A project on W&B's server, as `find_place` finds it; without an entity, the key's own.

    Every method raises `ServerError` if the server cannot be asked, or refuses.
    """

    name: str
    entity: str | None

    def read(self, run_id: str) -> ShownRun | None:
        """The run as the server shows it, None if it has none."""
        with asking("cannot be asked about a run"):
            _, run = self._find(run_id)
            if run is None:
                return None
            used = list(run.used_artifacts())
            artifacts = [*run.logged_artifacts(), *used]
            return ShownRun(
                state=run.state,
                rows=[dict(row) for row in run.scan_history(use_cache=False)],
                n_lines=int(run.historyLineCount),
                summary=dict(run.summary_metrics),
                files=frozenset(file.name for file in run.files(pattern="media/%", per_page=1000) if file.size),
                artifacts=frozenset(each.name.partition(":")[0] for each in artifacts if each.state == "COMMITTED"),
                used=frozenset(each.qualified_name for each in used),
                replaced_by=run.config.get(_REPLACED_BY),
            )

    def link_inputs(self, run_id: str, names: Sequence[str]) -> None:
        """Say that the run was made from artifacts `entity/project/name:version` of the server."""
        with asking("did not link an artifact"):
            api, run = self._find(run_id)
            for name in names:
                run.use_artifact(api.artifact(name))

    def replace_damaged(self, run_id: str, original_id: str) -> str:
        """Tag the run as damaged; returns the id to publish it under: `<original_id>-2`, or the next that is free."""
        with asking("did not take a tag"):
            free = next(new for n in count(2) if self._find(new := f"{original_id}-{n}")[1] is None)
            _, run = self._find(run_id)
            run.tags = [*run.tags, "damaged"]
            run.config[_REPLACED_BY] = free
            run.update()
            return free

    def _find(self, run_id: str) -> tuple[Any, Any]:
        """W&B's interface and the run in it, None if there is none."""
        api = import_client().Api(timeout=_TIMEOUT_S)
        project, entity = find_place(self.name, self.entity)
        try:
            return api, api.run(f"{entity or api.default_entity}/{project}/{run_id}")
        except Exception as error:
            if "could not find run" in str(error).lower():
                return api, None
            raise
