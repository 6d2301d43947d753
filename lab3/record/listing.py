"""The runs in a folder, a row each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab3.errors import Lab3Error
from lab3.record.compaction import read_compaction
from lab3.record.readers import read_plan, read_summary
from lab3.record.rundir import RunDir, runs_in
from lab3.record.state import Condition, read_state


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as a list shows it; what is not known before its end, or not at all, is None.

    `state` is the condition with how far it came. `baseline`: accuracy at K = 0, or of the trained network.
    `certified_share`: of the layer's channels, or of a compressed network's. `parameters_left`: what the smaller model
    has of the whole one's, as a share.
    """

    path: str
    run_id: str
    state: str
    condition: Condition
    n_done: int
    age_s: float
    kind: str | None = None
    created_at: str | None = None
    layer: str | None = None
    criterion: str | None = None
    effect: str | None = None
    n_channels: int | None = None
    n_images: int | None = None
    certified_k: int | None = None
    certified_share: float | None = None
    parameters_left: float | None = None
    baseline: float | None = None
    sentence: str | None = None


def list_runs(folder: Path) -> list[Listed]:
    """Every run in `folder`, those of groups too, the one that wrote last first; a damaged one is said to be so."""
    found = [list_run(path, folder) for path in runs_in(folder) if path != folder or (path / "manifest.json").exists()]
    return sorted(found, key=lambda row: row.age_s)


def list_run(path: Path, folder: Path) -> Listed:
    """The run at `path`, named by where it is below `folder`."""
    run = RunDir(path)
    state = read_state(run)
    name = path.relative_to(folder).as_posix() if path != folder else path.as_posix()
    common: dict[str, Any] = {"path": name, "run_id": run.run_id, "n_done": state.n_done, "age_s": state.age_s}
    try:
        manifest = run.read_manifest()
        summary = read_summary(run) if run.is_finished else {}
    except Lab3Error:
        return Listed(**common, state="damaged", condition="damaged")
    certified, baseline = summary.get("certified") or {}, summary.get("baseline") or {}
    share = certified.get("share")
    try:
        if summary.get("is_certified"):
            plan = read_plan(run)
            share = sum(int(row["n_pruned"]) for row in plan) / sum(int(row["n_channels"]) for row in plan)
        left = read_compaction(run).summary()["parameters_share"] if summary and run.compact.exists() else None
    except Lab3Error:
        return Listed(**common, state="damaged", condition="damaged")
    return Listed(
        **common,
        state=str(state),
        condition=state.condition,
        kind=manifest.kind,
        created_at=manifest.created_at,
        layer=summary.get("layer"),
        criterion=manifest.config["prune"]["criterion"] if manifest.kind != "train" else None,
        effect=manifest.config["prune"]["effect"] if manifest.kind != "train" else None,
        n_channels=summary.get("n_channels"),
        n_images=manifest.data.test.n_images,
        certified_k=certified.get("k"),
        certified_share=share,
        parameters_left=left,
        baseline=baseline.get("accuracy", summary.get("accuracy", summary.get("accuracy_before"))),
        sentence=summary.get("sentence"),
    )
