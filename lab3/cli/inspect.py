"""Commands that only look: inspect, validate."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from lab3.cli.options import data_options, layer_option, overrides_from, parse_layer, tracking_file


@click.command("inspect")
@click.argument("model", type=click.Path(path_type=Path))
@layer_option
@click.option("--output", metavar="NAME|INDEX", help="Output with class scores, for a model with several.")
@click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="A setting of the model, e.g. model.allow_classes=[Mine].",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list of layers.")
def inspect_command(
    model: Path, layer: str | None, output: str | None, overrides: tuple[str, ...], as_json: bool
) -> None:
    """List a model's layers and mark the one that would be pruned.

    \b
    Example:
      lab3 inspect my.h5
    """
    from lab3.config import load_config

    chosen = None if output is None else parse_layer(output)
    config = load_config(None, overrides_from(overrides, model__path=str(model), model__output=chosen))

    from lab3.backend import load_backend

    load_backend("cpu")
    from lab3.cli.terminal import show_layers
    from lab3.model_files import describe_layers
    from lab3.pipeline import load_configured_model

    loaded = load_configured_model(config, str(model), {})
    layers = describe_layers(loaded, None if layer is None else parse_layer(layer))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in layers], indent=2))
    else:
        show_layers(layers)


@click.command("validate")
@click.argument("experiment", type=click.Path(path_type=Path))
@data_options
@click.option("--model", metavar="PATH", help="As for `lab3 run`.")
def validate_command(
    experiment: Path, data: str | None, train_data: str | None, overrides: tuple[str, ...], model: str | None
) -> None:
    """Check an experiment file without running it, and print it with every setting resolved.

    \b
    Example:
      lab3 validate experiments/digits.yaml --set train.epochs=3
    """
    from lab3.config import dump_config, load_config

    settings = overrides_from(overrides, model__path=model, data__test=data, data__train=train_data)
    config = load_config(experiment, settings, tracking_file())
    click.echo(dump_config(config), nl=False)
    click.echo(f"{experiment} is valid", err=True)
