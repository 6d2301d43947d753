"""The figures of a finished run again, from its folder alone, as other kinds of files."""

from pathlib import Path
from typing import Literal

from lab3.app.pipeline.answers import certify_run, read_evidence
from lab3.errors import ConfigError, UnfinishedError
from lab3.record import readers
from lab3.record.manifest import Manifest
from lab3.record.rundir import RunDir, open_run
from lab3.views.drawings import Place, draw_feature_maps, draw_results
from lab3.views.figures import about, plot_frontier, plot_learning_curves, save_figure

Kind = Literal["png", "svg", "pdf"]


def redraw(path: Path, out: Path, kind: Kind) -> list[Path]:
    """Draw the figures of the run at `path` into the folder `out`, which is made; returns the files, by name.

    Left out is what needs the network itself: maps of pruned channels. Raises `UnfinishedError` for an unfinished run,
    `ConfigError` where `out` is the run's own folder.
    """
    run = open_run(path)
    if not run.is_finished:
        raise UnfinishedError(f"only a finished run has figures, {path} is not; go on with `lab3 resume {path}`")
    if out.resolve().is_relative_to(path.resolve()):
        raise ConfigError(f"--out must not lie in the run, whose files are hashed, got {out}; give another folder")
    out.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []

    def figure(name: str) -> Path:
        written.append(out / f"{name}.{kind}")
        return written[-1]

    manifest, summary = run.read_manifest(), readers.read_summary(run)
    title = summary["run_id"]
    if epochs := readers.read_epochs(run):
        save_figure(plot_learning_curves(epochs, f"{title}: training"), figure("learning_curves"))
    if manifest.kind == "sweep":
        _redraw_sweep(run, manifest, figure)
    if manifest.kind == "compress":
        settings = run.read_config().compress
        facts = f"{summary['n_choosing']:,} images choose, {summary['n_certifying']:,} certify"
        frontier, name = readers.read_frontier(run), f"{title}: compression"
        drawn = plot_frontier(frontier, summary["n_pruned"], settings.budget, settings.cost, name, facts)
        save_figure(drawn, figure("frontier"))
    return sorted(written)


def _redraw_sweep(run: RunDir, manifest: Manifest, figure: Place) -> None:
    config, test = run.read_config(), manifest.data.test
    prune, source = config.prune, Path(test.source).name
    facts = about(criterion=prune.criterion, effect=prune.effect, n_images=test.n_images, source=source)
    evidence = read_evidence(run, readers.read_points(run))
    mean_map_hwc, _ = readers.read_capture(run)
    # Nothing is pruned in them, so what a pruned channel gives is not asked.
    draw_feature_maps(figure, evidence.layer_name, mean_map_hwc, mean_map_hwc, (), facts)
    draw_results(figure, evidence, certify_run(config, evidence), readers.read_lost(run), facts)
