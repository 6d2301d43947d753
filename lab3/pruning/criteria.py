"""How important a channel is: small functions of what was measured or of its weights. The least important go first.

Each returns float64 `(C,)`. The functions of `ChannelMoments` are given the moments of a pruned channel too, so that
ranking again at every K knows where a pruned channel stands; by the others a pruned channel ranks below all.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ChannelMoments:
    """Of each channel's measured quantity over all images and positions, float64 `(C,)` each."""

    mean_c: np.ndarray
    mean_absolute_c: np.ndarray
    maximum_c: np.ndarray
    mean_square_c: np.ndarray
    zero_share_c: np.ndarray

    @classmethod
    def of_map(cls, values: np.ndarray) -> "ChannelMoments":
        """Of channels that give the same map `(..., C)` for every image."""
        positions = np.asarray(values, np.float64).reshape(-1, values.shape[-1])
        mean_c, mean_absolute_c = positions.mean(axis=0), np.abs(positions).mean(axis=0)
        return cls(
            mean_c, mean_absolute_c, positions.max(axis=0), (positions**2).mean(axis=0), (positions == 0).mean(axis=0)
        )


def mean_activation(moments: ChannelMoments) -> np.ndarray:
    """The mean. Source: the loop of both laboratory reports."""
    return moments.mean_c


def mean_absolute(moments: ChannelMoments) -> np.ndarray:
    """The mean of absolute values."""
    return moments.mean_absolute_c


def maximum(moments: ChannelMoments) -> np.ndarray:
    """The largest value at any image and position."""
    return moments.maximum_c


def standard_deviation(moments: ChannelMoments) -> np.ndarray:
    """The standard deviation over images and positions; a channel that never varies carries nothing."""
    deviation_c: np.ndarray = np.sqrt(np.maximum(moments.mean_square_c - moments.mean_c**2, 0))
    return deviation_c


def apoz(moments: ChannelMoments) -> np.ndarray:
    """One minus the average percentage of zeros. Source: Hu et al., Network Trimming, arXiv:1607.03250, equation 1."""
    return 1 - moments.zero_share_c


def filter_l1(kernel: np.ndarray) -> np.ndarray:
    """The L1 norm of each filter; `kernel` `(..., C)`.

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """
    norms_c: np.ndarray = np.abs(_filters(kernel)).sum(axis=1)
    return norms_c


def filter_l2(kernel: np.ndarray) -> np.ndarray:
    """The L2 norm of each filter; `kernel` `(..., C)`. Source: as `filter_l1`, where both norms are compared."""
    norms_c: np.ndarray = np.sqrt((_filters(kernel) ** 2).sum(axis=1))
    return norms_c


def fpgm(kernel: np.ndarray) -> np.ndarray:
    """The sum of distances to all other filters; `kernel` `(..., C)`.

    The filter nearest the geometric median is replaced best by the others. Source: He et al., Filter Pruning via
    Geometric Median, CVPR 2019, equation 4.
    """
    filters = _filters(kernel)
    return np.array([np.sqrt(((filters - one) ** 2).sum(axis=1)).sum() for one in filters])


def batchnorm_scale(gamma_c: np.ndarray) -> np.ndarray:
    """The absolute scale of the normalisation behind. Source: Liu et al., Network Slimming, ICCV 2017, section 3."""
    return np.abs(np.asarray(gamma_c, np.float64))


def random_scores(n_channels: int, seed: int) -> np.ndarray:
    """A random order, the same for the same seed: what any criterion has to beat."""
    return np.random.default_rng(seed).permutation(n_channels).astype(np.float64)


OF_MOMENTS: dict[str, Callable[[ChannelMoments], np.ndarray]] = {
    "mean_activation": mean_activation,
    "mean_absolute": mean_absolute,
    "maximum": maximum,
    "standard_deviation": standard_deviation,
    "apoz": apoz,
}
OF_KERNEL: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "filter_l1": filter_l1,
    "filter_l2": filter_l2,
    "fpgm": fpgm,
}


def _filters(kernel: np.ndarray) -> np.ndarray:
    """One row a filter, float64 `(C, weights)`."""
    return kernel.reshape(-1, kernel.shape[-1]).T.astype(np.float64)
