"""Commands that compute: run, sweep, train, resume."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lab3.cli.options import (
    attempts_option,
    data_options,
    overrides_from,
    parse_layer,
    placing_options,
    tracking_file,
    variant_options,
    working_options,
)


@click.command("run")
@click.argument("experiment", type=click.Path(path_type=Path))
@click.argument("assignments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--model", metavar="PATH", help="Model file (.h5 or .keras) to load in place of training one.")
@data_options
@variant_options
@placing_options
@attempts_option
@working_options
def run_command(
    experiment: Path,
    assignments: tuple[str, ...],
    model: str | None,
    data: str | None,
    train_data: str | None,
    overrides: tuple[str, ...],
    **options: Any,
) -> None:
    """Run an experiment file: train or load its model, then sweep every K.

    KEY=VALUE is short for --set KEY=VALUE. The last line printed is the run's folder.

    \b
    Examples:
      lab3 run experiments/digits.yaml
      lab3 run experiments/digits.yaml seed=1 prune.criterion=apoz
      lab3 run experiments/vgg16_cifar10.yaml --model my.h5 --data cifar10-test.zip
    """
    settings = overrides_from((*overrides, *assignments), model__path=model, data__test=data, data__train=train_data)
    _start_sweep(experiment, settings, **options)


@click.command("sweep")
@click.argument("model")
@data_options
@variant_options
@placing_options
@attempts_option
@working_options
def sweep_command(
    model: str, data: str | None, train_data: str | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Sweep every K of a model file, without an experiment file.

    Pixels are divided by 255; --set data.scale, data.mean and data.std change that to what the model was trained with.

    \b
    Examples:
      lab3 sweep my.h5 --data cifar10-test.zip
      lab3 sweep my.keras --data photos/ --layer conv5 --set sweep.schedule=0:C:8
      lab3 sweep my.h5 --data cifar10-test.zip --criterion mean_activation --criterion filter_l1
      lab3 sweep my.h5 --data cifar10-test.zip --layer all
    """
    if data is None:
        raise click.UsageError("Missing option '--data': which labelled test images to measure accuracy on.")
    settings = overrides_from(overrides, model__path=model, data__test=data, data__train=train_data)
    _start_sweep(None, settings, **options)


@click.command("train")
@click.argument("experiment", type=click.Path(path_type=Path))
@data_options
@placing_options
@attempts_option
@working_options
def train_command(
    experiment: Path, data: str | None, train_data: str | None, overrides: tuple[str, ...], **options: Any
) -> None:
    """Train an experiment's network and save it in a run folder, without a sweep.

    \b
    Example:
      lab3 train experiments/simplecnn_cifar10.yaml --set train.epochs=20
    """
    _start(experiment, overrides_from(overrides, data__test=data, data__train=train_data), kind="train", **options)


@click.command("resume")
@click.argument("run", type=click.Path(path_type=Path))
@working_options
@attempts_option
@click.option("--new", is_flag=True, help="Start the run over beside it, with its settings and these versions.")
def resume_command(run: Path, device: Any, mode: str | None, max_attempts: int | None, new: bool) -> None:
    """Finish a run that was stopped, from the last point in its journal, or the last epoch; or a group of runs.

    Model, data, settings and versions must be those it was begun with.

    \b
    Example:
      lab3 resume runs/vgg16_cifar10-20260101-120000-ab12
    """
    from lab3.cli.terminal import TerminalProgress, show_group, show_run
    from lab3.pipeline import is_group, resume_group, resume_run, start_group_over, start_over

    options: dict[str, Any] = {"device": device, "mode": mode}
    if not new:
        options["max_attempts"] = max_attempts
    with TerminalProgress() as progress:
        if is_group(run):
            group = (start_group_over if new else resume_group)(run, progress=progress, **options)
        else:
            done = (start_over if new else resume_run)(run, progress=progress, **options)
    if is_group(run):
        show_group(group)
    else:
        show_run(done)


def _start_sweep(
    experiment: Path | None,
    settings: list[str],
    *,
    layers: tuple[str, ...],
    criteria: tuple[str, ...],
    infer: bool,
    **options: Any,
) -> None:
    """One run, or with several layers or criteria a group of runs."""
    settings = [*settings, *["sweep.shortcut=inferred"] * infer]
    parsed = [parse_layer(layer) for layer in layers]
    if len(parsed) <= 1 and len(criteria) <= 1 and parsed != ["all"]:
        chosen = {"prune__layer": parsed[0] if parsed else None, "prune__criterion": criteria[0] if criteria else None}
        _start(experiment, [*settings, *overrides_from((), **chosen)], kind="sweep", **options)
        return
    from lab3.config import load_config

    config = load_config(experiment, settings, tracking_file())

    from lab3.cli.terminal import TerminalProgress, show_group
    from lab3.pipeline import is_group, resume_group, start_group

    with TerminalProgress() as progress:
        path, working = _preempted(options, is_group)
        if path:
            group = resume_group(path, progress=progress, **working)
        else:
            group = start_group(config, parsed, criteria, progress=progress, **options)
    show_group(group)


def _start(experiment: Path | None, settings: list[str], *, kind: Any, **options: Any) -> None:
    from lab3.config import load_config

    # Before anything slow is imported: a mistake in the file shows at once.
    config = load_config(experiment, settings, tracking_file())

    from lab3.cli.terminal import TerminalProgress, show_run
    from lab3.pipeline import is_run, resume_run, start_run

    with TerminalProgress() as progress:
        path, working = _preempted(options, is_run)
        if path:
            run = resume_run(path, progress=progress, asked=config, **working)
        else:
            run = start_run(config, kind=kind, progress=progress, **options)
    show_run(run)


def _preempted(options: dict[str, Any], is_there: Callable[[Path], bool]) -> tuple[Path | None, dict[str, Any]]:
    """The folder to go on in, with the options for that, where W&B starts a preempted run again under the same id.

    Takes from `options` what is for going on alone.
    """
    working = {name: options[name] for name in ("device", "mode")} | {"max_attempts": options.pop("max_attempts")}
    path = options["out"] / (options["run_id"] or "")
    is_again = options["run_id"] is not None and os.environ.get("WANDB_RUN_ID") == options["run_id"]
    return (path if is_again and is_there(path) else None), working
