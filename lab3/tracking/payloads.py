"""What a tracker is told, in the forms that Weights & Biases takes."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lab3.engine import SweepPoint
from lab3.tracking.tracker import Asset, ChannelTable
from lab3.training import Epoch


def row_of_epoch(epoch: Epoch) -> dict[str, Any]:
    """What W&B's history holds of an epoch of training."""
    values = {f"train/{name}": value for name, value in asdict(epoch).items() if value is not None}
    return {"epoch": values.pop("train/epoch"), **values}


def row_of_point(point: SweepPoint) -> dict[str, Any]:
    """What W&B's history holds of a point, media aside; a loss that is an estimate has another name."""
    loss: dict[str, Any] = {"loss": point.loss}
    if point.is_inferred:
        loss = {
            "loss_estimate": point.loss,
            "loss_se": point.loss_se,
            "n_inferred": point.n_inferred,
            "n_audited": point.n_audited,
        }
    return {
        "K": point.k,
        "n_pruned": point.n_pruned,
        "correct": point.correct,
        "accuracy": point.accuracy,
        **loss,
        "top5_accuracy": point.top5_correct / point.total,
        "n_changed": point.n_changed,
    }


def make_table(table: ChannelTable) -> Any:
    """A `wandb.Table`, the least important channel first, with each one's mean feature map as an image."""
    import wandb

    columns: list[str | int] = ["channel", "importance", "rank", "pruned_at_k", *table.scores]
    columns += ["accuracy_at_k"] * bool(table.accuracy_at_k) + ["mean_feature_map"]
    rows = []
    for stats in table.channels:
        row = [*asdict(stats).values(), *(float(scores_c[stats.channel]) for scores_c in table.scores.values())]
        if table.accuracy_at_k:
            row.append(None if stats.pruned_at_k is None else table.accuracy_at_k[stats.pruned_at_k])
        rows.append([*row, wandb.Image(table.pictures[stats.channel])])
    return wandb.Table(columns, rows)


def make_chart(points: Sequence[SweepPoint]) -> Any:
    """Accuracy over K as one of W&B's own charts."""
    import wandb

    table = wandb.Table(["K", "accuracy"], [[point.k, point.accuracy] for point in points])
    title = "Accuracy over K" + ", inferred" * points[0].is_inferred
    return wandb.plot.line(table, "K", "accuracy", title=title)


def make_artifact(asset: Asset) -> Any:
    """The asset as a W&B artifact with its facts in a file, so that other facts are another version."""
    import wandb

    artifact = wandb.Artifact(asset.name, type=asset.type, metadata=dict(asset.facts))
    with artifact.new_file(f"{asset.type}.json") as file:
        json.dump(asset.facts, file, indent=2, sort_keys=True)
    for name, path in asset.files.items():
        artifact.add_file(str(path), name=name)
    if asset.reference is not None:
        # The hash is among the facts; W&B's own would read the file once more, and fail where it is not.
        artifact.add_reference(asset.reference, checksum=False)
    return artifact
