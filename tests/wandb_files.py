"""What W&B's own tool says of an offline run."""

import json
import subprocess
from pathlib import Path
from typing import Any

import wandb


def read_back(folder: Path) -> list[dict[str, Any]]:
    """Every record of the one offline run in `folder / "wandb"`."""
    # W&B's service may still write what it was given.
    wandb.teardown()
    (run,) = (folder / "wandb").glob("offline-run-*")
    (file,) = run.glob("run-*.wandb")
    # What `wandb leet inspect --json` calls, without the seconds in which Python imports W&B's client to call it.
    core = Path(wandb.__file__).with_name("bin") / "wandb-core"
    command: list[str | Path] = [
        core,
        "leet",
        "inspect",
        "--no-observability",
        "--json",
        "--run-file",
        file,
        run.parent,
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in lines.splitlines()]


def history_of(folder: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in read_back(folder) if record["type"] == "history"]
