"""Commands that compute: run, sweep, train, resume."""

import os
from pathlib import Path
from typing import Any, get_args

import click

import lab3
from lab3.app.cli.options import (
    TRACKING_FILE,
    Options,
    a_path,
    answer_options,
    data_options,
    json_option,
    model_option,
    parse_layer,
    session_options,
    starting_options,
    take_settings,
    variant_options,
)
from lab3.errors import ConfigError
from lab3.vocabulary import Cost

EXPERIMENTS = Path(lab3.__file__).with_name("experiments")  # that the package ships


@click.command("run")
@click.argument("experiment", type=a_path)
@click.argument("assignments", metavar="[KEY=VALUE]...", nargs=-1)
@model_option
@data_options
@variant_options
@answer_options
@starting_options
def run_command(experiment: Path, **options: Any) -> None:
    """Run an experiment, a file or the name of one that lab3 ships: train or load its model, then sweep every K.

    KEY=VALUE is short for --set KEY=VALUE. The last line printed is the run's folder.

    \b
    Examples:
      lab3 run digits
      lab3 run experiments/digits.yaml seed=1 prune.criterion=apoz
      lab3 run vgg16_cifar10 --model my.h5 --data cifar10-test.zip
    """
    _start(experiment, options)


@click.command("sweep")
@click.argument("model__path", metavar="MODEL")
@data_options
@variant_options
@answer_options
@starting_options
def sweep_command(**options: Any) -> None:
    """Sweep every K of a model file, without an experiment file.

    Pixels are divided by 255; --set data.scale, data.mean and data.std change that to what the model was trained with.

    \b
    Examples:
      lab3 sweep my.h5 --data cifar10-test.zip
      lab3 sweep my.keras --data photos/ --layer conv5 --set sweep.schedule=0:C:8
      lab3 sweep my.h5 --data cifar10-test.zip --criterion mean_activation --criterion filter_l1
      lab3 sweep my.h5 --data cifar10-test.zip --layer all
    """
    if options["data__test"] is None:
        raise click.UsageError("Missing option '--data': which labelled test images to measure accuracy on.")
    _start(None, options)


@click.command("train")
@click.argument("experiment", type=a_path)
@data_options
@starting_options
def train_command(experiment: Path, **options: Any) -> None:
    """Train an experiment's network and save it in a run folder, without a sweep.

    \b
    Example:
      lab3 train simplecnn_cifar10 --set train.epochs=20
    """
    _start(experiment, options, kind="train")


@click.command("compress")
@click.argument("subject", metavar="EXPERIMENT|MODEL")
@click.option("--budget", "compress__budget", type=float, metavar="SHARE", help="Accuracy that may be lost, as 0.01.")
@click.option(
    "--for", "compress__cost", type=click.Choice(get_args(Cost)), help="What is to become less; by default flops."
)
@click.option(
    "--finetune",
    "compress__finetune",
    type=int,
    metavar="EPOCHS",
    help="Train the smaller network on, at a tenth of the learning rate: compact/finetuned.keras and .h5.",
)
@click.option(
    "--target-accuracy",
    "compress__target_accuracy",
    type=float,
    metavar="SHARE",
    help="With --finetune: take the smallest network that reaches this accuracy on validation images once trained.",
)
@data_options
@json_option
@starting_options
def compress_command(subject: str, **options: Any) -> None:
    """Prune channels of all layers for a budget of accuracy, and write the smaller network.

    Layers are measured alone and together on images that choose: some of the training images, or half of the test
    images where there are no others. The plans are then tested in turn on images that chose nothing, and the last that
    passes is written as RUN/compact/model.keras and .h5, proven to predict what the masked network does. Killed, it
    goes on with `lab3 resume RUN`. With --target-accuracy the budget is what may be lost before training: give a large
    one. The last line printed is the run's folder.

    \b
    Examples:
      lab3 compress digits --budget 0.05
      lab3 compress my.h5 --data cifar10-test.zip --train-data cifar10-train.zip --for parameters
      lab3 compress digits --budget 0.2 --finetune 5 --target-accuracy 0.98
    """
    is_model = subject.endswith((".h5", ".hdf5", ".keras"))
    if is_model and options["data__test"] is None:
        raise click.UsageError("Missing option '--data': which labelled test images to measure accuracy on.")
    options["model__path"] = subject if is_model else None
    _start(None if is_model else Path(subject), options, kind="compress")


