"""How much longer a sweep takes with W&B live or offline than with tracking disabled, runs side by side.

    python benchmarks/tracking.py my.h5 DATA [--set data.scale=16.0] [--repeats 9] [--modes online]

runs `lab3 sweep` in turn with each mode, online against a stand-in server on loopback, and prints the seconds of the
sweep as the runs' manifests have them. The machine should be idle.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the stand-in is not installed

from tests.wandb_server import WandbServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--modes", nargs="+", default=["offline", "online"], choices=["offline", "online"])
    args = parser.parse_args()
    data = str(Path(args.data).absolute()) if Path(args.data).exists() else args.data
    command = [sys.executable, "-m", "lab3", "sweep", str(args.model.absolute()), "--data", data]
    command += [part for setting in args.settings for part in ("--set", setting)]
    modes = ["disabled", *args.modes]
    seconds: dict[str, list[float]] = {mode: [] for mode in modes}
    with tempfile.TemporaryDirectory() as folder, WandbServer() as server:
        # With the client's own waits, as a user has them.
        told = {name: server.environment[name] for name in ("WANDB_BASE_URL", "WANDB_API_KEY")}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")} | told
        for repeat in range(args.repeats):
            for mode in modes:
                run_id = f"{mode}-{repeat}"
                chosen = [*command, "--mode", mode, "--run-id", run_id]
                subprocess.run(chosen, cwd=folder, env=environment, check=True, capture_output=True)
                manifest = json.loads((Path(folder) / "runs" / run_id / "manifest.json").read_text())
                seconds[mode].append(manifest["elapsed_s"]["sweep_s"])
    for mode in modes:
        ratios = [one / other for one, other in zip(seconds[mode], seconds["disabled"], strict=True)]
        median, least = statistics.median(seconds[mode]), min(seconds[mode])
        print(
            f"{mode:8}  median {median:8.3f} s ({median / statistics.median(seconds['disabled']):.3f})  "
            f"least {least:8.3f} s ({least / min(seconds['disabled']):.3f})  "
            f"median ratio to the run beside it {statistics.median(ratios):.3f}  all {seconds[mode]}"
        )


if __name__ == "__main__":
    main()
