"""The folder of a compact model: what it is made from, its files, the proof that it is the masked model, both costs."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import lab3
from lab3.app.pipeline.checks import check_inputs
from lab3.app.pipeline.materials import Materials, load_materials
from lab3.app.pipeline.session import Session
from lab3.base.backend import to_numpy
from lab3.base.files import fsync_folder, sha256_file, write_atomically
from lab3.base.graph import flatten_model
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.errors import ModelError
from lab3.inputs.model_files import load_model, save_model
from lab3.pruning.compact import Proof, compare_speed, measure_cost
from lab3.record.compaction import PROOF_JSON, Compaction, Finetuned, Measures, PrunedLayer
from lab3.record.manifest import Manifest, current_versions, name_inputs, now
from lab3.record.rundir import RunDir
from lab3.vocabulary import Effect

REMEDY = "put the file back, or say where it is in config.yaml"
_BATCH_SIZES, TIMING_S = (1, 256), 5.0


@dataclass(frozen=True)
class Chosen:
    """What is out of a compact model and why, as `Compaction` has it."""

    effect: Effect
    layers: tuple[PrunedLayer, ...]
    k: int | None
    chosen_by: str
    rounding: str | None = None


def load_again(run: RunDir, config: Config, manifest: Manifest, session: Session, *, trains: bool = False) -> Materials:
    """What a finished run worked on; training images too where something `trains` on them.

    Raises `RunStateError` if model or data are not those of the run.
    """
    trained = run.path / f"model.{config.train.format}"
    path = str(trained) if trained.exists() else config.model.path
    materials = load_materials(config, path, session, trains=trains)
    check_inputs(manifest, name_inputs(*materials.sources()), REMEDY)
    if other := manifest.changed_versions(materials.device):
        session.progress.warn(f"not computed as then, so the last bits may differ: {'; '.join(other)}")
    return materials


def write_compact(
    run: RunDir,
    manifest: Manifest,
    materials: Materials,
    progress: Progress,
    compact: Any,
    chosen: Chosen,
    prove: Callable[[Any], Proof],
    train_on: Callable[[Any, Any], Finetuned] | None = None,
) -> Compaction:
    """Save, prove and measure `compact` in a hidden folder, which then takes the place of `compact/`.

    `prove` gets the model that the file holds; `train_on`, if any, that and a copy to train. Raises `ModelError` where
    a file does not hold what was written, and what `prove` and `train_on` raise: then nothing is left.
    """
    with tempfile.TemporaryDirectory(prefix=".compact-", dir=run.path) as temporary:
        folder = Path(temporary) / run.compact.name
        folder.mkdir()
        written = _save(compact, folder, manifest, "model")
        proof = prove(written)
        save_model(materials.model, Path(temporary) / "before.keras")
        files = (Path(temporary) / "before.keras", folder / "model.keras")
        widths = (sum(layer.n_channels for layer in chosen.layers), sum(layer.n_kept for layer in chosen.layers))
        before, after = _measure((materials.model, written), widths, files, materials, progress)
        finetuned = None
        if train_on is not None:
            copy = load_model(folder / "model.keras", allow_classes=manifest.config["model"]["allow_classes"])
            finetuned = train_on(written, copy)
            _save(copy, folder, manifest, "finetuned")
        compaction = Compaction(
            run_id=run.run_id,
            created_at=now(),
            lab3=lab3.__version__,
            versions=current_versions(),
            device=materials.device,
            model=str(manifest.model.sha256),
            data=manifest.data.test,
            **vars(chosen),
            proof=proof,
            before=before,
            after=after,
            finetuned=finetuned,
            files={path.name: sha256_file(path) for path in sorted(folder.iterdir())},
        )
        write_atomically(folder / PROOF_JSON, compaction.encode())
        if run.compact.exists():
            run.compact.rename(Path(temporary) / "earlier")
        folder.rename(run.compact)
        fsync_folder(run.path)
    return compaction


def _save(compact: Any, folder: Path, manifest: Manifest, name: str) -> Any:
    """Write both files; returns the model that the `.keras` file holds. Raises `ModelError` if one holds another."""
    weights = compact.get_weights()
    loaded = []
    for ending in ("keras", "h5"):
        path = folder / f"{name}.{ending}"
        save_model(compact, path)
        loaded.append(load_model(path, allow_classes=manifest.config["model"]["allow_classes"]))
        if not all(np.array_equal(*pair) for pair in zip(weights, loaded[-1].get_weights(), strict=True)):
            raise ModelError(f"{path.name} must hold the weights that were written, got others; please report it")
    return loaded[0]


def _measure(
    models: tuple[Any, Any],
    n_channels: tuple[int, int],
    files: tuple[Path, Path],
    materials: Materials,
    progress: Progress,
) -> list[Measures]:
    """The measures of both models, saved the same way, side by side on the same images."""
    images_nhwc = materials.test.images_nhwc
    speeds = []
    for size in _BATCH_SIZES:
        progress.say(f"timing batches of {size}")
        block = materials.preprocess(images_nhwc[np.arange(size) % len(images_nhwc)])
        inputs = flatten_model(models[0]).feed(block)
        speeds.append(compare_speed(models, to_numpy(inputs), budget_s=TIMING_S, on_round=progress.stop_if_asked))
    costs = [measure_cost(model, inputs.shape[1:]) for model in models]
    return [
        Measures(
            n_channels=n,
            parameters=cost.parameters,
            multiply_adds=cost.multiply_adds,
            peak_activation_bytes=cost.peak_activation_bytes,
            file_bytes=file.stat().st_size,
            speeds=tuple(speed),
        )
        for n, cost, file, speed in zip(n_channels, costs, files, zip(*speeds, strict=True), strict=True)
    ]
