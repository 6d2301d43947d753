"""What the process imports from which `tests.processes` forks; nothing is computed there, no thread is started.

Forked processes draw no figures.
"""

import gc
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import wandb
import wandb_workspaces.reports.v2

import lab3.app.cli
import lab3.app.pipeline
import lab3.tracking.dashboards
import lab3.tracking.wandb_tracker
from tests.pictures import draw_no_figures

__all__ = ["keras", "lab3", "wandb", "wandb_workspaces"]

draw_no_figures(setattr)

# What is there now is never garbage: the collector of a forked process need not look at it, and so copy it.
gc.freeze()
