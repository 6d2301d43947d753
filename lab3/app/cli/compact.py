"""Commands that write smaller models of a finished run: compact and export."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from lab3.app.cli.options import a_path, computing_options
from lab3.errors import counted, printable


def _parse_k(_context: click.Context, _option: click.Parameter, text: str | None) -> int | str | None:
    if text in (None, "certified", "observed"):
        return text
    if not text.isdigit():
        raise click.BadParameter(f"must be a number of channels, certified or observed, got {text!r}")
    return int(text)


@click.command("compact")
@click.argument("run", type=a_path)
@click.option(
    "--k",
    metavar="K|certified|observed",
    callback=_parse_k,
    help="Which point of the sweep; by default the certified K. `observed` is no promise for other images.",
)
@click.option(
    "--round-to",
    type=click.IntRange(min=2),
    metavar="N",
    help="Keep some of the pruned channels, the most important ones, so that the layer's width is a multiple of N.",
)
@click.option(
    "--finetune",
    type=click.IntRange(min=1),
    metavar="EPOCHS",
    help="Train the smaller model on, at a tenth of the learning rate: compact/finetuned.keras and .h5.",
)
@click.option(
    "--target-accuracy",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="SHARE",
    help="With --finetune: take the largest K that reaches this accuracy on validation images.",
)
@click.option("--train-data", metavar="DATA", help="Training images for --finetune, where the run has none.")
@computing_options
@click.option("--json", "as_json", is_flag=True, help="Print what proof.json holds.")
def compact_command(
    run: Path,
    k: int | str | None,
    round_to: int | None,
    finetune: int | None,
    target_accuracy: float | None,
    train_data: str | None,
    device: Any,
    as_json: bool,
) -> None:
    """Write the smaller model of a finished sweep, without the channels pruned at K: RUN/compact/model.keras and .h5.

    It is a plain Keras model that gives exactly what the model with masked channels gives. Both are compared on all
    test images first: a model with another prediction, or a logit that differs by more than rounding, is not written,
    and the command ends with 65, as it does where a layer does not allow it. Both are measured side by side;
    proof.json has all figures. The last line printed is the folder.

    \b
    Examples:
      lab3 compact runs/vgg16_cifar10-20260101-120000-ab12
      lab3 compact runs/digits-1 --k 8 --round-to 8
      lab3 compact runs/digits-1 --finetune 5 --target-accuracy 0.98
    """
    if finetune is None and (target_accuracy is not None or train_data is not None):
        raise click.UsageError("--target-accuracy and --train-data need --finetune EPOCHS.")
    if target_accuracy is not None and k is not None:
        raise click.UsageError("--target-accuracy chooses K; leave --k out.")
    from lab3.app.cli.terminal import TerminalProgress
    from lab3.app.pipeline import Session, Tuning, compact_run

    tuning = Tuning(finetune, target_accuracy, train_data) if finetune else None
    with TerminalProgress() as progress:
        folder, compaction = compact_run(run, Session(progress, device), k=k, round_to=round_to, tuning=tuning)
    if as_json:
        click.echo(json.dumps(asdict(compaction), indent=2))
    else:
        _show(compaction)
        click.echo(str(folder))


def _show(compaction: Any) -> None:
    """A table of what the compact model saves, and the proof."""
    from lab3.app.cli.printed import show_measures

    before, after = compaction.before, compaction.after
    layers = printable(", ".join(layer.name for layer in compaction.layers))
    show_measures(before, after, f"channels of {layers}", compaction.device)
    proof, n_constant = compaction.proof, sum(len(layer.constant_channels) for layer in compaction.layers)
    click.echo("multiply-adds are counted once, in convolutions and dense layers; times are medians, taken in turns")
    if n_constant:
        click.echo(f"{counted(n_constant, 'channel')} of the smaller layer have no weights and hold constants")
    if compaction.rounding:
        click.echo(compaction.rounding)
    if before.parameters <= after.parameters or before.multiply_adds <= after.multiply_adds:
        click.echo("this layer does not pay: what widens its output again costs more than its channels save")
    tied = f" ({proof.n_tied:,} others are tied)" * bool(proof.n_tied)
    click.echo(
        f"proof: K={compaction.k} ({compaction.chosen_by}), {proof.n_equal:,} of {proof.n_images:,} predictions "
        f"equal{tied}, largest logit difference {proof.largest_difference:.1e} of the largest logit; "
        f"{proof.correct:,} images right"
    )
    if compaction.finetuned is not None:
        _show_finetuned(compaction.finetuned, compaction.chosen_by == "target_accuracy")


def _show_finetuned(found: Any, is_by_target: bool) -> None:
    """What fine-tuning won back, and what can be said of it."""
    from lab3.analysis.certificate import in_points

    click.echo(
        f"fine-tuned: accuracy {found.accuracy_unpruned:.4f} unpruned, {found.accuracy_pruned:.4f} pruned, "
        f"{found.accuracy:.4f} after epoch {found.kept_epoch} of {len(found.epochs)}"
    )
    holds = "" if is_by_target else ", if K was not chosen on the test images"
    sure = f"{100 * found.confidence:g} % confidence{holds}"
    if found.reason:
        click.echo(f"how far accuracy falls is not certified: {found.reason}")
    elif found.is_certified:
        click.echo(f"fine-tuned, accuracy falls by at most {in_points(found.tolerance)} ({sure})")
    else:
        click.echo(
            f"fine-tuned, accuracy falls by at most {in_points(found.least_tolerance)} ({sure}); "
            f"{in_points(found.tolerance)} are not certified: {found.n_lost:,} images lost, {found.n_gained:,} gained"
        )


@click.command("export")
@click.argument("run", type=a_path)
@click.option("--format", type=click.Choice(["onnx", "litert"]), required=True, help="ONNX, or LiteRT (.tflite).")
@computing_options
@click.option("--json", "as_json", is_flag=True, help="Print what the record of the export holds.")
def export_command(run: Path, format: Any, device: Any, as_json: bool) -> None:
    """Write the compact model of a run for other programs: RUN/compact/model.onnx or model.tflite.

    The file is run on all test images, by ONNX Runtime or LiteRT on the CPU. A model with another prediction than
    Keras's is not written, and the command ends with 65. Needs pip install 'lab3[onnx]' or 'lab3[litert]'.

    \b
    Example:
      lab3 export runs/vgg16_cifar10-20260101-120000-ab12 --format onnx
    """
    from lab3.app.cli.terminal import TerminalProgress
    from lab3.app.pipeline import Session, export_run

    with TerminalProgress() as progress:
        path, exported = export_run(run, Session(progress, device), format)
    if as_json:
        click.echo(json.dumps(asdict(exported), indent=2))
        return
    shape = "x".join("N" if size is None else str(size) for size in exported.input_shape)
    shifted = f", less {exported.mean}, divided by {exported.std}" * ((exported.mean, exported.std) != (0, 1))
    click.echo(
        f"{exported.n_bytes:,} bytes; takes {exported.input_dtype} images {shape}, pixels divided by "
        f"{exported.scale:g}{shifted}"
    )
    tied = f" ({exported.n_tied:,} others are tied)" * bool(exported.n_tied)
    click.echo(
        f"proof: {exported.n_equal:,} of {exported.n_images:,} predictions equal{tied}, largest difference "
        f"{exported.largest_difference:.1e} of the largest score; {exported.correct:,} images right"
    )
    click.echo(str(path))
