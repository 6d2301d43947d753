"""Write a compact model for other programs, with the proof that they predict what Keras does."""

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import lab3
from lab3.app.pipeline.checks import check_files, check_same_settings
from lab3.app.pipeline.compact_folder import REMEDY, load_again
from lab3.app.pipeline.materials import Materials
from lab3.app.pipeline.runtimes import FILES, Format, check_packages, open_exported
from lab3.app.pipeline.session import Session
from lab3.base.backend import compile_function, map_blocks, to_numpy
from lab3.base.files import fsync_folder, sha256_file, write_atomically
from lab3.base.graph import flatten_model, run_steps
from lab3.errors import ConfigError, ModelError, RunStateError
from lab3.inputs.class_scores import read_class_scores
from lab3.inputs.model_files import load_model
from lab3.pruning.compact.proof import Proof, compare_scores
from lab3.record.compaction import read_compaction
from lab3.record.exported import Exported, record_name
from lab3.record.manifest import current_versions, now
from lab3.record.rundir import open_run
from lab3.views.report import write_report

_BATCH, _LEAST_TOLERANCE = 250, 1e-4


def export_run(path: Path, session: Session, format: Format) -> tuple[Path, Exported]:
    """Export the compact model of the run at `path` to its folder; returns the file and what its record says.

    Raises `ConfigError` where there is no compact model, or no package for the format, `RunStateError` if model or data
    are not those of the run, and `ModelError` if the exported model predicts otherwise: then nothing is written.
    """
    run = open_run(path)
    packages = check_packages(format)
    with run.lock():
        if not run.compact.exists():
            raise ConfigError(
                f"what is exported must be a compact model, {path} has none; `lab3 compact {path}` makes it"
            )
        config, manifest, compaction = run.read_config(), run.read_manifest(), read_compaction(run)
        check_same_settings(run, manifest, config)
        check_files(run, config, manifest, REMEDY)
        source = run.compact / "model.keras"
        if sha256_file(source) != compaction.files[source.name]:
            raise RunStateError(f"{source} must be the file that was proven, got another; `lab3 compact {path}` again")
        with session.progress.stoppable():
            materials = load_again(run, config, manifest, session)
        model = load_model(source, allow_classes=config.model.allow_classes)
        session.progress.say(f"exporting {source} as {format}")
        # Keras exports to ONNX only what was called before.
        model(np.zeros((1, *model.input_shape[1:]), np.float32), training=False)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=run.path) as temporary:
            written = Path(temporary) / FILES[format]
            with session.progress.stoppable(), warnings.catch_warnings(category=FutureWarning, action="ignore"):
                model.export(str(written), format=format, verbose=False)
            tolerance = max(_LEAST_TOLERANCE, compaction.proof.tolerance)
            proof = _prove(model, open_exported(format, written), materials, session, tolerance)
            preprocess = materials.preprocess
            exported = Exported(
                run_id=run.run_id,
                created_at=now(),
                lab3=lab3.__version__,
                versions=current_versions() | packages,
                format=format,
                file=written.name,
                sha256_of_file=sha256_file(written),
                n_bytes=written.stat().st_size,
                source=compaction.files[source.name],
                input_shape=tuple(model.input_shape),
                input_dtype=str(model.inputs[0].dtype),
                scale=preprocess.scale,
                mean=_plain(preprocess.mean),
                std=_plain(preprocess.std),
                **asdict(proof),
            )
            # A kill in between leaves a file without a record, never with another's.
            (run.compact / record_name(format)).unlink(missing_ok=True)
            written.rename(run.compact / written.name)
            write_atomically(run.compact / record_name(format), exported.encode())
            fsync_folder(run.compact)
        write_report(path)
        return run.compact / FILES[format], exported


def _plain(values: float | Sequence[float]) -> float | tuple[float, ...]:
    return tuple(values) if isinstance(values, Sequence) else values


def _prove(
    model: Any,
    run_exported: Callable[[np.ndarray], np.ndarray],
    materials: Materials,
    session: Session,
    tolerance: float,
) -> Proof:
    """Compare both models on all test images. Raises `ModelError` if a prediction or a score differs."""
    graph, test = flatten_model(model), materials.test
    scores = read_class_scores(graph)

    def run_keras(inputs: Any) -> list[Any]:
        inputs = graph.feed(inputs)
        values = run_steps(graph.steps, {graph.input_slot: inputs})
        return [inputs, scores.both_classes(values[graph.output_slot])]

    run = compile_function(run_keras)
    blocks = map_blocks(lambda block: run(materials.preprocess(block)), test.images_nhwc, _BATCH)
    pairs = (
        (rows, keras_nl, to_numpy(scores.both_classes(run_exported(inputs)))) for rows, (inputs, keras_nl) in blocks
    )
    with session.progress.bar("proof", len(test), "images") as advance:
        proof = compare_scores(pairs, test.labels_n, tolerance, lambda n_images: advance(n_images, ""))
    if not proof.holds:
        raise ModelError(
            f"the exported model must predict what Keras does, but {proof.n_wrong} of {len(test):,} images are "
            f"predicted otherwise, and scores differ by {proof.largest_difference:.2g} of the largest, where "
            f"{tolerance:g} is allowed; it is not written: try the other format, or report it"
        )
    return proof
