"""Experiments: YAML files, `--set` overrides and defaults, resolved into one checked `Config`.

Order of strength: `--set a.b=value`, the experiment file, `wandb_config.yaml` (the tracking section only), defaults.
"""

from lab3.config.loading import dump_config, load_config, load_grid
from lab3.config.sections import Config, Grid

__all__ = ["Config", "Grid", "dump_config", "load_config", "load_grid"]
