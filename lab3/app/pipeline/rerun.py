"""Repeat a finished run and compare."""

from dataclasses import replace
from itertools import count
from pathlib import Path

from lab3.app.pipeline.checks import check_files, check_same_settings
from lab3.app.pipeline.compare import Comparison, compare_runs
from lab3.app.pipeline.recipes import start_run
from lab3.app.pipeline.session import Session, with_settings
from lab3.base.backend import load_backend
from lab3.config import Config
from lab3.errors import ConfigError, UnfinishedError
from lab3.record.manifest import ModelFile
from lab3.record.rundir import RunDir, open_run


def rerun_run(
    path: Path,
    session: Session,
    *,
    out: Path = Path("runs"),
    run_id: str | None = None,
    model: Path | None = None,
    data: str | None = None,
    train_data: str | None = None,
    train: bool = False,
) -> tuple[RunDir, Comparison]:
    """Repeat the run at `path` in a new folder of `out` and compare; without `run_id` it is `<id>-rerun`.

    A network that the run trained is taken from its folder, or with `train` trained again. `model`, `data` and
    `train_data` say where the files are if they have moved. Raises `RunStateError` before anything is written if a file
    does not have the hash in the run's manifest, `UnfinishedError` if the run has not come to its end.
    """
    original = open_run(path)
    if not original.is_finished:
        raise UnfinishedError(f"only a finished run can be repeated, {path} is not; go on with `lab3 resume {path}`")
    manifest, config = original.read_manifest(), original.read_config()
    check_same_settings(original, manifest, config)
    config = _with_places(config, model, data, train_data)
    if train:
        if config.model.path is not None:
            raise ConfigError(
                f"--train is for runs that trained their network, but {path} loaded {config.model.path}; leave it out"
            )
        manifest = replace(manifest, model=ModelFile(None, None, None))
    elif manifest.kind == "train":
        raise ConfigError(f"{path} only trained a network and has no points; give --train to train it again")
    check_files(original, config, manifest, "put the file back, or say where it is with --model or --data")
    if config.model.path is None and not train:
        config = with_settings(config, model={"path": str(original.path / f"model.{config.train.format}")})
    # Whatever of it cannot be read shows now, not after the work.
    compare_runs(original, original, manifest.kind)
    if other := manifest.changed_versions(load_backend(session.device)):
        session.progress.warn(f"not computed as then, so the last bits may differ: {'; '.join(other)}")
    names = (f"{original.run_id}-rerun{number if number > 1 else ''}" for number in count(1))
    run_id = run_id or next(name for name in names if not (out / name).exists())
    run = start_run(config, session, kind=manifest.kind, out=out, run_id=run_id, repeats=manifest)
    return run, compare_runs(original, run, manifest.kind)


def _with_places(config: Config, model: Path | None, data: str | None, train_data: str | None) -> Config:
    if model is not None and config.model.path is None:
        raise ConfigError(
            "--model is for runs that loaded a model file; this one trained its own, which is in its folder"
        )
    return with_settings(
        config,
        model={"path": str(model)} if model else {},
        data={name: place for name, place in (("test", data), ("train", train_data)) if place},
    )
