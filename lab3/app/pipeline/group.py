"""Several layers or criteria of one model: a run each in a common folder, compared in one table and figure."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count, product
from pathlib import Path

from lab3.analysis.certificate import Certificate
from lab3.app.pipeline.answers import certify_runs
from lab3.app.pipeline.checks import check_same_versions
from lab3.app.pipeline.materials import fetch_inputs, load_configured_model, load_materials
from lab3.app.pipeline.recipes import resume_run, start_run, with_absolute_paths
from lab3.app.pipeline.session import Session, with_settings
from lab3.app.pipeline.stopping import saying_what_is_kept
from lab3.base.backend import load_backend
from lab3.base.files import encode_json, write_atomically
from lab3.base.graph import list_layers
from lab3.base.reading import parse, reading
from lab3.config import Config, dump_config, load_config
from lab3.errors import ConfigError, StoppedError
from lab3.pruning.layers import find_layer, prunable_layers
from lab3.pruning.schedule import parse_schedule
from lab3.record import tables
from lab3.record.manifest import Kind
from lab3.record.rundir import RunDir, claim_run, new_run_id, open_run
from lab3.views.drawings import draw_comparison
from lab3.views.report import write_report
from lab3.vocabulary import Criterion

Layer = str | int
_EXPERIMENT_YAML, _GROUP_JSON = "experiment.yaml", "group.json"  # the second is written last


@dataclass(frozen=True)
class Group:
    """The folder of a group and its runs, in order of layer and criterion, with what is certified of all at once."""

    path: Path
    runs: dict[str, RunDir]
    certificates: dict[str, Certificate]


@dataclass(frozen=True)
class _Choices:
    """The content of `group.json`: some layers, by index, and criteria."""

    layers: tuple[int, ...]
    criteria: tuple[Criterion, ...]
    artifacts: dict[str, str]  # names of W&B artifacts by the path they were fetched to


@dataclass(frozen=True)
class _Plan:
    """What a group does, kept in its folder: an experiment for each of its layers and criteria."""

    config: Config
    choices: _Choices

    @property
    def shared_config(self) -> Config:
        """What all runs of the group have: each has its part of the certificates' error."""
        n_runs = len(self.choices.layers) * len(self.choices.criteria)
        return with_settings(self.config, sweep={"n_compared": self.config.sweep.n_compared * n_runs})

    def write(self, path: Path) -> None:
        write_atomically(path / _EXPERIMENT_YAML, dump_config(self.config).encode())
        write_atomically(path / _GROUP_JSON, encode_json(asdict(self.choices)))

    @staticmethod
    def read(path: Path) -> "_Plan":
        """Raises `RunStateError` if the folder is no group's."""
        file = path / _GROUP_JSON
        with reading(file):
            [choices] = parse(_Choices, [json.loads(file.read_text())])
            if not choices.layers or not choices.criteria:
                raise ValueError("it must have indices of layers and names of criteria")
        return _Plan(load_config(path / _EXPERIMENT_YAML), choices)


def is_group(path: Path) -> bool:
    """True if `path` is the folder of a group."""
    return (path / _GROUP_JSON).exists()


def start_group(
    config: Config,
    layers: Sequence[Layer],
    criteria: Sequence[Criterion],
    session: Session,
    *,
    out: Path = Path("runs"),
    run_id: str | None = None,
) -> Group:
    """A run for each of `layers` (`["all"]`: every layer that can be pruned) with each of `criteria`.

    Empty lists stand for the experiment's own setting. The network is trained once if there is no file, data and
    captured features are shared between the runs. Raises a `Lab3Error` before anything is written if a layer cannot be
    pruned.
    """
    with claim_run(out, run_id or new_run_id(config.name)) as folder:
        with saying_what_is_kept(folder):
            session.progress.say(f"group {folder.path}")
            config = with_absolute_paths(fetch_inputs(config, out, session.announce_mode(config), session))
            load_backend(session.device)
            indices = _layer_indices(config, layers, session)
            chosen = tuple(criteria or [config.prune.criterion])
            plan = _Plan(config, _Choices(tuple(indices), chosen, session.shared.artifacts))
            # What does not fit together shows before anything is written.
            with session.progress.stoppable():
                first = _config_of(plan.shared_config, indices[0], chosen[0], (), "")
                load_materials(first, config.model.path, session)
        plan.write(folder.path)
        return _work(plan, folder.path, session)


