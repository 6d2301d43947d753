"""Train an experiment's network inside its run."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lab3.app.pipeline.materials import Materials, Work
from lab3.base.backend import map_blocks
from lab3.base.files import write_atomically
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.inputs.checkpoints import Checkpoints
from lab3.inputs.class_scores import compile_logits
from lab3.inputs.model_files import save_model
from lab3.inputs.training import Augmentation, Epoch, best_epoch, count_batches, train_model
from lab3.record import readers, tables
from lab3.record.journal import open_journal
from lab3.views.figures import plot_learning_curves, save_figure


def train_network(work: Work) -> Materials:
    """Train the model, save it in the run; returns the materials with the saved model's path.

    Training that was stopped continues after the last epoch that the run has.
    """
    run, config, materials, progress = work.run, work.config, work.materials, work.progress
    assert materials.train is not None
    progress.say(f"training {config.model.architecture} on {len(materials.train):,} images of {materials.train.source}")
    with open_journal(run.epochs_jsonl, work.manifest.training_identity()) as journal:
        history = readers.epochs_of_rows(journal.rows, journal.path)
        checkpoints = Checkpoints(run.checkpoints, {row["epoch"]: str(row.get("checkpoint")) for row in journal.rows})

        def log(epoch: Epoch) -> None:
            journal.append(tables.row_of_epoch(epoch, checkpoints.sha256s[epoch.epoch]))
            work.events.log(epoch)

        history = fit(materials.model, materials, config, progress, "train", checkpoints, history, log)
    write_atomically(run.epochs_csv, tables.epochs_csv(history))
    progress.say(f"kept the weights of epoch {best_epoch(history).epoch} of {len(history)}")
    save_figure(plot_learning_curves(history, f"{run.run_id}: training"), run.figure("learning_curves"))
    path = run.path / f"model.{config.train.format}"
    save_model(materials.model, path)
    checkpoints.remove()
    return replace(materials, model_path=path)


def fit(
    model: Any,
    materials: Materials,
    config: Config,
    progress: Progress,
    title: str,
    checkpoints: Checkpoints,
    history: Sequence[Epoch] = (),
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> list[Epoch]:
    """Train `model` in place on the training images by the experiment's settings, and show it; see `train_model`."""
    assert materials.train is not None
    settings, images_nhwc = config.train, materials.preprocess(materials.train.images_nhwc)
    n_batches = count_batches(len(images_nhwc), settings.validation_fraction, settings.batch_size)
    with progress.bar(title, settings.epochs * n_batches, "batches") as advance:
        advance(len(history) * n_batches, "")

        def log(epoch: Epoch) -> None:
            on_epoch(epoch)
            shown = epoch.accuracy if epoch.val_accuracy is None else epoch.val_accuracy
            name = "accuracy" if epoch.val_accuracy is None else "validation accuracy"
            advance(0, f"epoch {epoch.epoch}/{settings.epochs}, {name} {shown:.4f}")

        return train_model(
            model,
            images_nhwc,
            materials.train.labels_n,
            epochs=settings.epochs,
            batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            validation_fraction=settings.validation_fraction,
            patience=settings.patience,
            augmentation=Augmentation(**settings.augment.model_dump()),
            seed=config.seed,
            checkpoints=checkpoints,
            history=history,
            on_epoch=log,
            on_batch=lambda n: advance(n, ""),
        )


def find_right(model: Any, materials: Materials, config: Config) -> np.ndarray:
    """Which test images `model` gets right, bool `(N,)`."""
    test, run = materials.test, compile_logits(model)
    batch_size = config.sweep.capture_batch_size
    blocks = map_blocks(lambda block: run(materials.preprocess(block)), test.images_nhwc, batch_size)
    return np.concatenate([logits_nl.argmax(axis=1) == test.labels_n[rows] for rows, (logits_nl,) in blocks])


def summarise_training(work: Work) -> dict[str, Any]:
    """The content of `summary.json` of a run that only trains: the kept epoch and the test accuracy."""
    materials = work.materials
    correct = int(find_right(materials.model, materials, work.config).sum())
    return {
        "model": str(materials.model_path),
        "kept_epoch": best_epoch(readers.read_epochs(work.run)).epoch,
        "n_images": len(materials.test),
        "correct": correct,
        "accuracy": correct / len(materials.test),
    }
