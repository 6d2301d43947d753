"""The recipes: run, train and resume an experiment. The only place that joins the parts."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3 import outputs
from lab3.architectures import build_model
from lab3.backend import Device, compile_function, load_backend, map_blocks
from lab3.capture import capture, image_weights
from lab3.config import Config
from lab3.data import Dataset, check_dataset, load_dataset, sha256_file
from lab3.engine import SweepPoint, sweep_points
from lab3.errors import ConfigError, DataError, RunStateError
from lab3.figures import channel_pictures
from lab3.journal import open_journal
from lab3.manifest import make_manifest, now
from lab3.model_files import load_model, save_model
from lab3.preprocess import Preprocessing
from lab3.progress import Progress
from lab3.rank import channel_stats, plan_pruning
from lab3.rundir import RunDir, check_new_run, create_run, new_run_id, open_run
from lab3.schedule import parse_schedule
from lab3.split import split_model
from lab3.tracking import ChannelTable, Mode, Tracker, choose_mode, open_tracker
from lab3.training import Augmentation, Epoch, best_epoch, count_batches, train_model

Kind = Literal["sweep", "train"]


@dataclass(frozen=True)
class Materials:
    """Everything a run works on, loaded and checked. `model` is untrained where `train` is not None."""

    device: str
    model: Any
    model_path: Path | None
    test: Dataset
    train: Dataset | None
    preprocess: Preprocessing
    schedule: tuple[int, ...]

    @property
    def model_sha256(self) -> str | None:
        """Of the model's file; None before there is one."""
        return sha256_file(self.model_path) if self.model_path else None


def start_run(
    config: Config,
    *,
    kind: Kind = "sweep",
    out: Path = Path("runs"),
    run_id: str | None = None,
    device: Device = "auto",
    mode: str | None = None,
    progress: Progress,
) -> RunDir:
    """Train if the experiment has no model file, sweep unless `kind` is `train`; returns the run's folder.

    Raises a `Lab3Error` before anything is written if configuration, data, model or place cannot be used.
    """
    run_id = run_id or new_run_id(config.name)
    check_new_run(out, run_id)
    tracking_mode = _choose_mode(mode, config, progress)
    if kind == "train":
        config = config.model_copy(update={"model": config.model.model_copy(update={"path": None})})
    config = _with_absolute_paths(config)
    materials = _load_materials(config, config.model.path, device, progress)
    manifest = make_manifest(
        kind=kind,
        seed=config.seed,
        device=materials.device,
        model=materials.model_path,
        model_sha256=materials.model_sha256,
        test=materials.test,
        train=materials.train,
    )
    run = create_run(out, run_id, config, manifest)
    with run.lock():
        return _work(run, config, materials, tracking_mode, progress, is_resumed=False)


def resume_run(path: Path, *, device: Device = "auto", mode: str | None = None, progress: Progress) -> RunDir:
    """Finish the run at `path` from where its journal ends; a finished run is left as it is.

    Raises `RunStateError` if model or data are not those the run was started with, `RunLockedError` if it is being
    worked on.
    """
    run = open_run(path)
    with run.lock():
        if run.is_finished:
            progress.say(f"run {run.path} is finished; nothing is left to do")
            return run
        config = run.read_config()
        manifest = run.read_manifest()
        tracking_mode = _choose_mode(mode, config, progress)
        trained = run.path / f"model.{config.train.format}"
        model_path = str(trained) if trained.exists() else config.model.path
        materials = _load_materials(config, model_path, device, progress)
        _check_unchanged("model", manifest["model"]["sha256"], materials.model_sha256)
        _check_unchanged("test data", manifest["data"]["test"]["sha256"], materials.test.sha256)
        if materials.train is not None:
            _check_unchanged("training data", manifest["data"]["train"]["sha256"], materials.train.sha256)
        return _work(run, config, materials, tracking_mode, progress, is_resumed=True)


