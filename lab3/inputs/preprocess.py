"""Pixels to model input: (pixel / scale - mean) / std, block by block, without a float copy of all images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab3.errors import ConfigError


@dataclass(frozen=True)
class Preprocessing:
    """`scale` divides every pixel; `mean` and `std` are one number or one per channel, in units after scaling.

    >>> Preprocessing(scale=255.0, mean=0.5, std=0.5)(np.array([[[[0, 255]]]], np.uint8)).ravel().tolist()
    [-1.0, 1.0]
    """

    scale: float = 255.0
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0

    def __call__(self, images_nhwc: np.ndarray) -> np.ndarray:
        """float32 of the same shape."""
        scaled = images_nhwc.astype(np.float32) / np.float32(self.scale)
        if np.any(self.mean):
            scaled -= np.asarray(self.mean, np.float32)
        if np.any(np.asarray(self.std) != 1):
            scaled /= np.asarray(self.std, np.float32)
        return scaled

    def check(self, n_channels: int) -> None:
        """Raise `ConfigError` if `mean` or `std` is a list of another length than the images have channels."""
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, Sequence) and len(value) != n_channels:
                raise ConfigError(
                    f"data.{name} must be one number or one per channel ({n_channels}), got {len(value)} numbers"
                )
