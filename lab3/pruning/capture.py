"""One streaming pass over the images: importance, mean feature maps, and the features every K starts from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.arrays import allocate, release
from lab3.base.backend import map_blocks
from lab3.errors import ModelError
from lab3.pruning.criteria import ChannelMoments
from lab3.pruning.split import Split, compile_trunks
from lab3.vocabulary import Average

Preprocess = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Capture:
    """What one pass through the trunk leaves.

    `mean_map_hwc`: float64 `(H, W, C)`, the mean over images of the measured quantity; `(1, 1, C)` for a dense layer.
    The calls of a layer called several times lie one below the other. `moments`: of each channel. `features`: the
    trunk's `own`, `pruned` and carried tensors for all images, `(N, ...)` each; `pruned` has one row unless it varies
    from image to image.
    """

    mean_map_hwc: np.ndarray
    moments: ChannelMoments
    features: tuple[np.ndarray, ...]

    @property
    def importance_c(self) -> np.ndarray:
        """The default criterion, the mean over images and positions, float64 `(C,)`."""
        return self.moments.mean_c


def image_weights(n_images: int, average: Average, average_batch_size: int) -> np.ndarray:
    """The weight of each image in the mean, float64 `(N,)`, summing to 1.

    `images`: all the same. `batches`: each batch of consecutive images has the same weight, also a smaller last one.

    >>> image_weights(3, "batches", 2).tolist()
    [0.25, 0.25, 0.5]
    """
    if average == "images":
        return np.full(n_images, 1 / n_images)
    batch_n = np.arange(n_images) // average_batch_size
    size_b = np.bincount(batch_n)
    return 1 / (size_b[batch_n] * len(size_b))


def capture(split: Split, images_nhwc: np.ndarray, preprocess: Preprocess, **settings: Any) -> Capture:
    """`capture_layers` of one layer."""
    (captured,) = capture_layers([split], images_nhwc, preprocess, **settings)
    return captured


def capture_layers(
    splits: Sequence[Split],
    images_nhwc: np.ndarray,
    preprocess: Preprocess,
    *,
    weights_n: np.ndarray,
    batch_size: int,
    cache_mb: int = 64,
    keep_features: bool = True,
    on_progress: Callable[[int], None] = lambda n_images: None,
) -> list[Capture]:
    """Run the trunks of `splits`, all of one model, once over `images_nhwc` `(N, H, W, C)`.

    The means are accumulated in float64, `batch_size` images at a time. Features of more than `cache_mb` megabytes go
    to a temporary file, or nowhere without `keep_features`. `on_progress` gets the number of images done.
    """
    n_images = len(images_nhwc)
    trunks = [split.trunk for split in splits]
    run_trunks = trunks[0].run if len(trunks) == 1 else compile_trunks(trunks)
    collectors = [_Collector(split, n_images, cache_mb if keep_features else None) for split in splits]
    for rows, outputs in map_blocks(lambda block: run_trunks(preprocess(block)), images_nhwc, batch_size):
        for collector in collectors:
            collector.add(rows, outputs[: collector.n_outputs], weights_n[rows])
            outputs = outputs[collector.n_outputs :]
        on_progress(rows.stop - rows.start)
        release(images_nhwc)
    return [collector.result() for collector in collectors]


class _Collector:
    """What blocks of images leave of one layer; features only with a `cache_mb`."""

    def __init__(self, split: Split, n_images: int, cache_mb: int | None) -> None:
        self._split, self._n_images, self._cache_mb = split, n_images, cache_mb
        self.n_outputs = split.trunk.n_outputs
        self._moments = _MomentSums()
        self._features: tuple[np.ndarray, ...] = ()

    def add(self, rows: slice, outputs: Sequence[np.ndarray], weights_n: np.ndarray) -> None:
        measured, *kept = outputs
        self._moments.add(measured, weights_n)
        if self._cache_mb is None:
            return
        if not self._features:
            n_rows = [self._n_images, self._n_images if self._split.pruned_varies else 1]
            n_rows += [self._n_images] * (len(kept) - 2)
            self._features = tuple(
                allocate((n, *array.shape[1:]), array.dtype, self._cache_mb)
                for n, array in zip(n_rows, kept, strict=True)
            )
        for store, array in zip(self._features, kept, strict=True):
            store[rows if len(store) == self._n_images else slice(1)] = array
            release(store)

    def result(self) -> Capture:
        mean_map = self._moments.mean_map
        mean_map_hwc = mean_map if mean_map.ndim == 3 else mean_map.reshape(-1, 1, mean_map.shape[-1])
        if not np.isfinite(mean_map_hwc).all():
            raise ModelError(
                f"the outputs of layer {self._split.layer_name!r} must be finite, got NaN or infinity; "
                "check the model's weights and data.scale"
            )
        return Capture(mean_map_hwc, self._moments.result(), self._features)


class _MomentSums:
    """Weighted sums over images, block by block, in float64."""

    def __init__(self) -> None:
        self.mean_map: Any = 0.0
        self._absolute_c: Any = 0.0
        self._square_c: Any = 0.0
        self._zero_c: Any = 0.0
        self._maximum_c: Any = -np.inf

    def add(self, measured: np.ndarray, weights_n: np.ndarray) -> None:
        values = measured.astype(np.float64)
        self.mean_map = self.mean_map + np.tensordot(weights_n, values, axes=1)
        self._absolute_c = self._absolute_c + _mean_c(np.abs(values), weights_n)
        self._square_c = self._square_c + _mean_c(values**2, weights_n)
        self._zero_c = self._zero_c + _mean_c((values == 0).astype(np.float64), weights_n)
        self._maximum_c = np.maximum(self._maximum_c, values.max(axis=tuple(range(values.ndim - 1))))

    def result(self) -> ChannelMoments:
        mean_c = self.mean_map.reshape(-1, self.mean_map.shape[-1]).mean(axis=0)
        return ChannelMoments(mean_c, self._absolute_c, self._maximum_c, self._square_c, self._zero_c)


def _mean_c(values: np.ndarray, weights_n: np.ndarray) -> np.ndarray:
    """Weighted sum over images of the mean over positions, `(C,)`."""
    position_means_nc = values.reshape(len(values), -1, values.shape[-1]).mean(axis=1)
    sums_c: np.ndarray = weights_n @ position_means_nc
    return sums_c