def _work(
    run: RunDir, config: Config, materials: Materials, mode: Mode, progress: Progress, *, is_resumed: bool
) -> RunDir:
    manifest = run.read_manifest()
    elapsed: dict[str, float] = {}
    with _tracked(run, config, mode, progress, is_resumed=is_resumed) as (tracker, summary):
        if tracker.wants_all_points:
            for epoch in outputs.read_epochs(run):
                tracker.log_epoch(epoch)
        if materials.train is not None:
            with _timed(elapsed, "train_s"):
                materials = _train(run, config, materials, tracker, progress)
            manifest["model"] = {"path": str(materials.model_path), "sha256": materials.model_sha256}
            run.write_json(run.manifest_json, manifest)
        if materials.model_path is not None and config.tracking.log.model:
            tracker.log_model(materials.model_path, manifest["model"]["sha256"])
        if manifest["kind"] == "train":
            summary.update(_summarise_training(run, materials, config))
        else:
            summary.update(_sweep(run, config, materials, tracker, progress, elapsed))
    run.write_json(run.manifest_json, manifest | {"finished_at": now(), "elapsed_s": elapsed})
    run.write_json(run.summary_json, {"run_id": run.run_id, **summary})
    return run


def _load_materials(config: Config, model_path: str | None, device: Device, progress: Progress) -> Materials:
    if model_path is None and config.model.architecture is None:
        raise ConfigError(
            "the experiment must have a model: set model.path (or --model) to load one, "
            "or model.architecture to train one"
        )
    device_in_use = load_backend(device)
    import keras

    keras.utils.set_random_seed(config.seed)
    if model_path is not None:
        model = load_model(model_path)
    else:
        assert config.model.architecture is not None
        model = build_model(config.model.architecture)
    # Cutting an untrained model too tells now, not after hours, that it cannot be cut or the schedule does not fit.
    split = split_model(model, config.prune.layer)
    schedule = parse_schedule(config.sweep.schedule, split.n_channels)
    not_swept = sorted(set(config.sweep.feature_maps_k) - set(schedule))
    if not_swept:
        raise ConfigError(
            f"sweep.feature_maps_k must be K of the schedule {config.sweep.schedule!r}, got {not_swept[0]}"
        )

    progress.say(f"reading {config.data.test}")
    preprocess = Preprocessing(config.data.scale, config.data.mean, config.data.std)
    test = load_dataset(config.data.test, "test", config.data.color)
    check_dataset(test, model.input_shape[1:], split.n_labels)
    preprocess.check(test.images_nhwc.shape[-1])
    train = None
    if model_path is None:
        train = load_dataset(config.data.train or config.data.test, "train", config.data.color)
        check_dataset(train, model.input_shape[1:], split.n_labels)
        _check_train_and_test(train, test)
    return Materials(
        device=device_in_use,
        model=model,
        model_path=Path(model_path) if model_path else None,
        test=test,
        train=train,
        preprocess=preprocess,
        schedule=schedule,
    )


def _train(run: RunDir, config: Config, materials: Materials, tracker: Tracker, progress: Progress) -> Materials:
    assert materials.train is not None
    settings = config.train
    images_nhwc = materials.preprocess(materials.train.images_nhwc)
    n_batches = count_batches(len(images_nhwc), settings.validation_fraction, settings.batch_size)
    progress.say(f"training {config.model.architecture} on {len(images_nhwc):,} images of {materials.train.source}")
    with progress.bar("train", settings.epochs * n_batches, "batches") as advance:

        def tell(epoch: Epoch) -> None:
            tracker.log_epoch(epoch)
            shown = epoch.accuracy if epoch.val_accuracy is None else epoch.val_accuracy
            name = "accuracy" if epoch.val_accuracy is None else "validation accuracy"
            advance(0, f"epoch {epoch.epoch}/{settings.epochs}, {name} {shown:.4f}")

        history = train_model(
            materials.model,
            images_nhwc,
            materials.train.labels_n,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            validation_fraction=settings.validation_fraction,
            patience=settings.patience,
            augmentation=Augmentation(**settings.augment.model_dump()),
            seed=config.seed,
            on_epoch=tell,
            on_batch=lambda n: advance(n, ""),
        )
    progress.say(f"kept the weights of epoch {best_epoch(history).epoch} of {len(history)}")
    outputs.write_epochs(run, history)
    tracker.log_figures({"learning_curves": outputs.draw_training(run, history)})
    path = run.path / f"model.{settings.format}"
    save_model(materials.model, path)
    return replace(materials, model_path=path, train=None)


