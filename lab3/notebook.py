"""The sweep in three lines of a notebook: load, sweep, plot."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.analysis.certificate import Certificate, Evidence, certify, find_obstacle
from lab3.arguments import Arguments, check_arguments, check_data, check_model, named_as_arguments
from lab3.base.bars import open_progress
from lab3.errors import ConfigError, ModelError
from lab3.inputs.model_files import check_weights, load_model
from lab3.pruning.capture import capture, image_weights
from lab3.pruning.compact import compact_model, mask_layer, prove_compact
from lab3.pruning.engine import SweepPoint, is_about_chance, sweep_points
from lab3.pruning.rank import ChannelStats, channel_stats, plan_pruning
from lab3.pruning.schedule import parse_schedule
from lab3.pruning.scores import score_channels
from lab3.pruning.selfcheck import SelfCheck, check_split
from lab3.pruning.split import Split, split_model
from lab3.vocabulary import Average, Bias, Criterion, Effect, Measured, Ranking, Shortcut

__all__ = ["Points", "Sweep", "load_model", "sweep"]

_COLUMNS = (
    "k", "n_pruned", "correct", "total", "accuracy", "loss", "top5_correct", "n_changed", "n_tied", "n_run", "n_lost",
    "n_gained",
)  # fmt: skip
_INFERRED_COLUMNS = ("loss_se", "n_inferred", "n_audited")


class Points(dict[int, SweepPoint]):
    """The points by K, ascending: `points[100]` is that of K = 100 with any schedule."""

    def __repr__(self) -> str:
        return f"<{len(self)} points, K = {_shown(list(self))}>"


@dataclass(frozen=True, repr=False, eq=False)
class Sweep:
    """A finished sweep: `points` by K, `channels` from the least to the most important.

    `mean_map_hwc`: float64 `(H, W, C)`, what the importance was measured on, averaged over the images. `self_check`:
    what was compared with the whole network before the first point.
    """

    layer_name: str
    n_channels: int
    criterion: Criterion
    effect: Effect
    points: Points
    channels: list[ChannelStats]
    mean_map_hwc: np.ndarray
    self_check: SelfCheck
    _swept: tuple[Split, np.ndarray, np.ndarray]  # with images and labels

    def __repr__(self) -> str:
        first, *_, last = [*self.points.values()] * 2
        inferred = "inferred " * first.is_inferred
        return (
            f"<Sweep of {self.layer_name}: {self.n_channels} channels by {self.criterion}, effect {self.effect}, "
            f"{first.total:,} images, {len(self.points)} K; {inferred}accuracy {first.accuracy:.4f} at K={first.k}, "
            f"{last.accuracy:.4f} at K={last.k}>"
        )

    def at(self, k: int) -> SweepPoint:
        """The point of this K. Raises `ConfigError` if it was not swept."""
        if k in self.points:
            return self.points[k]
        ks = list(self.points)
        is_number = isinstance(k, int | np.integer)
        hint = f"the nearest is at({min(ks, key=lambda each: abs(each - k))})" if is_number else "give an integer"
        raise ConfigError(f"at(K) must be given a K of the schedule ({_shown(ks)}), got {k!r}; {hint}")

    def compact(self, k: int) -> Any:
        """The Keras model without the channels pruned at `k`, not compiled; see docs/compact.md.

        It is first held against the model with masked channels, on all images of the sweep. Raises `ConfigError` if K
        was not swept, `ModelError` where a layer does not allow it, or the model is no longer the one that was swept.

        >>> result.compact(100).save("smaller.keras")  # doctest: +SKIP
        """
        point = self.at(k)
        split, images_nhwc, labels_n = self._swept
        compact = compact_model(split.anatomy, point.pruned_channels)
        proof = prove_compact(mask_layer(split, point.pruned_channels), compact, images_nhwc, labels_n, _preprocess)
        if abs(proof.correct - point.correct) > point.n_tied + (point.n_inferred or 0):
            raise ModelError(
                f"the model must have the weights that were swept, got {proof.correct} right of {proof.n_images} at "
                f"K={k}, and {point.correct} in the sweep; sweep again"
            )
        return compact

    def certify(self, tolerance: float = 0.01, confidence: float = 0.95, n_compared: int = 1) -> Certificate:
        """How many channels can be pruned so that accuracy on other images falls by at most `tolerance`, a share.

        `n_compared`: of how many sweeps of these images you choose one, as with several layers or criteria. Tolerance,
        layer and criterion must be fixed before you look. Raises `ConfigError` for values that cannot be.

        >>> print(result.certify(tolerance=0.02))  # doctest: +SKIP
        286 of 512 channels of conv2d_12 can be removed: accuracy falls by at most 2 points (95 % confidence, ...
        """
        settings = check_arguments(tolerance=tolerance, confidence=confidence, n_compared=n_compared)
        points = list(self.points.values())
        obstacle = find_obstacle(self.criterion, scored_on_these=True, infers=points[0].is_inferred)
        names = [str(label) for label in range(len(points[0].class_total))]
        evidence = Evidence(points, self.layer_name, self.n_channels, self.effect, names, obstacle)
        return certify(evidence, settings.tolerance, settings.confidence, settings.n_compared)

    def plot(self, axes: Any = None, certificate: Certificate | None = None) -> Any:
        """The accuracy curve as a matplotlib figure, drawn on `axes` if given, with what `certify` gave marked."""
        from lab3.views.figures import about, plot_accuracy

        points = list(self.points.values())
        facts = about(criterion=self.criterion, effect=self.effect, n_images=points[0].total)
        return plot_accuracy(points, self.layer_name, self.n_channels, axes, facts, certificate)

    def to_pandas(self) -> Any:
        """The points as a `pandas.DataFrame`, a row per K; of a sweep that infers, the loss is in `loss_estimate`.

        Raises `ConfigError` where pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-untyped]
        except ImportError as error:
            raise ConfigError("to_pandas must have pandas, which is not installed; run: pip install pandas") from error
        points = list(self.points.values())
        names = _COLUMNS + _INFERRED_COLUMNS * points[0].is_inferred
        table = pandas.DataFrame([[getattr(point, name) for name in names] for point in points], columns=names)
        return table.rename(columns={"loss": "loss_estimate"}) if points[0].is_inferred else table


