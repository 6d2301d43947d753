"""Labelled images in memory, and the checks they must pass."""

from dataclasses import dataclass

import numpy as np

from lab3.errors import DataError, first_few


@dataclass(frozen=True)
class Dataset:
    """Labelled images.

    `images_nhwc`: uint8 or float32 `(N, H, W, C)` as stored, before any scaling. `labels_n`: int64 `(N,)`.
    `class_names`: in order of label, where the source has names. `source` says where they came from; `sha256` is of the
    source file, or of the arrays where there is no single file.
    """

    images_nhwc: np.ndarray
    labels_n: np.ndarray
    class_names: tuple[str, ...] | None
    source: str
    sha256: str

    def __len__(self) -> int:
        return len(self.labels_n)


def check_dataset(dataset: Dataset, input_shape: tuple[int | None, ...], n_labels: int) -> None:
    """Raise `DataError` unless `dataset` fits a model of `input_shape`, `(H, W, C)`, and `n_labels` classes.

    A model of inputs `(H, W)` takes images of one color channel.
    """
    images_nhwc, labels_n, source = dataset.images_nhwc, dataset.labels_n, dataset.source
    if len(images_nhwc) == 0:
        raise DataError(f"{source}: there must be at least one image, got none")
    if len(images_nhwc) != len(labels_n):
        raise DataError(f"{source}: there must be one label per image, got {len(images_nhwc)} and {len(labels_n)}")
    has_channels = images_nhwc.ndim == 4 and len(input_shape) == 2
    _check_shape(images_nhwc.shape[1:], (*input_shape, 1) if has_channels else input_shape, source)
    with np.errstate(invalid="ignore"):
        total = np.sum(images_nhwc, dtype=np.float64)
    if not np.isfinite(total):
        bad = [n for n, image in enumerate(images_nhwc) if not np.isfinite(image).all()]
        raise DataError(
            f"{source}: pixels must be finite numbers, got NaN or infinity in {len(bad)} images, "
            f"the first is number {bad[0]}"
        )
    if dataset.class_names is not None and len(dataset.class_names) != n_labels:
        raise DataError(
            f"{source}: the model has {n_labels} classes but the images have {len(dataset.class_names)} classes "
            f"({first_few(dataset.class_names)}); use the data the model was trained for"
        )
    outside = np.flatnonzero((labels_n < 0) | (labels_n >= n_labels))
    if len(outside):
        raise DataError(
            f"{source}: labels must be in 0..{n_labels - 1} (the model has {n_labels} classes), "
            f"got {labels_n[outside[0]]} for image {outside[0]} and {len(outside)} such labels in all"
        )


def split_validation(labels_n: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices `(train, validation)`: `fraction` of each class, drawn with `seed`, is held out; both ascend.

    `labels_n`: int `(N,)`. With fraction 0 the second is empty. Raises `DataError` if a class is too small to be split.
    """
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(labels_n), bool)
    for label in np.unique(labels_n):
        members = np.flatnonzero(labels_n == label)
        n_validation = round(fraction * len(members))
        if fraction > 0 and not 0 < n_validation < len(members):
            raise DataError(
                f"train.validation_fraction={fraction} leaves class {label}, {len(members)} images, "
                "without one to train or to validate on; use more images or another fraction"
            )
        held_out[rng.permutation(members)[:n_validation]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _check_shape(shape: tuple[int, ...], input_shape: tuple[int | None, ...], source: str) -> None:
    if len(input_shape) == 2 and shape[2:] == (1,):
        shape = shape[:2]  # one color channel, which such a model is fed without
    if len(shape) == len(input_shape) and all(
        want in (None, got) for got, want in zip(shape, input_shape, strict=True)
    ):
        return
    wanted = "x".join("any" if size is None else str(size) for size in input_shape)
    hint = "resize the images, or use the data the model was trained for"
    if len(shape) == 3 and len(input_shape) == 3 and shape[0] == input_shape[2] and shape[2] != input_shape[2]:
        hint = "they look channels-first; lab3 wants (N, H, W, C): transpose them with images.transpose(0, 2, 3, 1)"
    elif len(shape) == 3 and len(input_shape) == 3 and shape[2] == 3 and input_shape[2] == 1:
        hint = "decode them with --set data.color=grayscale"
    raise DataError(f"{source}: the model takes images of {wanted}, got {'x'.join(map(str, shape))}; {hint}")
