"""Start a run or resume one: from materials through training and sweep to the summary."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Literal

from lab3.backend import Device
from lab3.config import Config
from lab3.errors import RunStateError, StoppedError
from lab3.manifest import make_manifest, now
from lab3.pipeline.checks import check_inputs, check_room, check_same_settings, check_same_versions
from lab3.pipeline.finishing import finish_run
from lab3.pipeline.materials import Materials, Shared, fetch_inputs, load_materials, reuse
from lab3.pipeline.record import flatten_summary, tell_inputs, tell_results, tell_training, tracker_settings
from lab3.pipeline.stopping import saying_what_is_kept
from lab3.pipeline.sweeping import sweep_network
from lab3.pipeline.training import summarise_training, train_network
from lab3.progress import Progress
from lab3.rundir import RunDir, claim_run, new_run_id, open_run
from lab3.timing import timed
from lab3.tracking import Mode, Tracker, choose_mode, open_tracker, tracking_folder

Kind = Literal["sweep", "train"]


def start_run(
    config: Config,
    *,
    kind: Kind = "sweep",
    out: Path = Path("runs"),
    run_id: str | None = None,
    device: Device = "auto",
    mode: str | None = None,
    progress: Progress,
    shared: Shared | None = None,
    repeats: dict[str, Any] | None = None,
) -> RunDir:
    """Train if the experiment has no model file, sweep unless `kind` is `train`; returns the run's folder.

    `repeats`: the manifest of a run whose model and data these must be.

    Raises a `Lab3Error` before anything is written if configuration, data, model or place cannot be used.
    """
    shared = {} if shared is None else shared
    with claim_run(out, run_id or new_run_id(config.name)) as run, saying_what_is_kept(run):
        progress.say(f"run {run.path}")
        tracking_mode = announce_mode(mode, config, shared, progress)
        config = fetch_inputs(config, out, tracking_mode, shared, progress)
        if kind == "train":
            config = config.model_copy(update={"model": config.model.model_copy(update={"path": None, "sha256": None})})
        config = with_absolute_paths(config)
        with progress.stoppable():
            materials = load_materials(config, config.model.path, device, progress, shared)
        if repeats is not None:
            materials.check_unchanged(repeats)
        check_room(run, config, materials)
        manifest = make_manifest(
            kind=kind,
            seed=config.seed,
            device=materials.device,
            model=materials.model_path,
            model_sha256=materials.model_sha256,
            test=materials.test,
            train=materials.train,
            artifacts=shared.get(("artifacts",), {}),
        )
        run.begin(config, manifest)
        return _work(run, config, materials, tracking_mode, progress, is_resumed=False)


def resume_run(
    path: Path,
    *,
    device: Device = "auto",
    mode: str | None = None,
    max_attempts: int | None = None,
    progress: Progress,
    shared: Shared | None = None,
    asked: Config | None = None,
) -> RunDir:
    """Finish the run at `path` from where its journal ends; a finished run is left as it is.

    Raises `RunStateError` if settings, model, data or versions are not those the run was started with, or not those of
    `asked` if it is given, or if it has been started `max_attempts` times already, `RunLockedError` if it is being
    worked on.
    """
    run, shared = open_run(path), {} if shared is None else shared
    with run.lock(), saying_what_is_kept(run):
        config, manifest = run.read_config(), run.read_manifest()
        check_same_settings(run, manifest, config)
        if asked is not None:
            check_same_settings(run, manifest, with_absolute_paths(asked), has_places=True)
        if run.is_finished:
            progress.say(f"run {run.path} is finished; nothing is left to do")
            return run
        check_inputs(run, config, manifest, say_where=f"in {run.config_yaml}")
        n_attempts = len(manifest.get("attempts", ()))
        if max_attempts is not None and n_attempts >= max_attempts:
            raise RunStateError(
                f"run {run.path} has been started {n_attempts} times and may be {max_attempts} times; find out why it "
                "never ends, then raise --max-attempts"
            )
        progress.say(f"run {run.path}")
        tracking_mode = announce_mode(mode, config, shared, progress)
        trained = run.path / f"model.{config.train.format}"
        model_path = str(trained) if trained.exists() else config.model.path
        with progress.stoppable():
            materials = load_materials(config, model_path, device, progress, shared)
        materials.check_unchanged(manifest)
        check_same_versions(run, manifest, materials.device)
        check_room(run, config, materials)
        return _work(run, config, materials, tracking_mode, progress, is_resumed=True)


def start_over(path: Path, *, device: Device = "auto", mode: str | None = None, progress: Progress) -> RunDir:
    """The run at `path` from its beginning, as a new run beside it: `<id>-2`, or the next number that is free."""
    run = open_run(path)
    kind: Kind = "train" if run.read_manifest().get("kind") == "train" else "sweep"
    return start_run(
        run.read_config(), kind=kind, out=run.path.absolute().parent, run_id=free_run_id(run.path), device=device,
        mode=mode, progress=progress,
    )  # fmt: skip


def free_run_id(path: Path) -> str:
    """`<id>-2` of the run or group at `path`, or the next number that is free beside it."""
    path = path.absolute()
    return next(name for number in count(2) if not path.with_name(name := f"{path.name}-{number}").exists())


def _work(
    run: RunDir, config: Config, materials: Materials, mode: Mode, progress: Progress, *, is_resumed: bool
) -> RunDir:
    manifest = run.read_manifest()
    # Also when the run goes on: an empty folder can be lost with the power.
    run.figures.mkdir(exist_ok=True)
    manifest["attempts"] = [*manifest.get("attempts", ()), now()]
    run.write_manifest(manifest)
    elapsed: dict[str, float] = {}
    with _tracked(run, config, mode, progress, is_resumed=is_resumed) as (tracker, summary):
        tell_training(run, tracker)
        if materials.model_path is None:
            with timed(elapsed, "train_s"):
                materials = train_network(run, config, materials, tracker, progress)
        if manifest["model"]["sha256"] is None:
            manifest["model"] = {"path": str(materials.model_path), "sha256": materials.model_sha256}
            run.write_manifest(manifest)
        tell_inputs(run, config, tracker)
        if manifest["kind"] == "train":
            summary.update(summarise_training(run, config, materials))
        else:
            summary.update(sweep_network(run, config, materials, tracker, progress, elapsed))
        finish_run(
            run, config, manifest | {"finished_at": now(), "elapsed_s": elapsed}, {"run_id": run.run_id, **summary}
        )
        tell_results(run, tracker)
    return run


@contextmanager
def _tracked(
    run: RunDir, config: Config, mode: Mode, progress: Progress, *, is_resumed: bool
) -> Iterator[tuple[Tracker, dict[str, Any]]]:
    """A tracker for the run, and a dictionary whose content becomes the tracker's summary at the end."""
    tracking = config.tracking
    # It can wait for a server.
    with progress.stoppable():
        tracker = open_tracker(
            mode,
            tracking_folder(run.path),
            run.run_id,
            warn=progress.warn,
            is_stopping=progress.is_asked_to_stop,
            is_resumed=is_resumed,
            start_timeout_s=tracking.start_timeout_s,
            finish_timeout_s=tracking.finish_timeout_s,
            **tracker_settings(run, config),
        )
    summary: dict[str, Any] = {}
    try:
        yield tracker, summary
    except FileNotFoundError as error:
        tracker.finish({}, exit_code=1)
        if run.manifest_json.exists():
            raise
        raise RunStateError(f"run {run.path} was removed while it was worked on ({error}); start it again") from error
    except StoppedError as stopped:
        tracker.finish({}, stopped.exit_code, is_preempted=True)
        raise
    except BaseException:
        tracker.finish({}, exit_code=1)
        raise
    place = tracker.finish(flatten_summary({"run_id": run.run_id, **summary}), exit_code=0)
    if place:
        progress.say(place)


def announce_mode(flag: str | None, config: Config, shared: Shared, progress: Progress) -> Mode:
    """Where to track, said once for all runs that share `shared`."""
    mode, reason = choose_mode(flag, config.tracking.mode)
    reuse(shared, ("mode",), lambda: progress.say(f"W&B {mode}: {reason}"))
    return mode


def with_absolute_paths(config: Config) -> Config:
    """So that a resumed run finds its files from any folder."""
    data = {
        name: str(Path(source).absolute())
        for name, source in (("test", config.data.test), ("train", config.data.train))
        if source is not None and source not in ("digits", "cifar10")
    }
    model = {"path": str(Path(config.model.path).absolute())} if config.model.path else {}
    return config.model_copy(
        update={"data": config.data.model_copy(update=data), "model": config.model.model_copy(update=model)}
    )
