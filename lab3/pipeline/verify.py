"""Hold a run's folder against its own record, without running anything."""

from pathlib import Path
from typing import Any

from lab3 import readers
from lab3.config import Config
from lab3.foreign import problem_of_path, sha256_file
from lab3.pipeline.findings import Verified, check_figures
from lab3.pipeline.verify_sweep import check_sweep
from lab3.rundir import RunDir, check_plain, open_run
from lab3.training import best_epoch

Manifest = dict[str, Any]


def verify_run(path: Path) -> Verified:
    """Check the run at `path`: every file against its hash, and the journal against all that is made from it.

    Of an unfinished run, what there is of the journal is checked. Raises `RunStateError` if there is no run.
    """
    run = RunDir(path)
    found = Verified(run.run_id, run.is_finished)
    if path.is_dir():
        with found.reading("the folder"):
            check_plain(path)
        if found.problems:
            return found
    if not any(file.exists() for file in (run.config_yaml, run.manifest_json, run.journal_jsonl)):
        open_run(path)
    manifest = config = None
    with found.reading("manifest.json"):
        manifest = run.read_manifest()
        _check_files(run, manifest, found)
    with found.reading("config.yaml"):
        config = run.read_config()
    if manifest is None or config is None:
        return found
    with found.reading("manifest.json"):
        _check_inputs(run, config, manifest, found)
    if manifest.get("kind") == "train":
        with found.reading("summary.json or epochs.csv"):
            _check_training(run, found)
    elif found.is_finished or run.journal_jsonl.exists():
        check_sweep(run, config, manifest, found)
    return found


def input_files(run: RunDir, config: Config, manifest: Manifest) -> dict[str, tuple[Path, str]]:
    """The files the run's numbers come from: where they should be, and the SHA-256 they had."""
    files = {}
    if manifest["model"]["sha256"] is not None:
        trained = run.path / f"model.{config.train.format}"
        files["model"] = Path(config.model.path) if config.model.path else trained, manifest["model"]["sha256"]
    sources = {"test": config.data.test, "train": config.data.train or config.data.test}
    for split, facts in manifest["data"].items():
        if facts is not None and sources[split] not in ("digits", "cifar10"):
            files[f"{split} data"] = Path(sources[split]), facts["sha256"]
    return files


def _check_files(run: RunDir, manifest: Manifest, found: Verified) -> None:
    if not found.is_finished:
        return
    if "files" not in manifest:
        found.remarks.append("the manifest has no hashes of the files: an earlier lab3 made this run")
    for name, recorded in manifest.get("files", {}).items():
        path = run.path / name
        if problem := problem_of_path(name):
            found.problems.append(f"manifest.json: {problem}")
            continue
        if not path.is_file():
            found.problems.append(f"{name} is missing")
            continue
        found.n_files += 1
        now = sha256_file(path)
        if now != recorded:
            found.problems.append(
                f"{name} is not what the run wrote: SHA-256 {_short(recorded)} recorded, now {_short(now)}"
            )


def _check_inputs(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    for what, (path, recorded) in input_files(run, config, manifest).items():
        if path.is_dir():
            found.remarks.append(f"the {what} are a folder, {path}, which only `lab3 rerun` reads")
        elif path.is_file():
            now = sha256_file(path)
            if now != recorded:
                found.problems.append(
                    f"the {what}, {path}, must be what the run was made with: SHA-256 {_short(recorded)} recorded, "
                    f"now {_short(now)}"
                )
        elif path.parent == run.path:
            found.problems.append(f"the {what}, {path}, is missing")
        else:
            found.remarks.append(f"the {what}, {path}, could not be checked: no such file here")


def _check_training(run: RunDir, found: Verified) -> None:
    history = readers.read_epochs(run)
    found.n_counted, found.unit = len(history), "epoch"
    if not found.is_finished:
        return
    summary = readers.read_summary(run)
    kept = best_epoch(history).epoch
    if summary["kept_epoch"] != kept:
        found.problems.append(f"summary.json: kept_epoch must be {kept}, by epochs.csv, got {summary['kept_epoch']}")
    check_figures(run, ["learning_curves"], found)


def _short(sha256: object) -> str:
    return str(sha256)[:12]
