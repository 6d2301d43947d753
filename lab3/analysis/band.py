"""A band that holds a whole curve of accuracy over K, not each of its points alone."""

from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri

from lab3.analysis.flips import rightness
from lab3.base.arrays import blocks_of
from lab3.pruning.engine import SweepPoint

_N_DRAWS, _MOST_K, _N_IMAGES_AT_ONCE = 4000, 512, 4096


def accuracy_band(points: Sequence[SweepPoint], confidence: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest accuracy at each point, float64 `(K,)`: all true ones lie inside at `confidence`.

    At each K it is Wilson's interval, with the critical value of `critical_value` in place of that of one K.
    """
    z, n = critical_value(rightness(points), confidence), points[0].total
    accuracy_k = np.array([point.accuracy for point in points])
    centre_k = (accuracy_k + z**2 / (2 * n)) / (1 + z**2 / n)
    reach_k = z / (1 + z**2 / n) * np.sqrt(accuracy_k * (1 - accuracy_k) / n + z**2 / (4 * n**2))
    return centre_k - reach_k, centre_k + reach_k


def critical_value(right_kn: np.ndarray, confidence: float) -> float:
    """By how many standard errors the accuracies at all K together stray at most, with that probability.

    `right_kn`: bool `(K, N)`, which images are right. The errors at several K go together as the images do: given the
    images, sums of them with standard normal multipliers are normal with the correlations of `right_kn` over K, and the
    largest of K such numbers is drawn. Of more than 512 K, evenly spread ones are taken. For one K at 0.95 it is 1.96.
    Source: Montiel Olea and Plagborg-Møller, Simultaneous confidence bands, J. of Applied Econometrics 34:1-17, 2019.
    """
    right_kn = right_kn[:: -(-len(right_kn) // _MOST_K)]
    n_images = right_kn.shape[1]
    mean_k = right_kn.mean(axis=1)
    covariance_kk = -np.outer(mean_k, mean_k)
    for rows in blocks_of(n_images, _N_IMAGES_AT_ONCE):
        part_kn = right_kn[:, rows].astype(np.float32)
        covariance_kk += (part_kn @ part_kn.T) / n_images
    # Where all images are right, or none, nothing strays.
    varies_k = (mean_k > 0) & (mean_k < 1)
    covariance_kk = covariance_kk[np.ix_(varies_k, varies_k)]
    if not varies_k.any():
        return float(ndtri((1 + confidence) / 2))
    deviation_k = np.sqrt(np.diag(covariance_kk))
    values, vectors = np.linalg.eigh(covariance_kk / np.outer(deviation_k, deviation_k))
    factor_kk = vectors * np.sqrt(np.maximum(values, 0))
    draws = np.random.default_rng(0).standard_normal((len(factor_kk), _N_DRAWS))
    return float(np.quantile(np.abs(factor_kk @ draws).max(axis=0), confidence))
