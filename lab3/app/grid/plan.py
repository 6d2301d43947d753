"""The cells of a grid: a name and an experiment each, and the networks that are trained for them first."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from lab3.app.pipeline import Session, load_configured_model
from lab3.app.pipeline.recipes import with_absolute_paths
from lab3.app.pipeline.session import with_settings
from lab3.base.backend import load_backend
from lab3.base.files import write_atomically
from lab3.config import Config, Grid, dump_config, load_config, load_grid
from lab3.errors import ConfigError, RunStateError, counted
from lab3.pruning.layers import prunable_layers
from lab3.record.manifest import Kind
from lab3.record.rundir import RunDir

GRID_YAML = "grid.yaml"
_MAX_CELLS = 10_000


@dataclass(frozen=True)
class Cell:
    """A run of the grid. `trained`: the label of the cell that trains its network, None where there is a file."""

    label: str
    config: Config
    kind: Kind = "sweep"
    trained: str | None = None


@dataclass(frozen=True)
class Plan:
    """A grid's folder, its file, and its cells by label, those that train first."""

    path: Path
    grid: Grid
    cells: Mapping[str, Cell]

    def run_of(self, label: str) -> RunDir:
        """The run of a cell, which may not be started."""
        return RunDir(self.path / f"{self.path.name}-{label}")

    def log_of(self, label: str) -> Path:
        """What a cell's attempts said."""
        return self.path / "logs" / f"{label}.log"

    @property
    def sweeps(self) -> list[str]:
        """Labels of the cells that sweep."""
        return [label for label, cell in self.cells.items() if cell.kind == "sweep"]


def grid_id(grid: Grid, experiment: Path) -> str:
    """The id of a grid: the experiment's name and 12 digits of the hash of the grid and the experiment."""
    content = json.dumps([grid.model_dump(), experiment.read_text()], sort_keys=True)
    return f"grid-{experiment.stem}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def write_plan(path: Path, grid: Grid) -> None:
    """Make `path` the folder of a grid, or see that it is the folder of this one.

    Raises `RunStateError` if it is another's.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "logs").mkdir(exist_ok=True)
    file = path / GRID_YAML
    if file.exists() and load_grid(file) != grid:
        raise RunStateError(f"{file} is another grid; choose another --run-id, or put back what it was")
    if not file.exists():
        write_atomically(file, dump_config(grid).encode())


def make_plan(path: Path, grid: Grid, experiment: Path, tracking_file: Path | None, session: Session) -> Plan:
    """All cells of the grid, in the order of its file.

    Raises `ConfigError` for a setting that there is not, for more than 10,000 cells, and for a training cell without
    an architecture; with `prune.layer: all` whatever loading the model does.
    """
    common = [("set", _assignment(key, value)) for key, value in grid.set.items()]
    vary = dict(grid.vary)
    if vary.get("prune.layer") == "all":
        config = load_config(experiment, common, tracking_file)
        load_backend(session.device)
        vary["prune.layer"] = [
            layer.name for layer in prunable_layers(load_configured_model(config, config.model.path, session))
        ]
    n_cells = 1
    for values in vary.values():
        n_cells *= len(values)
    if n_cells > _MAX_CELLS:
        raise ConfigError(
            f"a grid must have at most {_MAX_CELLS:,} cells, got {counted(n_cells, 'cell')}; make two of it"
        )
    trainings: dict[str, Cell] = {}
    sweeps: dict[str, Cell] = {}
    for combination in product(*vary.values()):
        varied = dict(zip(vary, combination, strict=True))
        overrides = common + [("vary", _assignment(key, value)) for key, value in varied.items()]
        config = load_config(experiment, overrides, tracking_file)
        config = with_settings(
            with_absolute_paths(config),
            sweep={"n_compared": config.sweep.n_compared * n_cells},
            tracking={"group": config.tracking.group or path.name},
        )
        label = _label(varied, vary)
        if label in sweeps:
            raise ConfigError(f"vary: two cells have the name {label!r}; give their values other names")
        trained = None
        if config.model.path is None:
            if config.model.architecture is None:
                raise ConfigError("a grid must have a model: set model.path, or model.architecture to train one")
            trained = _training_label(config)
            trainings.setdefault(trained, Cell(trained, config, "train"))
        sweeps[label] = Cell(label, config, trained=trained)
    return Plan(path, grid, trainings | sweeps)


def _assignment(key: str, value: Any) -> str:
    # JSON is YAML too.
    return f"{key}={json.dumps(value)}"


def _label(varied: Mapping[str, Any], vary: Mapping[str, Any]) -> str:
    """What is different about a cell, as a part of a run's id; numbers have their setting's name before them."""
    parts = list(_parts({key: value for key, value in varied.items() if len(vary[key]) > 1} or varied))
    label = "-".join(parts)
    if len(label) <= 60:
        return label
    return f"{label[:48]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"


def _parts(varied: Mapping[str, Any]) -> Iterator[str]:
    for key, value in varied.items():
        text = value if isinstance(value, str) and "/" not in value else f"{key.rpartition('.')[2]}{_short(value)}"
        yield re.sub("[^A-Za-z0-9_.-]", "_", text)


def _short(value: Any) -> str:
    return Path(value).stem if isinstance(value, str) else json.dumps(value)


def _training_label(config: Config) -> str:
    """The same for all cells that train the same network."""
    facts = [config.seed, config.data.model_dump(), config.train.model_dump(), config.model.model_dump()]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
    return f"train-{config.model.architecture}-{digest}"