def resume_group(path: Path, session: Session) -> Group:
    """Finish the group at `path`: what was stopped goes on, what is missing is started, what is finished stays.

    Raises as `resume_run` does; a run that starts now must have the model, data and versions of those before it.
    """
    plan = _Plan.read(path)
    session.progress.say(f"group {path}")
    load_backend(session.device)
    with RunDir(path).lock():
        return _work(plan, path, session)


def start_over(path: Path, session: Session) -> RunDir | Group:
    """The run or group at `path` from its beginning, as a new one beside it: `<id>-2`, or the next number free."""
    out, name = path.absolute().parent, path.absolute().name
    run_id = next(new for number in count(2) if not (out / (new := f"{name}-{number}")).exists())
    if is_group(path):
        plan = _Plan.read(path)
        return start_group(plan.config, plan.choices.layers, plan.choices.criteria, session, out=out, run_id=run_id)
    run = open_run(path)
    return start_run(run.read_config(), session, kind=run.read_manifest().kind, out=out, run_id=run_id)


def _work(plan: _Plan, path: Path, session: Session) -> Group:
    """Every run of the group that is not finished, then the comparison."""
    choices, config, group_id = plan.choices, plan.shared_config, path.absolute().name
    session.shared.layers, session.shared.artifacts = choices.layers, choices.artifacts
    first: RunDir | None = None

    def run_one(config: Config, name: str, kind: Kind = "sweep") -> RunDir:
        nonlocal first
        run = RunDir(path / f"{group_id}-{name}")
        try:
            if run.manifest_json.exists():
                run = resume_run(run.path, session)
            else:
                repeats = first.read_manifest() if first else None
                if first and repeats:
                    check_same_versions(first, repeats, load_backend(session.device))
                run = start_run(config, session, kind=kind, out=path, run_id=run.run_id, repeats=repeats)
        except StoppedError as stopped:
            raise StoppedError(str(stopped), stopped.exit_code, path) from None
        first = first or run
        return run

    if config.model.path is None:
        trained = run_one(config, "train", kind="train")
        config = with_settings(config, model={"path": str(trained.path / f"model.{config.train.format}")})
    model_layers = list_layers(load_configured_model(config, config.model.path, session))
    runs = {}
    for index, criterion in product(choices.layers, choices.criteria):
        layer = model_layers[index]
        parts = ((_plain(layer.name, index), len(choices.layers) > 1), (criterion, len(choices.criteria) > 1))
        label = "-".join(part for part, many in parts if many) or parts[0][0]
        # A K drawn for one layer can be more than another has.
        swept = parse_schedule(config.sweep.schedule, layer.kernel.shape[-1])
        drawn = [k for k in config.sweep.feature_maps_k if k in swept]
        runs[label] = run_one(_config_of(config, index, criterion, drawn, group_id), label)
    certificates = certify_runs(runs)
    write_atomically(path / "certificates.csv", tables.certificates_csv(certificates))
    write_atomically(path / "comparison.csv", tables.comparison_csv(runs))
    draw_comparison(path, runs)
    write_report(path)
    return Group(path, runs, certificates)


def _plain(name: str, index: int) -> str:
    """A layer's name as part of a run id: where it has other characters than those may have, with its index."""
    plain = re.sub("[^A-Za-z0-9_.-]", "_", name)[:40]
    return plain if plain == name else f"{plain}-{index}"


def _config_of(config: Config, layer: int, criterion: str, drawn: Sequence[int], group_id: str) -> Config:
    """The experiment of one run of the group."""
    return with_settings(
        config,
        prune={"layer": layer, "criterion": criterion},
        sweep={"feature_maps_k": drawn},
        tracking={"group": config.tracking.group or group_id},
    )


def _layer_indices(config: Config, layers: Sequence[Layer], session: Session) -> list[int]:
    """Where the layers stand in the model; an untrained model's names are not those it will be saved with."""
    model = load_configured_model(config, config.model.path, session)
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
