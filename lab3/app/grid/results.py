"""What came out of a grid: every cell in one table, seeds together, the best with its uncertainty, and a page."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from lab3.analysis.certificate import Certificate
from lab3.analysis.comparison import sign_test
from lab3.analysis.flips import rightness
from lab3.app.grid.plan import Plan
from lab3.app.pipeline.answers import certify_runs
from lab3.base.csv_text import encode_csv
from lab3.base.files import write_atomically
from lab3.errors import ConfigError
from lab3.record import tables
from lab3.record.readers import read_points, read_summary
from lab3.record.rundir import RunDir
from lab3.views.drawings import draw_comparison
from lab3.views.report import write_report

_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Row:
    """Cells that differ in their seed alone: mean and standard deviation of what can be certified and of accuracy.

    Deviations are those of a sample, None for one seed. Accuracies are at the K whose share of pruned channels is
    nearest.
    """

    layer: str
    criterion: str
    effect: str
    n_seeds: int
    n_channels: int
    certified_share: float
    certified_share_sd: float | None
    accuracy_0: float
    accuracy_10: float
    accuracy_25: float
    accuracy_50: float
    accuracy_75: float
    accuracy_90: float
    accuracy_50_sd: float | None


@dataclass(frozen=True)
class Winner:
    """The cell whose certified share is largest, and `p` of each other cell of the same images against it, by Holm.

    `p` is two-sided, of the images that one of the two alone gets right where the same share of channels is pruned, as
    near as there is a K; it is of all comparisons together. Cells of other images, or that infer, have none.
    """

    label: str
    certificate: Certificate
    p: Mapping[str, float]

    @property
    def sentence(self) -> str:
        """What may be said of it."""
        beaten = [label for label, p in self.p.items() if p < 1 - self.certificate.confidence]
        return (
            f"Best of {len(self.p) + 1}: {self.label}. {self.certificate.sentence} "
            f"At that share it differs from {len(beaten)} of {len(self.p)} others by more than chance."
        )


def write_results(plan: Plan) -> tuple[list[Row], Winner]:
    """Tables, figure and page of the cells that are finished, at least one."""
    runs = {label: plan.run_of(label) for label in plan.sweeps if plan.run_of(label).is_finished}
    certificates = certify_runs(runs)
    rows = summarise_seeds(runs, certificates)
    write_atomically(plan.path / "certificates.csv", tables.certificates_csv(certificates))
    write_atomically(plan.path / "comparison.csv", tables.comparison_csv(runs))
    names = [field.name for field in fields(Row)]
    write_atomically(plan.path / "grid.csv", encode_csv(names, [tuple(asdict(row).values()) for row in rows]))
    draw_comparison(plan.path, runs)
    write_report(plan.path)
    return rows, find_winner(runs, certificates)


def write_parquet(plan: Plan, path: Path) -> None:
    """Every point of every finished cell as a Parquet file, for pandas, DuckDB or Spark.

    Raises `ConfigError` without the package pyarrow.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(
            f"Parquet files need the package pyarrow, which cannot be imported ({error}); install it with: "
            "pip install 'lab3[grid]'"
        ) from error
    columns: dict[str, list[object]] = {}
    for label in plan.sweeps:
        run = plan.run_of(label)
        if run.is_finished:
            config, summary = run.read_config(), read_summary(run)
            facts = {"cell": label, "layer": summary["layer"], "criterion": summary["criterion"]}
            facts |= {"effect": summary["effect"], "seed": config.seed, "n_channels": summary["n_channels"]}
            for point in read_points(run):
                values = facts | {name: getattr(point, name) for name in ("k", "n_pruned", "correct", "total", "loss")}
                for name, value in values.items():
                    columns.setdefault(name, []).append(value)
    parquet.write_table(pyarrow.table(columns), path)


def summarise_seeds(runs: Mapping[str, RunDir], certificates: Mapping[str, Certificate]) -> list[Row]:
    """A row for each layer, criterion and effect, the largest certified share first."""
    cells = []
    for label, run in runs.items():
        summary, points = read_summary(run), read_points(run)
        shares = np.array([point.n_pruned / summary["n_channels"] for point in points])
        nearest = [points[int(np.abs(shares - share).argmin())].accuracy for share in _SHARES]
        key = (summary["layer"], summary["criterion"], summary["effect"], summary["n_channels"])
        cells.append((key, certificates[label].share, nearest))
    rows = []
    for key, group in groupby(sorted(cells, key=lambda cell: cell[0]), key=lambda cell: cell[0]):
        _, certified, accuracies = zip(*group, strict=True)
        means = np.mean(accuracies, axis=0)
        layer, criterion, effect, n_channels = key
        names = [f"accuracy_{round(100 * share)}" for share in _SHARES]
        values = dict(zip(names, (_rounded(mean) for mean in means), strict=True))
        row = Row(
            layer=layer,
            criterion=criterion,
            effect=effect,
            n_seeds=len(certified),
            n_channels=n_channels,
            certified_share=_rounded(np.mean(certified)),
            certified_share_sd=_deviation(certified),
            accuracy_50_sd=_deviation([each[_SHARES.index(0.5)] for each in accuracies]),
            **values,
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.certified_share, row.layer, row.criterion, row.effect))


def find_winner(runs: Mapping[str, RunDir], certificates: Mapping[str, Certificate]) -> Winner:
    """The cell with the largest certified share; among those the one most accurate there."""
    points = {label: read_points(run) for label, run in runs.items()}

    def at_share(label: str, share: float) -> int:
        """Which of its points is nearest to a share of pruned channels."""
        n_channels = read_summary(runs[label])["n_channels"]
        return int(np.argmin([abs(point.n_pruned / n_channels - share) for point in points[label]]))

    def rank(label: str) -> tuple[float, float]:
        share = certificates[label].share
        return share, points[label][at_share(label, share)].accuracy

    best = max(certificates, key=rank)
    share, images = certificates[best].share, runs[best].read_manifest().data.test.sha256
    right_n = {
        label: list(rightness(points[label]))[at_share(label, share)]
        for label, run in runs.items()
        if run.read_manifest().data.test.sha256 == images and not points[label][0].is_inferred
    }
    others = [label for label in right_n if label != best] if best in right_n else []
    p = {label: sign_test(right_n[best], right_n[label]) for label in others}
    return Winner(best, certificates[best], holm(p))


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """p of several tests, each so that all of them hold at once.

    Source: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6:65-70,
    1979.

    >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
    {'a': 0.03, 'c': 0.06, 'b': 0.06}
    """
    adjusted, largest = {}, 0.0
    for number, (label, value) in enumerate(sorted(p.items(), key=lambda each: each[1])):
        largest = max(largest, min(1.0, (len(p) - number) * value))
        adjusted[label] = round(largest, 12)
    return adjusted


def _deviation(values: Sequence[float]) -> float | None:
    return _rounded(np.std(values, ddof=1)) if len(values) > 1 else None


def _rounded(value: float | np.floating[Any]) -> float:
    return round(float(value), 6)
