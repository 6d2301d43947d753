"""What the process imports from which `tests.processes` forks; nothing is computed there, no thread is started.

Forked processes make figures, but do not render them.
"""

import gc
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import wandb
import wandb_workspaces.reports.v2
from matplotlib.figure import Figure

import lab3.app.cli
import lab3.app.pipeline
import lab3.tracking.dashboards
import lab3.tracking.wandb_tracker
from tests.pictures import save_grey

__all__ = ["keras", "lab3", "wandb", "wandb_workspaces"]

setattr(Figure, "savefig", save_grey)  # noqa: B010, a type checker allows no other

# What is there now is never garbage: the collector of a forked process need not look at it, and so copy it.
gc.freeze()
