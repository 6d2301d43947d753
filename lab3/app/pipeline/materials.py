"""Everything a run works on, loaded and checked before anything is written."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lab3.app.pipeline.answers import has_training_images, scores_on_training_images, why_nothing
from lab3.app.pipeline.record import EventLog
from lab3.app.pipeline.session import Session, Shared, with_settings
from lab3.base.backend import load_backend
from lab3.base.files import sha256_file
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.errors import ConfigError, DataError
from lab3.inputs.architectures import build_model
from lab3.inputs.data import Dataset, Split, check_dataset, load_dataset
from lab3.inputs.model_files import load_model
from lab3.inputs.preprocess import Preprocessing
from lab3.pruning.schedule import parse_schedule
from lab3.pruning.split import split_model
from lab3.record.manifest import Manifest, ModelFile, Source, Sources
from lab3.record.rundir import RunDir
from lab3.tracking import Mode
from lab3.tracking.artifacts import PREFIX, fetch_artifact


def fetch_inputs(config: Config, out: Path, mode: Mode, session: Session) -> Config:
    """Model and data that are W&B artifacts, fetched to `out/.artifacts`; returns `config` with where they are now.

    The session keeps the artifacts' names. Raises `ConfigError` if W&B is not online, `ServerError` if it does not
    give them.
    """
    places: list[tuple[str, str, Literal["model", "dataset"]]] = [
        ("model", "path", "model"), ("data", "test", "dataset"), ("data", "train", "dataset")
    ]  # fmt: skip
    for section, key, type in places:
        address = getattr(getattr(config, section), key)
        if address is None or not address.startswith(PREFIX):
            if "://" in (address or ""):
                # Not shown: it can hold a password.
                raise ConfigError(
                    f"{section}.{key} must be a path or {PREFIX}entity/project/name:alias, got an address of another "
                    "kind; download it and give the file"
                )
            continue
        if mode != "online":
            raise ConfigError(f"{address} needs W&B online, but it is {mode}; give a file, or --mode online with a key")
        session.progress.say(f"fetching {address}")
        path, name = fetch_artifact(address, type, (out / ".artifacts").absolute())
        session.shared.artifacts[str(path)] = name
        config = with_settings(config, **{section: {key: str(path)}})
    return config


def load_configured_model(config: Config, model_path: str | None, session: Session) -> Any:
    """The model at `model_path` with the experiment's output, hash and classes, loaded once a session; None: untrained.

    Raises as `load_model` does, and `ConfigError` if the experiment has no model.
    """
    model = config.model
    if model_path is None:
        if model.architecture is None:
            raise ConfigError(
                "the experiment must have a model: set model.path (or --model) to load one, "
                "or model.architecture to train one"
            )
        return build_model(model.architecture)
    models = session.shared.models
    # Cells of a grid can take other outputs of one file.
    key = f"{model_path} {model.model_dump_json()}"
    if key not in models:
        models[key] = load_model(model_path, model.output, sha256=model.sha256, allow_classes=model.allow_classes)
    return models[key]


@dataclass(frozen=True)
class Materials:
    """`model` is untrained while `model_path` is None. `train` is there if the run trains or scores on it."""

    device: str
    model: Any
    model_path: Path | None
    test: Dataset
    train: Dataset | None
    preprocess: Preprocessing
    schedule: tuple[int, ...]
    scored_on: Dataset
    shared: Shared

    def sources(self) -> tuple[ModelFile, Sources]:
        """Model and data as the manifest names them."""
        artifacts, place = self.shared.artifacts, self.model_path
        path, sha256 = (str(place), sha256_file(place)) if place else (None, None)
        model = ModelFile(path, sha256, artifacts.get(str(path)))

        def describe(images: Dataset) -> Source:
            return Source(images.source, images.sha256, len(images), artifacts.get(images.source))

        return model, Sources(describe(self.test), None if self.train is None else describe(self.train))


@dataclass(frozen=True)
class Work:
    """A run that is worked on: its folder and settings, what it works on, and where its events are logged."""

    run: RunDir
    config: Config
    manifest: Manifest
    materials: Materials
    events: EventLog
    progress: Progress


def load_materials(config: Config, model_path: str | None, session: Session, *, trains: bool = False) -> Materials:
    """Model and data, loaded once a session; training images too where the model `trains` on.

    Raises a `Lab3Error` if they do not fit each other or `config`.
    """
    device_in_use = load_backend(session.device)
    import keras

    keras.utils.set_random_seed(config.seed)
    model = load_configured_model(config, model_path, session)
    # Cutting an untrained model too shows now, not after hours, that it cannot be cut or the schedule does not fit.
    prune = config.prune
    split = split_model(model, prune.layer, effect=prune.effect, measured=prune.measured, bias=prune.bias)
    schedule = parse_schedule(config.sweep.schedule, split.n_channels)
    not_swept = sorted(set(config.sweep.feature_maps_k) - set(schedule))
    if not_swept:
        raise ConfigError(
            f"sweep.feature_maps_k must be K of the schedule {config.sweep.schedule!r}, got {not_swept[0]}"
        )

    preprocess = Preprocessing(config.data.scale, config.data.mean, config.data.std)
    test = _load_data(config, config.data.test, "test", config.data.test_sha256, "", session)
    check_dataset(test, model.input_shape[1:], split.n_labels)
    preprocess.check(test.images_nhwc.shape[-1])
    if config.sweep.until == "certified" and (reason := why_nothing(config, len(test))):
        raise ConfigError(f"sweep.until must be all where nothing can be certified, got certified: {reason}")
    score_on_train = scores_on_training_images(config)
    train = None
    if trains and not has_training_images(config):
        raise ConfigError("--finetune needs training images, and the run has none; give --train-data")
    if model_path is None or score_on_train or trains:
        source = config.data.train or config.data.test
        use = f" for {'training' if model_path is None or trains else 'scoring channels'}"
        train = _load_data(config, source, "train", config.data.train_sha256, use, session)
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
        scored_on=train if score_on_train and train is not None else test,
        shared=session.shared,
    )


def _load_data(config: Config, source: str, split: Split, sha256: str | None, use: str, session: Session) -> Dataset:
    datasets = session.shared.datasets
    if (source, split) not in datasets:
        session.progress.say(f"reading {source}{use}")
        datasets[source, split] = load_dataset(source, split, config.data.color, sha256=sha256)
    return datasets[source, split]


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
