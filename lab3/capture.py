"""One streaming pass over the images: importance, mean feature maps, and the features every K starts from."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lab3.backend import map_blocks
from lab3.errors import ModelError
from lab3.split import Split


@dataclass(frozen=True)
class Capture:
    """What one pass through the trunk leaves.

    `mean_map_hwc`: float64 `(H, W, C)`, the mean over images of the measured quantity; `(1, 1, C)` for a dense layer.
    `importance_c`: float64 `(C,)`, its mean over positions. `features`: the trunk's `own`, `pruned` and carried tensors
    for all images, `(N, ...)` each; `pruned` has one row unless it varies from image to image.
    """

    mean_map_hwc: np.ndarray
    features: tuple[np.ndarray, ...]

    @property
    def importance_c(self) -> np.ndarray:
        importance_c: np.ndarray = self.mean_map_hwc.mean(axis=(0, 1))
        return importance_c


def image_weights(n_images: int, average: Literal["images", "batches"], average_batch_size: int) -> np.ndarray:
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


def capture(
    split: Split,
    images_nhwc: np.ndarray,
    preprocess: Callable[[np.ndarray], np.ndarray],
    *,
    weights_n: np.ndarray,
    batch_size: int,
    cache_mb: int,
    on_progress: Callable[[int], None] = lambda n_images: None,
) -> Capture:
    """Run the trunk once over `images_nhwc` `(N, H, W, C)`.

    The means are accumulated in float64, `batch_size` images at a time. Features that need more than `cache_mb`
    megabytes go to a temporary file that vanishes with the process. `on_progress` is told the number of images done.
    """
    n_images = len(images_nhwc)
    batch_size = min(batch_size, n_images)
    total: np.ndarray | float = 0.0
    features: tuple[np.ndarray, ...] = ()
    for rows, (measured, *kept) in map_blocks(
        lambda block: split.run_trunk(preprocess(block)), images_nhwc, batch_size
    ):
        if not features:
            in_file = sum(array[0].nbytes for array in kept) * n_images > cache_mb * 2**20
            n_rows = [n_images, n_images if split.pruned_varies else 1] + [n_images] * (len(kept) - 2)
            features = tuple(
                _allocate((n, *array.shape[1:]), array.dtype, in_file) for n, array in zip(n_rows, kept, strict=True)
            )
        for store, array in zip(features, kept, strict=True):
            store[rows if len(store) == n_images else slice(1)] = array
        total = total + np.tensordot(weights_n[rows], measured.astype(np.float64), axes=1)
        on_progress(rows.stop - rows.start)
    mean_map = np.asarray(total)
    if not np.isfinite(mean_map).all():
        raise ModelError(
            f"the outputs of layer {split.layer_name!r} must be finite, got NaN or infinity; "
            "check the model's weights and data.scale"
        )
    return Capture(mean_map if mean_map.ndim == 3 else mean_map.reshape(1, -1, mean_map.shape[-1]), features)


def _allocate(shape: tuple[int, ...], dtype: np.dtype, in_file: bool) -> np.ndarray:
    if not in_file:
        return np.empty(shape, dtype)
    # The open map keeps the nameless file alive; it is gone when the array is.
    with tempfile.TemporaryFile(prefix="lab3-features-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)
