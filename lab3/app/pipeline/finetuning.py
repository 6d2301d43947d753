"""Train a smaller model on, and say what that wins back."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lab3.analysis.certificate import error_of_each, find_shortage
from lab3.analysis.tango import exact_level, tango_p
from lab3.app.pipeline.materials import Materials
from lab3.app.pipeline.training import find_right, fit
from lab3.base.graph import flatten_model
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.errors import ModelError
from lab3.inputs.checkpoints import Checkpoints
from lab3.inputs.class_scores import read_class_scores
from lab3.inputs.training import Epoch, best_epoch
from lab3.record.compaction import Finetuned

_SHARE_OF_RATE = 0.1


def finetune(model: Any, materials: Materials, config: Config, epochs: int, progress: Progress) -> list[Epoch]:
    """Train `model` in place for `epochs` by the experiment's settings, at a tenth of its learning rate.

    Returns the epochs; the weights are those of the best by validation images, which are held out of the training
    images as in the experiment's own training. Raises `ModelError` for a model that ends in one number.
    """
    if read_class_scores(flatten_model(model)).is_binary:
        raise ModelError("--finetune needs a model that scores each class, got one that gives one number; leave it out")
    for number, layer in enumerate(model.layers):
        # Its seed is otherwise what the process happened to draw when the layer was made.
        if (generator := getattr(layer, "seed_generator", None)) is not None:
            generator.state.assign(np.array([config.seed + number, 0], generator.state.dtype))
    changed = {"epochs": epochs, "learning_rate": learning_rate(config), "patience": None}
    settings = config.model_copy(update={"train": config.train.model_copy(update=changed)})
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints = Checkpoints(Path(temporary) / "checkpoints")
        return fit(model, materials, settings, progress, "fine-tune", checkpoints)


def learning_rate(config: Config) -> float:
    """That of fine-tuning."""
    return config.train.learning_rate * _SHARE_OF_RATE


def judge(
    history: Sequence[Epoch],
    models: tuple[Any, Any, Any],
    materials: Materials,
    config: Config,
    tolerance: float,
    n_compared: int = 1,
    obstacle: str | None = None,
) -> Finetuned:
    """What fine-tuning comes to on the test images: `models` are the unpruned, the compact and the fine-tuned one.

    One test, decided before: it is the certificate where neither the channels nor the weights were chosen on these
    images. It has the `n_compared`-th part of the error that the experiment's confidence allows. `obstacle`: why
    nothing can be certified whatever the counts are.
    """
    unpruned_n, pruned_n, after_n = (find_right(model, materials, config) for model in models)
    n_lost, n_gained, n = int((unpruned_n & ~after_n).sum()), int((after_n & ~unpruned_n).sum()), len(after_n)
    alpha = error_of_each(config.sweep.confidence, n_compared)
    reason = obstacle or find_shortage(n, tolerance, alpha)
    level = 0.0 if reason else exact_level(n, tolerance, alpha)
    p = float(tango_p(np.array(n_lost), np.array(n_gained), n, tolerance))
    return Finetuned(
        epochs=tuple(history),
        kept_epoch=best_epoch(list(history)).epoch,
        learning_rate=learning_rate(config),
        n_train=0 if materials.train is None else len(materials.train),
        accuracy_unpruned=float(unpruned_n.mean()),
        accuracy_pruned=float(pruned_n.mean()),
        accuracy=float(after_n.mean()),
        n_lost=n_lost,
        n_gained=n_gained,
        tolerance=tolerance,
        confidence=config.sweep.confidence,
        level=level,
        p=p,
        is_certified=reason is None and p <= level,
        reason=reason,
        least_tolerance=1.0 if obstacle else _least_tolerance(lambda each: _passes(n_lost, n_gained, n, each, alpha)),
    )


def _passes(n_lost: int, n_gained: int, n: int, tolerance: float, alpha: float) -> bool:
    if find_shortage(n, tolerance, alpha):
        return False
    return bool(tango_p(np.array(n_lost), np.array(n_gained), n, tolerance) <= exact_level(n, tolerance, alpha))


def _least_tolerance(passes: Callable[[float], bool]) -> float:
    """By halves in thousandths; 1 where none passes."""
    low, high = 0, 1000
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle / 1000) else (middle, high)
    return high / 1000
