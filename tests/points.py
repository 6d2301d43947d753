"""Points of a sweep made from which images are right at each K."""

from collections.abc import Sequence

import numpy as np

from lab3.analysis.tango import exact_level, tango_p
from lab3.pruning.engine import SweepPoint


def make_points(
    right_kn: np.ndarray, labels_n: np.ndarray | None = None, ks: Sequence[int] | None = None
) -> list[SweepPoint]:
    """A point for each row of `right_kn`, bool `(K, N)`, K channels pruned; the first is K = 0 unless `ks` says so.

    `labels_n`: int `(N,)`; without it all images are of one class.
    """
    n_images = right_kn.shape[1]
    labels_n = np.zeros(n_images, int) if labels_n is None else labels_n
    n_labels = int(labels_n.max()) + 1

    def by_class(images_n: np.ndarray) -> tuple[int, ...]:
        return tuple(np.bincount(labels_n[images_n], minlength=n_labels).tolist())

    points, before_n = [], np.ones(n_images, bool)
    for k, right_n in zip(ks or range(len(right_kn)), right_kn, strict=True):
        lost_n, gained_n = right_kn[0] & ~right_n, right_n & ~right_kn[0]
        points.append(
            SweepPoint(
                k=k,
                pruned_channels=tuple(range(k)),
                correct=int(right_n.sum()),
                total=n_images,
                loss=0.1 * k,
                top5_correct=n_images,
                class_correct=by_class(right_n),
                n_changed=int((lost_n | gained_n).sum()),
                n_tied=0,
                n_run=n_images,
                class_total=by_class(np.ones(n_images, bool)),
                class_lost=by_class(lost_n),
                class_gained=by_class(gained_n),
                turned_wrong=tuple(np.flatnonzero(before_n & ~right_n).tolist()),
                turned_right=tuple(np.flatnonzero(right_n & ~before_n).tolist()),
            )
        )
        before_n = right_n
    return points


def make_counted(n_lost: Sequence[int], n_gained: Sequence[int], n_images: int) -> list[SweepPoint]:
    """Points of K = 0, 1, ... on `n_images` of one class that lost and gained so many images against K = 0."""
    right_kn = np.zeros((len(n_lost), n_images), bool)
    n_right = n_images - max(n_gained)
    for row, lost, gained in zip(right_kn, n_lost, n_gained, strict=True):
        row[lost:n_right] = True
        row[n_right : n_right + gained] = True
    return make_points(right_kn)


def share_too_large(right_kn: np.ndarray, n: int, tolerance: float, n_sets: int = 2000) -> tuple[float, float]:
    """Of test sets of `n` images drawn from those of `right_kn`, `(K, N)`: how many have too large a K, certified and
    observed.

    Too large is a K at which, or at a smaller one, all images together lose more than `tolerance`.
    """
    lost_kn, gained_kn = right_kn[0] & ~right_kn, right_kn & ~right_kn[0]
    n_k, n_images = right_kn.shape
    drops_k = (lost_kn.sum(axis=1) - gained_kn.sum(axis=1)) / n_images
    first_bad = int((drops_k > tolerance).argmax())
    assert first_bad > 0, "no K is too large"
    # Images that never change need not be told apart.
    changing_n = lost_kn.any(axis=0) | gained_kn.any(axis=0)
    shares = np.append(np.full(changing_n.sum(), 1 / n_images), 1 - changing_n.mean())
    rng, n_too_large = np.random.default_rng(n), np.zeros(2)
    for n_drawn in [200] * (n_sets // 200):
        times_sn = rng.multinomial(n, shares, size=n_drawn)[:, :-1].astype(np.float32)
        lost_sk, gained_sk = (times_sn @ each[:, changing_n].T.astype(np.float32) for each in (lost_kn, gained_kn))
        passes_sk = tango_p(lost_sk, gained_sk, n, tolerance) <= exact_level(n, tolerance, 0.05)
        passes_sk[:, 0] = True
        for number, kept_sk in enumerate((passes_sk, (lost_sk - gained_sk) / n <= tolerance)):
            n_kept_s = np.where(kept_sk.all(axis=1), n_k, kept_sk.argmin(axis=1))
            n_too_large[number] += (n_kept_s > first_bad).sum()
    certified, observed = n_too_large / n_sets
    return float(certified), float(observed)
