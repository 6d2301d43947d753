"""Start a run or resume one: from materials through training and sweep to the summary."""

import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lab3.app.pipeline.checks import check_files, check_inputs, check_same_settings, check_same_versions
from lab3.app.pipeline.compressing import check_compression, compress_network
from lab3.app.pipeline.materials import Materials, Work, fetch_inputs, load_materials
from lab3.app.pipeline.record import EventLog, run_settings
from lab3.app.pipeline.session import Session, timed, with_settings
from lab3.app.pipeline.stopping import saying_what_is_kept
from lab3.app.pipeline.sweeping import sweep_network
from lab3.app.pipeline.training import summarise_training, train_network
from lab3.base.files import encode_json, sha256_file, write_atomically
from lab3.config import Config
from lab3.errors import RunStateError, StoppedError
from lab3.record.attempts import add_up, attempt, read_attempts
from lab3.record.manifest import Kind, Manifest, TrainedModel, hash_files, make_manifest, name_inputs, now
from lab3.record.rundir import RunDir, claim_run, new_run_id, open_run
from lab3.tracking import Mode, open_tracker
from lab3.tracking.events import Alert
from lab3.views.report import write_report

_REMEDY = "put the file back, or start a new run"


def start_run(
    config: Config,
    session: Session,
    *,
    kind: Kind = "sweep",
    out: Path = Path("runs"),
    run_id: str | None = None,
    repeats: Manifest | None = None,
) -> RunDir:
    """Train if the experiment has no model file, sweep unless `kind` is `train`; returns the run's folder.

    `repeats`: the manifest of a run whose model and data these must be.

    Raises a `Lab3Error` before anything is written if configuration, data, model or place cannot be used.
    """
    with claim_run(out, run_id or new_run_id(config.name)) as run, saying_what_is_kept(run):
        session.progress.say(f"run {run.path}")
        mode = session.announce_mode(config)
        config = with_absolute_paths(fetch_inputs(config, out, mode, session))
        if kind == "train":
            config = with_settings(config, model={"path": None, "sha256": None})
        if kind == "compress":
            check_compression(config)
        with session.progress.stoppable():
            materials = load_materials(config, config.model.path, session, trains=_trains(kind, config))
        model, data = materials.sources()
        if repeats is not None:
            check_inputs(repeats, name_inputs(model, data), _REMEDY)
        manifest = make_manifest(kind, config.model_dump(mode="json"), materials.device, model, data)
        run.start(config, manifest)
        return _work(run, config, manifest, materials, mode, session, is_resumed=False)


def resume_run(path: Path, session: Session, *, asked: Config | None = None) -> RunDir:
    """Finish the run at `path` from where its journal ends; a finished run is left as it is.

    Raises `RunStateError` if settings, model, data or versions are not those the run was started with, or not those of
    `asked` if it is given, or if it has been started as often as the session allows, `RunLockedError` if it is being
    worked on.
    """
    run = open_run(path)
    with run.lock(), saying_what_is_kept(run):
        config, manifest = run.read_config(), run.read_manifest()
        check_same_settings(run, manifest, config)
        if asked is not None:
            check_same_settings(run, manifest, with_absolute_paths(asked), has_places=True)
        if run.is_finished:
            session.progress.say(f"run {run.path} is finished; nothing is left to do")
            return run
        check_files(run, config, manifest, f"put the file back, or say where it is in {run.config_yaml}")
        n_attempts, limit = len(manifest.attempts), session.max_attempts
        if limit is not None and n_attempts >= limit:
            raise RunStateError(
                f"run {run.path} has been started {n_attempts} times and may be {limit} times; find out why it "
                "never ends, then raise --max-attempts"
            )
        session.progress.say(f"run {run.path}")
        mode = session.announce_mode(config)
        trained = run.path / f"model.{config.train.format}"
        with session.progress.stoppable():
            model_path = str(trained) if trained.exists() else config.model.path
            materials = load_materials(config, model_path, session, trains=_trains(manifest.kind, config))
        check_inputs(manifest, name_inputs(*materials.sources()), _REMEDY)
        check_same_versions(run, manifest, materials.device)
        manifest = replace(manifest, attempts=(*manifest.attempts, now()))
        run.write_manifest(manifest)
        return _work(run, config, manifest, materials, mode, session, is_resumed=True)


