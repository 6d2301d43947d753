"""How long a grid takes on spot machines that are taken away: python benchmarks/spot.py

A simulation, not a measurement of a cloud: machines are taken away at random (exponential times), each is replaced after a
while, and what a cell did since its last durable row is done again, as are the seconds before its first row (loading,
capture). The seconds of a cell come from a real run's folder with `--run`, or from options.
"""

import argparse
import heapq
import random
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """Seconds of one cell: `before_s` in each attempt before its first row, `sweep_s` of rows, `block_s` between rows."""

    before_s: float
    sweep_s: float
    block_s: float


@dataclass(frozen=True)
class Spot:
    """How the grid went: hours until the last cell was done, machine hours in all, and those that were done in vain."""

    hours: float
    machine_hours: float
    wasted_hours: float
    n_preemptions: int


def simulate(
    n_cells: int, n_machines: int, cell: Cell, mean_life_s: float, replace_s: float, seed: int, *, resumes: bool = True
) -> Spot:
    """One grid on machines that live for exponential times of mean `mean_life_s` and are replaced after `replace_s`.

    Without `resumes` a cell that was broken off starts from its first row, as without a journal.
    """
    rng = random.Random(seed)
    queue = [0.0] * n_cells  # seconds of rows that each waiting cell has
    ends: list[float] = []
    machine_s = 0.0
    n_preemptions = 0
    free = [(0.0, rng.expovariate(1 / mean_life_s)) for _ in range(n_machines)]  # when it is free, when it dies
    heapq.heapify(free)
    n_done = 0
    while n_done < n_cells:
        start_s, dies_s = heapq.heappop(free)
        if not queue:
            # Another machine's cell may come back; this one waits for the next that ends.
            if not free:
                raise AssertionError("a cell was lost")
            heapq.heappush(free, (free[0][0] + 1e-6, max(dies_s, free[0][0] + 1e-3)))
            continue
        has_s = queue.pop()
        needs_s = cell.before_s + cell.sweep_s - has_s
        if start_s + needs_s <= dies_s:
            machine_s += needs_s
            ends.append(start_s + needs_s)
            n_done += 1
            heapq.heappush(free, (start_s + needs_s, dies_s))
            continue
        n_preemptions += 1
        worked_s = max(0.0, dies_s - start_s)
        rows_s = max(0.0, worked_s - cell.before_s)
        durable_s = rows_s // cell.block_s * cell.block_s if resumes else 0.0
        machine_s += worked_s
        queue.append(has_s + durable_s if resumes else 0.0)
        again_s = max(dies_s, start_s) + replace_s
        heapq.heappush(free, (again_s, again_s + rng.expovariate(1 / mean_life_s)))
    wasted_s = machine_s - n_cells * (cell.before_s + cell.sweep_s)
    return Spot(max(ends) / 3600, machine_s / 3600, wasted_s / 3600, n_preemptions)


def cell_of(run: Path) -> Cell:
    """The seconds of a finished sweep, from its manifest and journal."""
    from lab3.record.readers import read_points
    from lab3.record.rundir import RunDir

    folder = RunDir(run)
    elapsed = folder.read_manifest().elapsed_s or {}
    sweep_s = elapsed["sweep_s"]
    # A row is durable as it is written; a block of 32 is computed at a time.
    return Cell(sum(elapsed.values()) - sweep_s, sweep_s, sweep_s / max(1, len(read_points(folder)) / 32))


def main() -> None:
    """Print the simulated grid with a journal and without one, mean and range over seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="a finished sweep whose seconds a cell has")
    parser.add_argument("--before-s", type=float, default=60.0)
    parser.add_argument("--sweep-s", type=float, default=400.0)
    parser.add_argument("--block-s", type=float, default=25.0)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--machines", type=int, default=64)
    parser.add_argument("--life-min", type=float, default=20.0)
    parser.add_argument("--replace-s", type=float, default=180.0)
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    cell = cell_of(options.run) if options.run else Cell(options.before_s, options.sweep_s, options.block_s)
    print(
        f"cell: {cell.before_s:.0f} s before the first row, {cell.sweep_s:.0f} s of rows, {cell.block_s:.1f} s a block"
    )
    quiet = simulate(options.cells, options.machines, cell, 1e12, 0.0, 0)
    print(f"machines that stay: {quiet.hours:.2f} h, {quiet.machine_hours:.1f} machine hours")
    for resumes in (True, False):
        found = [
            simulate(
                options.cells, options.machines, cell, options.life_min * 60, options.replace_s, seed, resumes=resumes
            )
            for seed in range(options.seeds)
        ]
        hours = sorted(each.hours for each in found)
        wasted = sum(each.wasted_hours / each.machine_hours for each in found) / len(found)
        n_preemptions = sum(each.n_preemptions for each in found) / len(found)
        name = "goes on from the journal" if resumes else "starts again"
        print(
            f"{name}: {sum(hours) / len(hours):.2f} h ({hours[0]:.2f} to {hours[-1]:.2f}), {n_preemptions:.0f} preemptions, "
            f"{wasted:.1%} of machine time in vain"
        )


if __name__ == "__main__":
    main()