@click.command("resume")
@click.argument("run", type=a_path)
@session_options
@click.option(
    "--new", is_flag=True, help="Start over as a new run beside it, with its settings and the versions installed here."
)
def resume_command(run: Path, new: bool, **options: Any) -> None:
    """Finish a run, or a group of runs, that was stopped: from the last point in its journal, or the last epoch.

    Model, data, settings and versions must be those it was started with. A finished run is left as it is.

    \b
    Example:
      lab3 resume runs/vgg16_cifar10-20260101-120000-ab12
    """
    from lab3.app.cli.terminal import TerminalProgress, show_result
    from lab3.app.pipeline import Session, is_group, resume_group, resume_run, start_over

    with TerminalProgress() as progress:
        session = Session(progress, **options)
        if new:
            done = start_over(run, session)
        else:
            done = resume_group(run, session) if is_group(run) else resume_run(run, session)
    show_result(done)


def _start(experiment: Path | None, options: Options, *, kind: Any = "sweep") -> None:
    """Start a run, or with several layers or criteria a group of runs.

    Where W&B starts a preempted one again under the same id, it goes on, and so does a job.
    """
    layers, criteria = [parse_layer(layer) for layer in options.pop("layers", ())], options.pop("criteria", ())
    as_json = options.pop("as_json", False)
    settings = take_settings(options)
    is_one = len(layers) <= 1 and len(criteria) <= 1 and layers != ["all"]
    if is_one:
        settings += take_settings(
            {"prune__layer": next(iter(layers), None), "prune__criterion": next(iter(criteria), None)}
        )

    from lab3.config import load_config

    # Before anything slow is imported: a mistake in the file shows at once.
    config = load_config(experiment and find_experiment(experiment), settings, TRACKING_FILE)

    from lab3.app.cli.jobs import MAX_ATTEMPTS, Job, JobProgress, run_job
    from lab3.app.cli.terminal import TerminalProgress, show_result
    from lab3.app.jobs import find_slot, job_id
    from lab3.app.pipeline import Session, is_group, is_run, resume_group, resume_run, start_group, start_run

    place = {name: options.pop(name) for name in ("out", "run_id")}
    is_job, slot = options.pop("is_job"), find_slot(options.pop("slot"), os.environ)
    if is_job:
        work = {"kind": kind, "layers": layers, "criteria": list(criteria)}
        place["run_id"] = place["run_id"] or job_id(config, work, slot)
        options["max_attempts"] = options["max_attempts"] or MAX_ATTEMPTS
    path = place["out"] / (place["run_id"] or "")
    with JobProgress() if is_job else TerminalProgress() as progress:
        session = Session(progress, **options)

        def start() -> Any:
            if is_one:
                return start_run(config, session, kind=kind, **place)
            return start_group(config, layers, criteria, session, **place)

        def resume() -> Any:
            return resume_run(path, session, asked=config) if is_one else resume_group(path, session)

        is_there = is_run if is_one else is_group
        if is_job:
            run_job(progress, Job(path, slot, options["max_attempts"], session.hourly_price, is_there), start, resume)
        is_again = place["run_id"] is not None and os.environ.get("WANDB_RUN_ID") == place["run_id"]
        done = resume() if is_again and is_there(path) else start()
    show_result(done, as_json=as_json)


def find_experiment(path: Path) -> Path:
    """`path` if it is there, else the experiment that lab3 ships under this name.

    Raises `ConfigError` if there is none.
    """
    names = sorted(shipped.stem for shipped in EXPERIMENTS.glob("*.yaml"))
    if not path.is_file() and str(path).removesuffix(".yaml") in names:
        return EXPERIMENTS / path.with_suffix(".yaml")
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file; give the path of an experiment, or the name of one that lab3 ships: "
            f"{', '.join(names)}"
        )
    return path
