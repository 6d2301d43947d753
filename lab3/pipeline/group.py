"""Several layers or criteria of one model: a run each in a common folder, compared in one table and figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from lab3 import outputs
from lab3.architectures import build_model
from lab3.backend import Device, load_backend
from lab3.config import Config
from lab3.errors import ConfigError
from lab3.graph import list_layers
from lab3.layers import find_layer, prunable_layers
from lab3.pipeline.materials import Shared, fetch_inputs, load_configured_model
from lab3.pipeline.recipes import start_run
from lab3.progress import Progress
from lab3.rundir import RunDir, check_new_run, new_run_id
from lab3.schedule import parse_schedule
from lab3.tracking import choose_mode

Layer = str | int


@dataclass(frozen=True)
class Group:
    """The folder of a group and its runs, in order of layer and criterion."""

    path: Path
    runs: dict[str, RunDir]


def start_group(
    config: Config,
    layers: Sequence[Layer],
    criteria: Sequence[str],
    *,
    out: Path = Path("runs"),
    run_id: str | None = None,
    device: Device = "auto",
    mode: str | None = None,
    progress: Progress,
) -> Group:
    """A run for each of `layers` (`["all"]`: every layer that can be pruned) with each of `criteria`.

    Empty lists stand for the experiment's own setting. The network is trained once if there is no file, data and
    captured features are shared between the runs. Raises a `Lab3Error` before anything is written if a layer cannot be
    pruned.
    """
    group_id = run_id or new_run_id(config.name)
    check_new_run(out, group_id)
    shared: Shared = {}
    tracking_mode, _ = choose_mode(mode, config.tracking.mode)
    config = fetch_inputs(config, out, tracking_mode, shared, progress)
    load_backend(device)
    indices = _layer_indices(config, layers, shared)
    shared["layers",] = tuple(indices)
    path = out / group_id
    if config.model.path is None:
        trained = start_run(
            config, kind="train", out=path, run_id=f"{group_id}-train", device=device, mode=mode, progress=progress,
            shared=shared,
        )  # fmt: skip
        model = config.model.model_copy(update={"path": str(trained.path / f"model.{config.train.format}")})
        config = config.model_copy(update={"model": model})
    model_layers = list_layers(load_configured_model(config, str(config.model.path), shared))
    runs = {}
    for index, criterion in product(indices, criteria or [config.prune.criterion]):
        name = model_layers[index].name
        swept = parse_schedule(config.sweep.schedule, model_layers[index].kernel.shape[-1])
        # A K drawn for one layer can be more than another has.
        drawn = [k for k in config.sweep.feature_maps_k if k in swept]
        label = "-".join(part for part, many in ((name, len(indices) > 1), (criterion, len(criteria) > 1)) if many)
        update = {
            "prune": config.prune.model_copy(update={"layer": index, "criterion": criterion}),
            "sweep": config.sweep.model_copy(update={"feature_maps_k": drawn}),
            "tracking": config.tracking.model_copy(update={"group": config.tracking.group or group_id}),
        }
        runs[label] = start_run(
            config.model_copy(update=update), out=path, run_id=f"{group_id}-{label}", device=device, mode=mode,
            progress=progress, shared=shared,
        )  # fmt: skip
    outputs.write_comparison(path, runs)
    return Group(path, runs)


def _layer_indices(config: Config, layers: Sequence[Layer], shared: Shared) -> list[int]:
    """Where the layers stand in the model; an untrained model's names are not those it will be saved with."""
    model_path, architecture = config.model.path, config.model.architecture
    if model_path is not None:
        model = load_configured_model(config, model_path, shared)
    elif architecture is not None:
        model = build_model(architecture)
    else:
        raise ConfigError("the experiment must have a model: set model.path (or --model), or model.architecture")
    if list(layers) == ["all"]:
        found = prunable_layers(model)
    else:
        chosen: Sequence[Layer | None] = layers or [config.prune.layer]
        found = [find_layer(model, layer) for layer in chosen]
    indices = [next(i for i, layer in enumerate(list_layers(model)) if layer is one) for one in found]
    if len(set(indices)) < len(indices):
        raise ConfigError(f"--layer must name each layer once, got {', '.join(layer.name for layer in found)}")
    for layer in found:
        parse_schedule(config.sweep.schedule, layer.kernel.shape[-1])
    return indices