def _trains(kind: Kind, config: Config) -> bool:
    """True for a run that trains what it has made smaller."""
    return kind == "compress" and config.compress.finetune > 0


def _work(
    run: RunDir,
    config: Config,
    manifest: Manifest,
    materials: Materials,
    mode: Mode,
    session: Session,
    *,
    is_resumed: bool,
) -> RunDir:
    progress = session.progress
    with attempt(run, manifest.device):
        # Also when the run goes on: an empty folder can be lost with the power.
        run.figures.mkdir(exist_ok=True)
        # It can wait for a server.
        with progress.stoppable():
            settings = replace(run_settings(run, config), is_resumed=is_resumed)
            tracker = open_tracker(mode, settings, progress.warn, progress.is_asked_to_stop)
        try:
            work = Work(run, config, manifest, materials, EventLog(run, config, tracker), progress)
            _compute(work, session.hourly_price)
        except BaseException as error:
            tracker.close(error.exit_code if isinstance(error, StoppedError) else 1)
            if isinstance(error, FileNotFoundError) and not run.manifest_json.exists():
                reason = f"run {run.path} was removed while it was worked on ({error}); start it again"
                raise RunStateError(reason) from error
            raise
        if place := tracker.close(0):
            progress.say(place)
    return run


def _compute(work: Work, hourly_price: float | None) -> None:
    """All that is missing of the run."""
    run, events, elapsed = work.run, work.events, dict[str, float]()
    events.replay("epochs")
    if work.materials.model_path is None:
        with timed(elapsed, "train_s"):
            work = replace(work, materials=train_network(work))
    if work.manifest.model.sha256 is None:
        path = run.path / f"model.{work.config.train.format}"
        model = TrainedModel(str(path), sha256_file(path))
        work = replace(work, manifest=replace(work.manifest, model=model))
        run.write_manifest(work.manifest)
    events.replay("inputs")
    if work.manifest.kind == "train":
        summary = summarise_training(work)
    else:
        compute = compress_network if work.manifest.kind == "compress" else sweep_network
        summary = compute(work, elapsed)
    cost = add_up(read_attempts(run, now_s=time.time()), hourly_price)
    finished = replace(work.manifest, finished_at=now(), elapsed_s=elapsed, cost=cost)
    _finish(work, finished, {"run_id": run.run_id, **summary})
    events.replay("compact")
    write_report(run.path)
    if "sentence" in summary:
        events.log(Alert(f"{work.manifest.kind} finished", summary["sentence"]))


def _finish(work: Work, manifest: Manifest, summary: dict[str, Any]) -> None:
    """Write the manifest with the SHA-256 of every file by name, then `summary.json`, which ends the run.

    The summary is hashed before it is there: a finished run always has hashes, and all of them. Raises `RunStateError`
    if the folder's configuration is no longer the one that the run worked with.
    """
    run = work.run
    if run.read_config() != work.config:
        raise RunStateError(
            f"{run.config_yaml} was changed while the run worked; put back what it was, and `lab3 resume {run.path}`"
        )
    content = encode_json(summary)
    files = {**hash_files(run.path), run.summary_json.name: sha256(content).hexdigest()}
    run.write_manifest(replace(manifest, files=files))
    write_atomically(run.summary_json, content)


def with_absolute_paths(config: Config) -> Config:
    """So that a resumed run finds its files from any folder."""
    data = {
        name: str(Path(source).absolute())
        for name, source in (("test", config.data.test), ("train", config.data.train))
        if source is not None and source not in ("digits", "cifar10")
    }
    model = {"path": str(Path(config.model.path).absolute())} if config.model.path else {}
    return with_settings(config, data=data, model=model)
