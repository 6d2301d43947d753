"""Hold a run's folder against its own record, without running anything."""

import tempfile
from pathlib import Path
from typing import Any

from lab3 import outputs, readers
from lab3.config import Config
from lab3.foreign import problem_of_path, sha256_file
from lab3.journal import read_lines
from lab3.manifest import names_of_files
from lab3.pipeline.checks import changed_settings, input_files
from lab3.pipeline.findings import Verified
from lab3.pipeline.fingerprints import training_header
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
    with found.reading("config.yaml"):
        if differences := changed_settings(manifest, config):
            found.problems.append(f"config.yaml is not what the run was begun with: {'; '.join(differences)}")
    with found.reading("manifest.json"):
        _check_inputs(run, config, manifest, found)
    if run.epochs_jsonl.exists():
        with found.reading("epochs.jsonl"):
            _check_epochs(run, config, manifest, found)
    if manifest.get("kind") == "train":
        with found.reading("summary.json or epochs.jsonl"):
            _check_training(run, found)
    elif found.is_finished or run.journal_jsonl.exists():
        check_sweep(run, config, manifest, found)
    return found


def _check_files(run: RunDir, manifest: Manifest, found: Verified) -> None:
    if not found.is_finished:
        return
    if "files" not in manifest:
        found.remarks.append(
            "the manifest has no hashes of the files, as an earlier lab3 made it: only tables are checked"
        )
    for name in sorted(set(names_of_files(run.path)) - set(manifest.get("files", {}))):
        found.remarks.append(f"{name} is not of the run: the manifest does not name it")
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
            found.problems.append(f"{name} is not what the run wrote: SHA-256 {recorded:.12} recorded, now {now:.12}")


def _check_inputs(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    for what, (path, recorded) in input_files(run, config, manifest).items():
        if path.is_dir():
            found.remarks.append(f"the {what} are a folder, {path}, which only `lab3 rerun` reads")
        elif path.is_file():
            now = sha256_file(path)
            if now != recorded:
                found.problems.append(
                    f"the {what}, {path}, must be what the run was made with: SHA-256 {recorded:.12} recorded, "
                    f"now {now:.12}"
                )
        elif path.parent == run.path:
            found.problems.append(f"the {what}, {path}, is missing")
        else:
            found.remarks.append(f"the {what}, {path}, could not be checked: no such file here")


def _check_epochs(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    lines = read_lines(run.epochs_jsonl, is_finished=found.is_finished)
    if not lines:
        return
    header, *rows = lines
    expected = training_header(config, manifest)
    if differing := [name for name in expected if header.get(name) != expected[name]]:
        found.problems.append(f"epochs.jsonl was begun with other {', '.join(differing)} than config.yaml has")
    history = readers.epochs_of_rows(rows)
    if found.is_finished:
        with tempfile.TemporaryDirectory() as folder:
            anew = RunDir(Path(folder))
            outputs.write_epochs(anew, history)
            if anew.epochs_csv.read_bytes() != run.epochs_csv.read_bytes():
                found.problems.append("epochs.csv is not what epochs.jsonl gives")


def _check_training(run: RunDir, found: Verified) -> None:
    history = readers.read_epochs(run)
    found.n_counted, found.unit = len(history), "epoch"
    if not found.is_finished:
        return
    summary = readers.read_summary(run)
    kept = best_epoch(history).epoch
    if summary["kept_epoch"] != kept:
        found.problems.append(f"summary.json: kept_epoch must be {kept}, by epochs.csv, got {summary['kept_epoch']}")
