"""Options that several commands share."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

# As in lab3.criteria, which the command line does not import before it needs NumPy; a test compares the two.
CRITERIA = (
    "mean_activation", "mean_absolute", "maximum", "standard_deviation", "apoz", "filter_l1", "filter_l2", "fpgm",
    "batchnorm_scale", "taylor", "oracle", "random",
)  # fmt: skip

Command = TypeVar("Command", bound=Callable[..., Any])


def placing_options(command: Command) -> Command:
    """`--out` and `--run-id`."""
    command = click.option(
        "--run-id",
        metavar="ID",
        envvar="WANDB_RUN_ID",
        help="Name of the run's folder and W&B id; by default WANDB_RUN_ID, then the experiment's name and the time.",
    )(command)
    return click.option(
        "--out", type=click.Path(path_type=Path), default="runs", show_default=True, help="Folder that holds runs."
    )(command)


def _limit_threads(_context: click.Context, _option: click.Parameter, threads: int | None) -> None:
    if threads is not None:
        from lab3.backend import limit_threads

        limit_threads(threads)


def computing_options(command: Command) -> Command:
    """`--device` and `--threads`."""
    command = click.option(
        "--threads",
        type=click.IntRange(min=1),
        expose_value=False,
        callback=_limit_threads,
        help="Threads to compute with; by default one for each core.",
    )(command)
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "gpu"]),
        default="auto",
        show_default=True,
        help="Where to compute; gpu fails at once if there is none.",
    )(command)


def working_options(command: Command) -> Command:
    """`--mode`, `--device` and `--threads`."""
    return click.option(
        "--mode",
        type=click.Choice(["online", "offline", "disabled"]),
        help="W&B mode. Without it: WANDB_MODE, wandb_config.yaml, then online if a key is configured, else offline.",
    )(computing_options(command))


def attempts_option(command: Command) -> Command:
    """`--max-attempts`."""
    return click.option(
        "--max-attempts",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse, with exit code 78, to go on with a run that was started N times: a job that is always preempted.",
    )(command)


def data_options(command: Command) -> Command:
    """`--data`, `--train-data` and `--set`."""
    command = click.option(
        "--set",
        "overrides",
        metavar="KEY=VALUE",
        multiple=True,
        help="Override a setting, e.g. train.epochs=3; repeatable.",
    )(command)
    command = click.option(
        "--train-data", metavar="DATA", help="Training images, where --data holds only test images."
    )(command)
    return click.option(
        "--data",
        metavar="DATA",
        help="Test images: digits, cifar10, or the path of an .npz, the CIFAR-10 python archive or its folder, "
        "or images <class>/<name>.jpg|png in a folder or .zip.",
    )(command)


def variant_options(command: Command) -> Command:
    """`--layer` and `--criterion`, several of each, and `--infer`."""
    command = click.option(
        "--infer",
        is_flag=True,
        help="Faster and not exact: infer predictions between two K where they seem sure, and say how many "
        "(sweep.shortcut=inferred).",
    )(command)
    command = click.option(
        "--criterion",
        "criteria",
        multiple=True,
        type=click.Choice(CRITERIA),
        metavar="NAME",
        help=f"What makes a channel important; several give a run each and a comparison. One of {', '.join(CRITERIA)}.",
    )(command)
    return click.option(
        "--layer",
        "layers",
        multiple=True,
        metavar="NAME|INDEX|all",
        help="Layer to prune, by default the last Conv2D on the way to the output; several, or all, give a run each "
        "and a comparison.",
    )(command)


def layer_option(command: Command) -> Command:
    """`--layer`."""
    return click.option(
        "--layer", metavar="NAME|INDEX", help="Layer to prune; by default the last Conv2D on the way to the output."
    )(command)


def parse_layer(layer: str) -> str | int:
    """An index where the text is a whole number, else a name."""
    try:
        return int(layer)
    except ValueError:
        return layer


def overrides_from(overrides: tuple[str, ...], **settings: str | int | None) -> list[str]:
    """`--set` lines for options that name a setting (`data__test` for `data.test`), then the user's own.

    Values are quoted, so that a path or a name is never read as another YAML type.
    """
    lines = []
    for name, value in settings.items():
        if value is not None:
            text = value if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
            lines.append(f"{name.replace('__', '.')}={text}")
    return [*lines, *overrides]


def tracking_file() -> Path:
    """`wandb_config.yaml` of the current folder."""
    return Path(os.curdir) / "wandb_config.yaml"