def _summarise_training(run: RunDir, materials: Materials, config: Config) -> dict[str, Any]:
    predict = compile_function(lambda images_nhwc: [materials.model(images_nhwc, training=False)])
    correct = 0
    for rows, (scores_nl,) in map_blocks(
        lambda block: predict(materials.preprocess(block)), materials.test.images_nhwc, config.sweep.capture_batch_size
    ):
        correct += int((scores_nl.argmax(axis=1) == materials.test.labels_n[rows]).sum())
    return {
        "model": str(materials.model_path),
        "kept_epoch": best_epoch(outputs.read_epochs(run)).epoch,
        "n_images": len(materials.test),
        "correct": correct,
        "accuracy": correct / len(materials.test),
    }


def _sweep(
    run: RunDir,
    config: Config,
    materials: Materials,
    tracker: Tracker,
    progress: Progress,
    elapsed: dict[str, float],
) -> dict[str, Any]:
    prune, test = config.prune, materials.test
    split = split_model(materials.model, prune.layer, measured=prune.measured, bias=prune.bias)
    progress.say(
        f"pruning {split.layer_name}: {split.n_channels} channels, {len(materials.schedule)} values of K, "
        f"{len(test):,} images"
    )
    if split.reason:
        progress.say(f"the network behind {split.layer_name} is run whole for every K: {split.reason}")
    with _timed(elapsed, "capture_s"), progress.bar("capture", len(test), "images") as advance:
        captured = capture(
            split,
            test.images_nhwc,
            materials.preprocess,
            weights_n=image_weights(len(test), prune.average, prune.average_batch_size),
            batch_size=config.sweep.capture_batch_size,
            cache_mb=config.sweep.cache_mb,
            on_progress=lambda n: advance(n, ""),
        )
    if not run.capture_npz.exists():
        outputs.write_capture(run, captured.mean_map_hwc)
    mean_map_hwc = outputs.read_capture(run)
    importance_c = mean_map_hwc.mean(axis=(0, 1))
    steps = plan_pruning(importance_c, split.pruned_output_c, materials.schedule, prune.ranking)
    channels = channel_stats(importance_c, steps)
    outputs.write_channels(run, channels)
    drawn = [step for step in steps if step.k in config.sweep.feature_maps_k]
    maps = outputs.draw_feature_maps(run, split.layer_name, mean_map_hwc, split.pruned_output_c, drawn)
    if config.tracking.log.channel_table:
        tracker.log_channels(ChannelTable(channels, channel_pictures(mean_map_hwc)))
    if config.tracking.log.feature_maps:
        tracker.log_figures(maps)

    header = {
        "journal": 1,
        "model": materials.model_sha256,
        "data": test.sha256,
        "settings": _settings_of_numbers(config),
    }
    with _timed(elapsed, "sweep_s"), open_journal(run.journal_jsonl, header) as journal:
        points = outputs.points_of_rows(journal.rows)
        n_told = 0

        def tell(point: SweepPoint) -> None:
            nonlocal n_told
            n_told += 1
            if n_told == len(steps):
                curve = outputs.draw_accuracy(run, points, split.layer_name, split.n_channels)
                tracker.log_figures({"accuracy_curve": curve})
            tracker.log_point(point)

        if tracker.wants_all_points:
            for point in points:
                tell(point)
        else:
            n_told = len(points)
        with progress.bar("sweep", len(steps), "K") as advance:
            advance(len(points), "")
            done = {point.k for point in points}
            for point in sweep_points(
                split,
                captured.features,
                test.labels_n,
                steps,
                done=done,
                batch_size=config.sweep.batch_size,
                shortcut=config.sweep.shortcut,
            ):
                journal.append(outputs.row_of_point(point))
                points.append(point)
                tell(point)
                advance(1, f"K={point.k} accuracy {point.accuracy:.4f}")
                if point.k == 0 and point.accuracy < 1.5 / split.n_labels:
                    progress.warn(
                        f"the baseline accuracy is {point.accuracy:.4f}, about chance for {split.n_labels} classes: "
                        "check data.scale, data.mean, data.std and the order of the classes"
                    )
    points.sort(key=lambda point: point.k)
    outputs.write_results(run, points)
    outputs.write_metrics(run, points, test.class_names or [str(label) for label in range(split.n_labels)])
    outputs.draw_accuracy(run, points, split.layer_name, split.n_channels)
    layer = {"layer": split.layer_name, "layer_index": split.layer_index, "n_channels": split.n_channels}
    return outputs.summarise(points, layer, prune.model_dump(exclude={"layer"}))


