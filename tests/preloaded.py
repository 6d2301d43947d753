"""What the process imports from which `tests.processes` forks; nothing is computed there, no thread is started.

Forked processes draw no figures.
"""

import gc
import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import PIL.Image
import rich.progress
import wandb.apis.public.api
import wandb.sdk.launch.inputs.internal
import wandb_workspaces.reports.v2
import wandb_workspaces.workspaces

import lab3.app.cli.terminal
import lab3.app.jobs.job
import lab3.app.pipeline
import lab3.base.bars
import lab3.tracking.dashboards
import lab3.tracking.wandb_tracker
from tests.pictures import draw_no_figures

__all__ = ["keras", "lab3", "rich", "wandb", "wandb_workspaces"]

PIL.Image.preinit()
draw_no_figures(setattr)


def read_environment() -> None:
    """What W&B's client reads from it when it is imported."""
    wandb.apis.public.api.Api._HTTP_TIMEOUT = wandb.env.get_http_timeout(19)


# What is there now is never garbage: the collector of a forked process need not look at it, and so copy it.
gc.freeze()
