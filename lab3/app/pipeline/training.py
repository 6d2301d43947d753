"""Train an experiment's network inside its run."""

from dataclasses import replace
from typing import Any

from lab3.app.pipeline.materials import Materials, Work
from lab3.base.backend import compile_function, map_blocks
from lab3.base.files import write_atomically
from lab3.inputs.checkpoints import Checkpoints
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
    settings = config.train
    images_nhwc = materials.preprocess(materials.train.images_nhwc)
    n_batches = count_batches(len(images_nhwc), settings.validation_fraction, settings.batch_size)
    progress.say(f"training {config.model.architecture} on {len(images_nhwc):,} images of {materials.train.source}")
    with (
        open_journal(run.epochs_jsonl, work.manifest.training_identity()) as journal,
        progress.bar("train", settings.epochs * n_batches, "batches") as advance,
    ):
        history = readers.epochs_of_rows(journal.rows, journal.path)
        checkpoints = Checkpoints(run.checkpoints, {row["epoch"]: str(row.get("checkpoint")) for row in journal.rows})
        advance(len(history) * n_batches, "")

        def log(epoch: Epoch) -> None:
            journal.append(tables.row_of_epoch(epoch, checkpoints.sha256s[epoch.epoch]))
            history.append(epoch)
            work.events.log(epoch)
            shown = epoch.accuracy if epoch.val_accuracy is None else epoch.val_accuracy
            name = "accuracy" if epoch.val_accuracy is None else "validation accuracy"
            advance(0, f"epoch {epoch.epoch}/{settings.epochs}, {name} {shown:.4f}")

        train_model(
            materials.model,
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
            history=tuple(history),
            on_epoch=log,
            on_batch=lambda n: advance(n, ""),
        )
    write_atomically(run.epochs_csv, tables.epochs_csv(history))
    progress.say(f"kept the weights of epoch {best_epoch(history).epoch} of {len(history)}")
    save_figure(plot_learning_curves(history, f"{run.run_id}: training"), run.figure("learning_curves"))
    path = run.path / f"model.{settings.format}"
    save_model(materials.model, path)
    checkpoints.remove()
    return replace(materials, model_path=path)


def summarise_training(work: Work) -> dict[str, Any]:
    """The content of `summary.json` of a run that only trains: the kept epoch and the test accuracy."""
    materials = work.materials
    predict = compile_function(lambda images_nhwc: [materials.model(images_nhwc, training=False)])
    batch_size, labels_n = work.config.sweep.capture_batch_size, materials.test.labels_n
    blocks = map_blocks(lambda block: predict(materials.preprocess(block)), materials.test.images_nhwc, batch_size)
    correct = sum(int((scores_nl.argmax(axis=1) == labels_n[rows]).sum()) for rows, (scores_nl,) in blocks)
    return {
        "model": str(materials.model_path),
        "kept_epoch": best_epoch(readers.read_epochs(work.run)).epoch,
        "n_images": len(materials.test),
        "correct": correct,
        "accuracy": correct / len(materials.test),
    }
