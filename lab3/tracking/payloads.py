"""What each event is in Weights & Biases: a row of the history, a part of the summary or an artifact."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lab3.inputs.training import Epoch
from lab3.pruning.budget import FrontierPoint
from lab3.pruning.engine import SweepPoint
from lab3.tracking.events import Asset, ChannelTable, Compacted, Event, Finished, LostTable, MediaReady

# What a point's row holds beside K; nothing where the value is None. A loss that is an estimate has another name.
POINT_COLUMNS: dict[str, Callable[[SweepPoint], float | None]] = {
    "n_pruned": lambda point: point.n_pruned,
    "correct": lambda point: point.correct,
    "accuracy": lambda point: point.accuracy,
    "loss": lambda point: None if point.is_inferred else point.loss,
    "top5_accuracy": lambda point: point.top5_correct / point.total,
    "n_changed": lambda point: point.n_changed,
    "n_lost": lambda point: point.n_lost,
    "n_gained": lambda point: point.n_gained,
    "loss_estimate": lambda point: point.loss if point.is_inferred else None,
    "loss_se": lambda point: point.loss_se,
    "n_inferred": lambda point: point.n_inferred,
    "n_audited": lambda point: point.n_audited,
}


def row_of(event: Event) -> dict[str, Any] | None:
    """The event's row of the history; a path in it stands for the picture there. None if it has no row."""
    match event:
        case Epoch():
            values = {f"train/{name}": value for name, value in asdict(event).items() if value is not None}
            return {"epoch": values.pop("train/epoch"), **values}
        case SweepPoint():
            columns = {name: column(event) for name, column in POINT_COLUMNS.items()}
            return {"K": event.k, **{name: value for name, value in columns.items() if value is not None}}
        case FrontierPoint():
            values = {f"frontier/{name}": value for name, value in asdict(event).items()}
            return {"plan": values.pop("frontier/plan"), **values}
        case MediaReady():
            return dict(event.pictures)
    return None


def summary_of(event: Event) -> dict[str, Any]:
    """What the event adds to the summary; a `ChannelTable` or `LostTable` in it stands for a table with pictures."""
    match event:
        case ChannelTable():
            # In a row of the history its numbers of rows and columns would be metrics, with a chart each.
            return {"channels": event}
        case LostTable():
            return {"lost": event}
        case Finished():
            return _flatten(event.summary)
        case Compacted():
            return _flatten({"compact": event.summary})
    return {}


def convert(values: Mapping[str, Any]) -> dict[str, Any]:
    """A row or a part of the summary with its pictures and tables as objects of W&B's client."""
    import wandb

    converted = dict(values)
    for name, value in values.items():
        if isinstance(value, Path):
            converted[name] = wandb.Image(str(value))
        elif isinstance(value, ChannelTable):
            converted[name] = _channel_table(value)
        elif isinstance(value, LostTable):
            converted[name] = _lost_table(value)
    return converted


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


def _flatten(summary: Mapping[str, Any]) -> dict[str, Any]:
    """`{"best": {"k": 3}}` as `{"best/K": 3}`, the names that W&B shows."""
    flat: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}/{'K' if key == 'k' else key}": inner for key, inner in value.items()})
        else:
            flat[name] = value
    return flat


def _channel_table(table: ChannelTable) -> Any:
    """A `wandb.Table`, the least important channel first, with each one's mean feature map as an image."""
    import wandb

    columns: list[str | int] = ["channel", "importance", "rank", "pruned_at_k", *table.scores]
    columns += ["accuracy_at_k"] * bool(table.accuracy_at_k) + ["mean_feature_map"]
    rows = []
    for stats in table.channels:
        row = [*asdict(stats).values(), *(float(scores_c[stats.channel]) for scores_c in table.scores.values())]
        if table.accuracy_at_k:
            # A sweep that stops on its way lacks the last.
            row.append(None if stats.pruned_at_k is None else table.accuracy_at_k.get(stats.pruned_at_k))
        rows.append([*row, wandb.Image(table.pictures[stats.channel])])
    return wandb.Table(columns, rows)


def _lost_table(table: LostTable) -> Any:
    """A `wandb.Table` of the images that are lost first."""
    import wandb

    flips = zip(table.lost.flips, table.lost.labels, table.lost.pictures, strict=True)
    rows = [[flip.image, table.class_names[label], flip.k, wandb.Image(picture)] for flip, label, picture in flips]
    return wandb.Table(["image", "class", "lost_at_k", "picture"], rows)
