"""Hold a run's folder against its own record, without running anything."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import lab3
from lab3.analysis.certificate import Certificate
from lab3.app.pipeline.answers import certify_run, read_evidence
from lab3.app.pipeline.checks import check_inputs, check_points, check_same_settings, input_files, sweep_header
from lab3.app.pipeline.measuring import Measured, aim, decide, summarise
from lab3.base.files import sha256_file
from lab3.base.reading import reading
from lab3.config import Config
from lab3.errors import Lab3Error, counted, first_few
from lab3.inputs.training import best_epoch
from lab3.pruning.rank import channel_stats, plan_pruning
from lab3.pruning.schedule import parse_schedule
from lab3.record import readers, tables
from lab3.record.attempts import read_attempts
from lab3.record.compaction import PROOF_JSON, read_compaction
from lab3.record.exported import read_exports, record_name
from lab3.record.journal import check_header, encode_row, read_lines, read_rows
from lab3.record.manifest import REPORTS, Manifest, hash_files
from lab3.record.rundir import RunDir, open_run
from lab3.views.report import render_report


@dataclass
class Verified:
    """What `verify_run` found: `problems` in words; `remarks` on what could not be checked.

    `size` is the number of points in the journal, or of epochs where the run only trained; `n_files` that of files held
    against a hash.
    """

    run_id: str
    is_finished: bool
    size: str = "0 points"
    n_files: int = 0
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        state = "intact" if self.is_finished else "unfinished"
        if self.problems:
            state = counted(len(self.problems), "problem")
        notes = [*self.problems, *(f"note: {remark}" for remark in self.remarks)]
        return "\n  ".join([f"{self.run_id}: {state}, {self.size}, {counted(self.n_files, 'file')}", *notes])

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """What is raised is a problem; the checks that follow go on."""
        try:
            yield
        except Lab3Error as error:
            self.problems.append(str(error))


def verify_run(path: Path) -> Verified:
    """Check the run at `path`: every file against its hash, and the journal against all that is made from it.

    Of an unfinished run, what there is of the journal is checked. Raises `RunStateError` if there is no run.
    """
    run = RunDir(path)
    if not any(file.exists() for file in (run.config_yaml, run.manifest_json, run.journal_jsonl)):
        open_run(path)
    found = Verified(run.run_id, run.is_finished)
    with found.collecting():
        manifest = run.read_manifest()
        if found.is_finished:
            _check_hashes(run, manifest, found)
        with found.collecting():
            _check_attempts(run, manifest, found)
        config = run.read_config()
        with found.collecting():
            check_same_settings(run, manifest, config)
        _check_inputs(run, config, manifest, found)
        if run.compact.exists():
            with found.collecting():
                _check_compaction(run, manifest, found)
        if manifest.kind == "train" or run.epochs_jsonl.exists():
            with found.collecting():
                _check_training(run, manifest, found)
        if manifest.kind == "sweep" and (found.is_finished or run.journal_jsonl.exists()):
            with found.collecting():
                _check_sweep(run, config, manifest, found)
        if manifest.kind == "compress" and (found.is_finished or run.measured_jsonl.exists()):
            with found.collecting():
                _check_compression(run, config, manifest, found)
        if found.is_finished and not found.problems:
            with found.collecting():
                _check_report(run, manifest, found)
    return found


def _check_hashes(run: RunDir, manifest: Manifest, found: Verified) -> None:
    if manifest.files is None:
        found.remarks.append("the manifest has no hashes of the files, as an earlier lab3 made it: tables are checked")
    _compare_hashes(manifest.files or {}, hash_files(run.path), found)


def _check_attempts(run: RunDir, manifest: Manifest, found: Verified) -> None:
    """The record of the work, which no hash covers: lines with checksums, as many starts as the manifest counts."""
    n_attempts = len(read_attempts(run))
    if run.attempts_jsonl.exists():
        intact = b"".join(map(encode_row, read_rows(run.attempts_jsonl)))
        if run.attempts_jsonl.read_bytes() != intact:
            found.problems.append(f"{run.attempts_jsonl.name} has a last line that is torn or damaged")
    if manifest.cost is not None and manifest.cost.attempts != n_attempts:
        found.problems.append(
            f"{run.attempts_jsonl.name} must have {counted(manifest.cost.attempts, 'attempt')}, as the manifest says, "
            f"got {n_attempts}"
        )


def _check_compaction(run: RunDir, manifest: Manifest, found: Verified) -> None:
    """The compact model's files against the hashes in its proof, which is covered by a checksum of its own."""
    compaction = read_compaction(run)
    if (compaction.run_id, compaction.model) != (run.run_id, manifest.model.sha256):
        found.problems.append(f"{run.compact.name}/{PROOF_JSON} is of another model or run, {compaction.run_id}")
    exports = read_exports(run.compact)
    own = {PROOF_JSON, *(record_name(each.format) for each in exports)}
    hashes = {name: value for name, value in hash_files(run.compact).items() if name not in own}
    recorded = compaction.files | {each.file: each.sha256_of_file for each in exports}

    def in_folder(each: Mapping[str, str]) -> dict[str, str]:
        return {f"{run.compact.name}/{name}": sha256 for name, sha256 in each.items()}

    _compare_hashes(in_folder(recorded), in_folder(hashes), found)


def _compare_hashes(recorded: Mapping[str, str], hashes: Mapping[str, str], found: Verified) -> None:
    found.n_files += len(hashes.keys() & recorded.keys())
    found.remarks += [
        f"{name} is not of the run: the manifest does not name it" for name in hashes if name not in recorded
    ]
    for name, then in recorded.items():
        now = hashes.get(name)
        if now is None:
            found.problems.append(f"{name} is missing")
        elif now != then:
            found.problems.append(f"{name} is not what the run wrote: SHA-256 {then:.12} recorded, now {now:.12}")