def sweep(
    model: Any,
    images: Any,
    labels: Any,
    *,
    layer: str | int | None = None,
    criterion: Criterion = "mean_activation",
    effect: Effect = "remove",
    measured: Measured = "activation",
    ranking: Ranking = "once",
    schedule: str | Sequence[int] | np.ndarray = "0:C:1",
    seed: int = 0,
    bias: Bias = "zero",
    average: Average = "images",
    average_batch_size: int = 64,
    shortcut: Shortcut = "unchanged",
    batch_size: int = 2000,
    progress: bool = True,
) -> Sweep:
    """Accuracy and loss of `model` at every K of `schedule`, the K least important channels of `layer` pruned.

    `images`: array `(N, H, W, C)`, ready for the model (scaled as in its training); `(N, H, W)` if it takes one color
    channel. `labels`: integers `(N,)` or `(N, 1)`, or one-hot rows `(N, L)`. `progress`: bars on a terminal and in
    a notebook. The others are the settings of the same names, with their defaults; `layer` is the last `Conv2D` unless
    named, and channels are scored on the same images. The model is left as it is. Nothing is written.

    >>> result = lab3.sweep(lab3.load_model("my.h5"), x_test / 255, y_test)  # doctest: +SKIP
    >>> result.at(100).accuracy, result.at(100).pruned_channels[:3]  # doctest: +SKIP

    Warns where the accuracy at K = 0 is about chance. Raises `ConfigError`, `ModelError` or `DataError` for settings,
    a model or images that cannot be used, before any work.
    """
    settings = check_arguments(
        layer=layer, criterion=criterion, effect=effect, measured=measured, ranking=ranking, schedule=schedule,
        seed=seed, bias=bias, average=average, average_batch_size=average_batch_size, shortcut=shortcut,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    check_model(model)
    with named_as_arguments():
        split = split_model(
            model, settings.layer, effect=settings.effect, measured=settings.measured, bias=settings.bias
        )
        ks = parse_schedule(settings.schedule, split.n_channels)
        images_nhwc, labels_n = check_data(images, labels, split.anatomy.graph.input_shape[1:], split.n_labels)
        check_weights(model, "lab3.sweep: model")
        return _sweep(split, model, images_nhwc, labels_n, ks, settings)


def _sweep(
    split: Split, model: Any, images_nhwc: np.ndarray, labels_n: np.ndarray, ks: Sequence[int], settings: Arguments
) -> Sweep:
    """What `sweep` does once all is checked."""
    progress, size = open_progress(settings.progress), settings.batch_size
    with progress.bar("capture", len(images_nhwc), "images") as advance:
        captured = capture(
            split,
            images_nhwc,
            _preprocess,
            weights_n=image_weights(len(images_nhwc), settings.average, settings.average_batch_size),
            batch_size=settings.capture_batch_size,
            on_progress=lambda n: advance(n, ""),
        )
    scores = score_channels(settings.criterion, split, captured, labels_n, seed=settings.seed, batch_size=size)
    steps = plan_pruning(scores.importance_c, scores.pruned_importance_c, ks, settings.ranking)
    checked = check_split(
        split, model, captured.features, images_nhwc, _preprocess, steps, batch_size=size, seed=settings.seed
    )
    points = Points()
    found = sweep_points(split, captured.features, labels_n, steps, batch_size=size, shortcut=settings.shortcut)
    with progress.bar("sweep", len(steps), "K") as advance:
        for point in found:
            points[point.k] = point
            if point.k == 0 and is_about_chance(point.accuracy, split.n_labels):
                warnings.warn(_chance_warning(point, split.n_labels, images_nhwc), stacklevel=3)
            advance(1, f"K={point.k} accuracy {point.accuracy:.4f}")
    return Sweep(
        split.layer_name,
        split.n_channels,
        settings.criterion,
        settings.effect,
        points,
        channel_stats(scores.importance_c, steps),
        captured.mean_map_hwc,
        checked,
        (split, images_nhwc, labels_n),
    )


def _preprocess(block_nhwc: np.ndarray) -> np.ndarray:
    return block_nhwc.astype(np.float32)


def _chance_warning(point: SweepPoint, n_labels: int, images_nhwc: np.ndarray) -> str:
    text = f"the accuracy at K = 0 is {point.accuracy:.4f}, about chance for {n_labels} classes: "
    highest = images_nhwc.max()
    if images_nhwc.dtype == np.uint8 or highest > 1.5:
        text += f"pixels go up to {highest:g} and may have to be scaled as in training, such as images / 255; "
    return text + "check the scaling of the images and the order of the classes"


def _shown(ks: list[int]) -> str:
    return ", ".join(map(str, ks)) if len(ks) <= 6 else f"{ks[0]}, {ks[1]}, {ks[2]}, ..., {ks[-1]}"
