"""Options that several commands share."""

from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from lab3.errors import Lab3Error
from lab3.vocabulary import Criterion, Device, Until

CRITERIA = get_args(Criterion)
# Options that name a setting have its name, with two underscores for the dot.
_OPTIONS = {
    "model__path": "--model", "model__output": "--output", "data__test": "--data", "data__train": "--train-data",
    "prune__layer": "--layer", "prune__criterion": "--criterion", "sweep__tolerance": "--tolerance",
    "sweep__confidence": "--confidence", "sweep__until": "--until", "compress__budget": "--budget",
    "compress__cost": "--for", "compress__finetune": "--finetune", "compress__target_accuracy": "--target-accuracy",
}  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])
Result = TypeVar("Result")
Options = dict[str, Any]
TRACKING_FILE = Path("wandb_config.yaml")  # of the current folder


def _together(*options: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[Command], Command]:
    """One decorator for several, in the order in which the help shows them."""
    return lambda command: reduce(lambda inner, option: option(inner), reversed(options), command)


def _limit_threads(_context: click.Context, _option: click.Parameter, threads: int | None) -> None:
    if threads is not None:
        from lab3.base.backend import limit_threads

        limit_threads(threads)


a_path = click.Path(path_type=Path)
runs_argument = click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=a_path)
out_option = click.option("--out", type=a_path, default="runs", show_default=True, help="Folder that holds runs.")
computing_options = _together(
    click.option(
        "--device",
        type=click.Choice(get_args(Device)),
        default="auto",
        show_default=True,
        help="Where to compute; gpu fails at once if there is none.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=1),
        expose_value=False,
        callback=_limit_threads,
        help="Threads to compute with; by default one for each core.",
    ),
)
session_options = _together(
    click.option(
        "--max-attempts",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse, with exit code 78, to go on with a run started N times, as a job that is always preempted.",
    ),
    click.option(
        "--hourly-price",
        type=click.FloatRange(min=0),
        metavar="PRICE",
        envvar="LAB3_HOURLY_PRICE",
        help="What an hour of this machine costs: manifest and W&B then say what all attempts at the run cost.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["online", "offline", "disabled"]),
        help="W&B mode; by default WANDB_MODE, else wandb_config.yaml, else online with a key and offline without.",
    ),
    computing_options,
)
starting_options = _together(
    out_option,
    click.option(
        "--run-id",
        metavar="ID",
        envvar="WANDB_RUN_ID",
        help="Name of the run's folder and W&B id; by default WANDB_RUN_ID, else the experiment's name and the time.",
    ),
    click.option(
        "--job",
        "is_job",
        is_flag=True,
        envvar="LAB3_JOB",
        help="As a scheduled job: the same command again goes on with the same run, or ends with 0 if that is done; "
        "JSON lines in place of text. LAB3_JOB=1 does the same.",
    ),
    click.option(
        "--slot",
        metavar="NAME",
        envvar="LAB3_SLOT",
        help="Which of several such jobs: each slot has a run of its own, by default one for each job of a scheduler.",
    ),
    session_options,
)
model_option = click.option(
    "--model", "model__path", metavar="PATH", help="Model file (.h5 or .keras) to load in place of training one."
)
set_option = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a setting, e.g. train.epochs=3; repeatable.",
)
data_options = _together(
    click.option(
        "--data",
        "data__test",
        metavar="DATA",
        help="Test images: digits, cifar10, or the path of an .npz, the CIFAR-10 python archive or its folder, "
        "or image files <class>/<name>.jpg|png in a folder or .zip.",
    ),
    click.option(
        "--train-data", "data__train", metavar="DATA", help="Training images, where --data holds only test images."
    ),
    set_option,
)
variant_options = _together(
    click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME|INDEX|all",
        help="Layer to prune, by default the last Conv2D on the way to the output; several, or all, give a run each "
        "and a comparison.",
    ),
    click.option(
        "--criterion",
        "criteria",
        multiple=True,
        type=click.Choice(CRITERIA),
        metavar="NAME",
        help=f"What makes a channel important; several give a run each and a comparison. One of {', '.join(CRITERIA)}.",
    ),
    click.option(
        "--infer",
        is_flag=True,
        help="Faster and not exact: infer predictions between two K where they seem sure, and say how many "
        "(sweep.shortcut=inferred).",
    ),
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON in place of the table.")
answer_options = _together(
    click.option(
        "--tolerance",
        "sweep__tolerance",
        type=float,
        metavar="SHARE",
        help="How much accuracy may fall, for as many channels as can be certified; 0.01 by default.",
    ),
    click.option(
        "--confidence",
        "sweep__confidence",
        type=float,
        metavar="SHARE",
        help="Confidence of the certificate; 0.95 by default.",
    ),
    click.option(
        "--until",
        "sweep__until",
        type=click.Choice(get_args(Until)),
        help="Sweep all K, the default, or stop behind the first that cannot be certified.",
    ),
    json_option,
)


def parse_layer(layer: str) -> str | int:
    """An index where the text is an integer, else a name."""
    try:
        return int(layer)
    except ValueError:
        return layer


def take_settings(options: Options) -> list[tuple[str, str]]:
    """What sets something, taken out of a command's options, with the option that says it; KEY=VALUE has none.

    Options that name a setting come first, then `--set`, KEY=VALUE and `--infer`. Values of the first are quoted, so
    that a path or a name is never read as another YAML type.
    """
    pairs = []
    for name, option in _OPTIONS.items():
        if (value := options.pop(name, None)) is not None:
            text = value if isinstance(value, int | float) else "'" + value.replace("'", "''") + "'"
            pairs.append((option, f"{name.replace('__', '.')}={text}"))
    pairs += [("--set", each) for each in options.pop("overrides", ())]
    pairs += [("", each) for each in options.pop("assignments", ())]
    return pairs + [("--infer", "sweep.shortcut=inferred")] * options.pop("infer", False)


def for_each_run(given: tuple[Path, ...], act: Callable[[Path], Result]) -> Iterator[tuple[Path, Result | None]]:
    """What `act` gives for each of the runs in `given`, folders of runs among them; None where it raised an error.

    That is printed behind the run's name, or raised where there is one run only.
    """
    from lab3.record.rundir import runs_in

    paths = [found for each in given for found in runs_in(each)]
    for path in paths:
        try:
            yield path, act(path)
        except Lab3Error as error:
            if len(paths) == 1:
                raise
            click.echo(f"{path.name}: {error}")
            yield path, None