def _check_inputs(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    for what, path in input_files(run, config, manifest).items():
        if path.is_file():
            with found.collecting():
                check_inputs(manifest, {what: (path, sha256_file(path))}, "put the file back")
        elif path.is_dir():
            found.remarks.append(f"the {what} are a folder, {path}, which only `lab3 rerun` reads")
        elif path.parent == run.path:
            found.problems.append(f"the {what}, {path}, is missing")
        else:
            found.remarks.append(f"the {what}, {path}, could not be checked: no such file here")


def _check_training(run: RunDir, manifest: Manifest, found: Verified) -> None:
    lines = read_lines(run.epochs_jsonl)
    history = readers.epochs_of_rows(lines[1:], run.epochs_jsonl)
    with found.collecting(), reading(run.manifest_json):
        check_header(run.epochs_jsonl, lines, manifest.training_identity())
    if found.is_finished:
        _compare_tables(run, {"epochs.csv": lambda: tables.epochs_csv(history)}, found)
    if manifest.kind == "train":
        found.size = counted(len(history), "epoch")
        if found.is_finished:
            _compare_summary(run, lambda: {"kept_epoch": best_epoch(history).epoch}, found)


def _check_sweep(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    lines = read_lines(run.journal_jsonl)
    points = readers.points_of_rows(lines[1:], run.journal_jsonl)
    found.size = counted(len(points), "point")
    with found.collecting(), reading(run.manifest_json):
        check_header(run.journal_jsonl, lines, sweep_header(run, manifest))
    if not points and not found.is_finished:
        return
    importance_c, pruned_importance_c = astuple(readers.read_capture(run)[1])
    n_channels, n_labels = len(importance_c), len(points[0].class_correct) if points else 0
    schedule = parse_schedule(config.sweep.schedule, n_channels)
    steps = plan_pruning(importance_c, pruned_importance_c, schedule, config.prune.ranking)
    n_images = manifest.data.test.n_images
    _, problems = check_points(
        config, points, steps, n_images=n_images, n_labels=n_labels, is_finished=found.is_finished
    )
    found.problems += [f"journal.jsonl has points that its sweep cannot have: {first_few(problems)}"] * bool(problems)
    if found.is_finished:

        def certificate() -> Certificate:
            return certify_run(config, read_evidence(run, points))

        renderers = {
            "results.csv": lambda: tables.results_csv(points),
            "metrics.csv": lambda: tables.metrics_csv(points, readers.read_class_names(run)),
            "channels.csv": lambda: tables.channels_csv(channel_stats(importance_c, steps)),
        }
        if config.sweep.shortcut != "inferred":
            renderers["certificate.csv"] = lambda: tables.certificate_csv(points, certificate())
        _compare_tables(run, renderers, found)
        _compare_summary(run, lambda: tables.summarise(points, {"n_channels": n_channels}, {}, certificate()), found)


def _check_compression(run: RunDir, config: Config, manifest: Manifest, found: Verified) -> None:
    lines = read_lines(run.measured_jsonl)
    found.size = counted(len(lines) - 1, "measurement")
    with found.collecting(), reading(run.manifest_json):
        check_header(run.measured_jsonl, lines, manifest.compression_identity())
    if found.is_finished:
        measured = Measured(lines[1:])
        decision = aim(measured, config, decide(measured, config))
        names, n_channels = measured.facts.names, measured.facts.n_channels
        renderers = {
            "plan.csv": lambda: tables.plan_csv(names, n_channels, decision.chosen.ks),
            "frontier.csv": lambda: tables.frontier_csv(decision.frontier),
        }
        _compare_tables(run, renderers, found)
        _compare_summary(run, lambda: summarise(measured, decision), found)


def _check_report(run: RunDir, manifest: Manifest, found: Verified) -> None:
    """The report against what the folder gives; another lab3 may write it in other words."""
    there = [name for name in REPORTS if (run.path / name).exists()]
    if manifest.lab3 != lab3.__version__ or not there:
        return
    rendered = render_report(run.path)
    for name in there:
        if (run.path / name).read_bytes() != rendered[name]:
            found.problems.append(f"{name} is not what the folder gives; write it again with `lab3 report {run.path}`")
    found.n_files += len(there)


def _compare_tables(run: RunDir, renderers: Mapping[str, Callable[[], bytes]], found: Verified) -> None:
    for name, render in renderers.items():
        with found.collecting(), reading(run.path / name):
            texts = (content.decode(errors="replace") for content in (render(), (run.path / name).read_bytes()))
            lines = zip_longest(*(text.splitlines(keepends=True) for text in texts), fillvalue="no such line")
            differing = [(number, want, got) for number, (want, got) in enumerate(lines, start=1) if want != got]
            for number, want, got in differing[:1]:
                more = f", and {len(differing) - 1} more lines differ" if len(differing) > 1 else ""
                found.problems.append(f"{name} line {number} must be {want!r} by the journal, got {got!r}{more}")


def _compare_summary(run: RunDir, expect: Callable[[], dict[str, Any]], found: Verified) -> None:
    with found.collecting(), reading(run.summary_json):
        summary = readers.read_summary(run)
        for name, value in expect().items():
            if summary.get(name) != value:
                got = summary.get(name)
                found.problems.append(f"summary.json: {name} must be {value!r} by the journal, got {got!r}")
