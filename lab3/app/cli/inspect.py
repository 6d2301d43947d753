"""Commands that only look: inspect, validate."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lab3.app.cli.options import (
    TRACKING_FILE,
    a_path,
    data_options,
    model_option,
    parse_layer,
    set_option,
    take_settings,
)
from lab3.app.cli.runs import find_experiment


@click.command("inspect")
@click.argument("model__path", metavar="MODEL")
@click.option(
    "--layer", metavar="NAME|INDEX", help="Layer to prune; by default the last Conv2D on the way to the output."
)
@click.option("--output", metavar="NAME|INDEX", help="Output with class scores, for a model with several.")
@set_option
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of layers.")
def inspect_command(layer: str | None, output: str | None, as_json: bool, **options: Any) -> None:
    """List a model's layers and mark the one that would be pruned.

    \b
    Example:
      lab3 inspect my.h5
    """
    from lab3.config import load_config

    options["model__output"] = None if output is None else parse_layer(output)
    config = load_config(None, take_settings(options))

    from lab3.base.backend import load_backend

    load_backend("cpu")
    from lab3.app.cli.terminal import show_layers
    from lab3.app.pipeline import Session, load_configured_model
    from lab3.pruning.layers import describe_layers

    loaded = load_configured_model(config, config.model.path, Session())
    layers = describe_layers(loaded, None if layer is None else parse_layer(layer))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in layers], indent=2))
    else:
        show_layers(layers)


@click.command("validate")
@click.argument("experiment", type=a_path)
@data_options
@model_option
def validate_command(experiment: Path, **options: Any) -> None:
    """Check an experiment file without running it, and print it with every setting resolved.

    \b
    Example:
      lab3 validate digits --set train.epochs=3
    """
    from lab3.config import dump_config, load_config

    config = load_config(find_experiment(experiment), take_settings(options), TRACKING_FILE)
    click.echo(dump_config(config), nl=False)
    click.echo(f"{experiment} is valid", err=True)
