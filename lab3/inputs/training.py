"""Train a network: augmentation, a held-out validation split, the best epoch kept."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab3.base.backend import seed_hidden_state
from lab3.base.graph import flatten_model
from lab3.inputs.checkpoints import Checkpoints
from lab3.inputs.class_scores import read_class_scores
from lab3.inputs.data import split_validation


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images; `rotation` is a fraction of a full turn, the others of the image's size."""

    horizontal_flip: bool = False
    rotation: float = 0.0
    translation: float = 0.0
    zoom: float = 0.0


@dataclass(frozen=True)
class Epoch:
    """Metrics of one epoch, counted from 1; the validation ones are None without a validation split."""

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None
    val_accuracy: float | None


def train_model(
    model: Any,
    images_nhwc: np.ndarray,
    labels_n: np.ndarray,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    validation_fraction: float,
    patience: int | None,
    augmentation: Augmentation,
    seed: int,
    checkpoints: Checkpoints,
    history: Sequence[Epoch] = (),
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_batch: Callable[[int], None] = lambda n_batches: None,
) -> list[Epoch]:
    """Train `model` in place with Adam and cross-entropy; returns the epochs' metrics.

    `images_nhwc`: float32, preprocessed. With a validation split, the weights of the epoch with the best validation
    accuracy are kept, and training stops after `patience` epochs without a better one; without it, the last epoch's are
    kept. The state after an epoch is in `checkpoints` before `on_epoch` gets it; training that was stopped goes
    on behind `history`, the epochs it gave, and ends with the weights that it would have had.
    """
    import keras

    train_rows, validation_rows = split_validation(labels_n, validation_fraction, seed)
    from_logits = read_class_scores(flatten_model(model)).final == "none"
    augmented = _add_augmentation(model, augmentation, seed)
    augmented.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    _make_variables(augmented, labels_n[:1])
    epochs_done = list(history)

    def end_epoch(epoch: int, logs: dict[str, float]) -> None:
        found = Epoch(epoch + 1, logs["loss"], logs["accuracy"], logs.get("val_loss"), logs.get("val_accuracy"))
        checkpoints.save(augmented, found.epoch)
        epochs_done.append(found)
        on_epoch(found)
        checkpoints.keep({found.epoch, best_epoch(epochs_done).epoch})
        augmented.stop_training = _is_over(epochs_done, epochs, patience)

    if epochs_done:
        checkpoints.load(augmented, epochs_done[-1].epoch)
    validation = (images_nhwc[validation_rows], labels_n[validation_rows]) if len(validation_rows) else None
    if not _is_over(epochs_done, epochs, patience):
        augmented.fit(
            _batches(images_nhwc, labels_n, train_rows, batch_size, seed, first_epoch=len(epochs_done)),
            steps_per_epoch=-(-len(train_rows) // batch_size),
            initial_epoch=len(epochs_done),
            epochs=epochs,
            shuffle=False,
            validation_data=validation,
            callbacks=[
                keras.callbacks.LambdaCallback(
                    on_train_batch_begin=lambda batch, logs: seed_hidden_state(seed, len(epochs_done), batch),
                    on_epoch_end=end_epoch,
                    on_train_batch_end=lambda batch, logs: on_batch(1),
                )
            ],
            verbose=0,
        )
    checkpoints.load(augmented, best_epoch(epochs_done).epoch)
    return epochs_done


def _make_variables(model: Any, labels_1: np.ndarray) -> None:
    """Those of the optimizer and the metrics; TensorFlow traces a step that makes them itself twice."""
    model.optimizer.build(model.trainable_variables)
    model.compute_metrics(None, labels_1, np.zeros((1, *model.output_shape[1:]), np.float32))
    model.reset_metrics()


def _is_over(history: list[Epoch], epochs: int, patience: int | None) -> bool:
    """True after all epochs, or after `patience` of them without a better one."""
    if not history:
        return False
    n_worse = history[-1].epoch - best_epoch(history).epoch
    return len(history) == epochs or (patience is not None and n_worse >= patience)


def epoch_order(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """`rows` in the order of training in `epoch`, counted from 0."""
    return np.random.default_rng([seed, epoch]).permutation(rows)


def _batches(
    images_nhwc: np.ndarray, labels_n: np.ndarray, rows: np.ndarray, batch_size: int, seed: int, first_epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches without end, epoch after epoch, each in an order of its own.

    Keras 3.15's own shuffling of arrays repeats one order in every epoch once a global seed is set; the network then
    generalises worse.
    """
    for epoch in itertools.count(first_epoch):
        order = epoch_order(rows, seed, epoch)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            yield images_nhwc[batch], labels_n[batch]


def best_epoch(history: list[Epoch]) -> Epoch:
    """The epoch whose weights are kept: the first with the best validation accuracy, else the last."""
    if history[-1].val_accuracy is None:
        return history[-1]
    return max(history, key=lambda epoch: epoch.val_accuracy or 0.0)


def count_batches(n_images: int, validation_fraction: float, batch_size: int) -> int:
    """Batches an epoch, for progress bars; the split of each class may round it by one."""
    return -(-round(n_images * (1 - validation_fraction)) // batch_size)


def _add_augmentation(model: Any, augmentation: Augmentation, seed: int) -> Any:
    import keras
    from keras import layers

    random_layers = []
    if augmentation.horizontal_flip:
        random_layers.append(layers.RandomFlip("horizontal", seed=seed))
    if augmentation.rotation:
        random_layers.append(layers.RandomRotation(augmentation.rotation, seed=seed + 1))
    if augmentation.translation:
        shift = augmentation.translation
        random_layers.append(layers.RandomTranslation(shift, shift, seed=seed + 2))
    if augmentation.zoom:
        random_layers.append(layers.RandomZoom(augmentation.zoom, seed=seed + 3))
    # A model around the model: the random layers act in training only and are never saved.
    return keras.Sequential([keras.Input(model.input_shape[1:]), *random_layers, model])