@contextmanager
def _tracked(
    run: RunDir, config: Config, mode: Mode, progress: Progress, *, is_resumed: bool
) -> Iterator[tuple[Tracker, dict[str, Any]]]:
    """A tracker for the run, and a dictionary whose content becomes the tracker's summary at the end."""
    tracking = config.tracking
    manifest = run.read_manifest()
    tracker = open_tracker(
        mode,
        run.path,
        run.run_id,
        warn=progress.warn,
        is_resumed=is_resumed,
        project=tracking.project,
        entity=tracking.entity,
        group=tracking.group,
        job_type=manifest["kind"],
        notes=tracking.notes,
        tags=tracking.tags,
        config={**config.model_dump(), "manifest": manifest},
    )
    summary: dict[str, Any] = {}
    try:
        yield tracker, summary
    except BaseException:
        tracker.finish({}, exit_code=1)
        raise
    place = tracker.finish(summary, exit_code=0)
    if place:
        progress.say(place)


@contextmanager
def _timed(elapsed: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    elapsed[name] = round(time.perf_counter() - start, 3)


def _choose_mode(flag: str | None, config: Config, progress: Progress) -> Mode:
    mode, reason = choose_mode(flag, config.tracking.mode)
    progress.say(f"W&B {mode}: {reason}")
    return mode


def _settings_of_numbers(config: Config) -> dict[str, Any]:
    """The settings that change what the points mean; seed and training act through the model's hash."""
    return {
        **config.data.model_dump(exclude={"train", "test"}),
        **config.prune.model_dump(),
        "schedule": config.sweep.schedule,
        "shortcut": config.sweep.shortcut,
    }


def _with_absolute_paths(config: Config) -> Config:
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


def _check_unchanged(what: str, expected: str | None, found: str | None) -> None:
    if expected is not None and expected != found:
        raise RunStateError(
            f"the {what} must be what the run was started with (SHA-256 {expected}), got {found}; "
            "put the file back, or start a new run"
        )


def _check_train_and_test(train: Dataset, test: Dataset) -> None:
    if train.class_names is not None and test.class_names is not None and train.class_names != test.class_names:
        raise DataError(
            f"training and test images must have the same classes, got {', '.join(train.class_names)} "
            f"and {', '.join(test.class_names)}"
        )
    if np.array_equal(train.images_nhwc, test.images_nhwc):
        raise DataError(
            f"a network must be tested on other images than it was trained on, got {train.source} for both; "
            "give training images with --train-data or data.train"
        )
