"""The sweep in three lines of a notebook: load, sweep, plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lab3.anatomy import Bias, Effect, Measured
from lab3.capture import capture, image_weights
from lab3.criteria import Criterion
from lab3.data import Dataset, check_dataset
from lab3.engine import Shortcut, SweepPoint, sweep_points
from lab3.model_files import check_weights, load_model
from lab3.rank import ChannelStats, Ranking, channel_stats, plan_pruning
from lab3.schedule import parse_schedule
from lab3.scores import score_channels
from lab3.selfcheck import check_split
from lab3.split import split_model

__all__ = ["Sweep", "load_model", "sweep"]


@dataclass(frozen=True)
class Sweep:
    """A finished sweep: `points` in order of K, `channels` from the least to the most important."""

    layer_name: str
    n_channels: int
    points: list[SweepPoint]
    channels: list[ChannelStats]
    mean_map_hwc: np.ndarray

    def plot(self, axes: Any = None) -> Any:
        """The accuracy curve as a matplotlib figure, drawn on `axes` if given."""
        from lab3.figures import plot_accuracy

        return plot_accuracy(
            self.points, f"Accuracy as channels of {self.layer_name} are pruned", self.n_channels, axes
        )


def sweep(
    model: Any,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    *,
    layer: str | int | None = None,
    criterion: Criterion = "mean_activation",
    seed: int = 0,
    schedule: str | Sequence[int] = "0:C:1",
    effect: Effect = "remove",
    measured: Measured = "activation",
    ranking: Ranking = "once",
    bias: Bias = "zero",
    average: Literal["images", "batches"] = "images",
    average_batch_size: int = 64,
    shortcut: Shortcut = "unchanged",
    batch_size: int = 2000,
) -> Sweep:
    """Accuracy and loss of `model` at every K of `schedule`, the K least important channels of `layer` pruned.

    `images_nhwc`: `(N, H, W, C)`, ready for the model (scaled as in its training). `labels_n`: int `(N,)` or `(N, 1)`.
    `layer`: name or index, the last `Conv2D` by default. `criterion`: one of `lab3.criteria`, scored on the same
    images. The model is left as it is. Nothing is written.

    >>> result = lab3.sweep(lab3.load_model("my.h5"), x_test / 255, y_test)  # doctest: +SKIP
    >>> result.points[100].accuracy, result.points[100].pruned_channels[:3]  # doctest: +SKIP

    Raises `ModelError`, `DataError` or `ConfigError` for a model, images or settings that cannot be used.
    """
    split = split_model(model, layer, effect=effect, measured=measured, bias=bias)
    ks = parse_schedule(schedule, split.n_channels)
    labels_n = np.asarray(labels_n).reshape(-1).astype(np.int64)
    images_nhwc = np.asarray(images_nhwc)
    check_dataset(Dataset(images_nhwc, labels_n, None, "images_nhwc", ""), model.input_shape[1:], split.n_labels)
    check_weights(model, "model")

    def preprocess(block_nhwc: np.ndarray) -> np.ndarray:
        return block_nhwc.astype(np.float32)

    captured = capture(
        split,
        images_nhwc,
        preprocess,
        weights_n=image_weights(len(images_nhwc), average, average_batch_size),
        batch_size=250,
    )
    scores = score_channels(criterion, split, captured, labels_n, seed=seed, batch_size=batch_size)
    steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, ks, ranking)
    check_split(split, model, captured.features, images_nhwc, preprocess, steps, batch_size=batch_size, seed=seed)
    return Sweep(
        layer_name=split.layer_name,
        n_channels=split.n_channels,
        points=list(sweep_points(split, captured.features, labels_n, steps, batch_size=batch_size, shortcut=shortcut)),
        channels=channel_stats(scores.importance_c, steps),
        mean_map_hwc=captured.mean_map_hwc,
    )
