"""What the process imports from which `tests.processes` forks; nothing is computed there, no thread is started."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import wandb

import lab3.app.cli
import lab3.app.pipeline
import lab3.tracking.wandb_tracker

__all__ = ["keras", "lab3", "wandb"]
