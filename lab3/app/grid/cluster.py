"""Cells given to Ray: who runs what is Ray's to decide, what is done is in the folder."""

import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from lab3.app.grid.plan import Cell, Plan
from lab3.app.grid.work import Outcome, Task, read_datasets, tally_block, work_cell
from lab3.app.pipeline.session import Session, with_settings
from lab3.base.progress import Progress
from lab3.config import Config
from lab3.errors import ConfigError, StoppedError, counted
from lab3.pruning.engine import Tally, TallyBlocks
from lab3.pruning.rank import PruneStep

_STOP_WITHIN_S = 8.0
_CONNECT_WITHIN_S = 5.0


@dataclass(frozen=True)
class RayBlocks:
    """Blocks of a sweep as tasks of their own, `shards` at once. The features lie in Ray's store once a node."""

    shards: int
    cpus: float
    gpus: float
    tries: int

    def __call__(
        self,
        config: Config,
        model_path: str,
        features: Sequence[np.ndarray],
        labels_n: np.ndarray,
        steps: Sequence[PruneStep],
    ) -> TallyBlocks:
        """What `sweep_points` takes its blocks from."""
        ray = _import_ray()
        options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": self.tries}
        compute = ray.remote(_tally_parts).options(**options)
        stored = [ray.put(array) for array in features]
        common = (config, model_path, ray.put(labels_n), ray.put(tuple(steps)))
        threads = max(1, ceil(self.cpus))

        def tally_blocks(blocks: Sequence[range]) -> Iterator[Tally]:
            waiting: list[Any] = []
            for number, block in enumerate(blocks):
                waiting.append(compute.remote(*common, block, threads, *stored))
                # In order, as the journal needs them; later ones go on meanwhile.
                if number + 1 >= self.shards:
                    yield ray.get(waiting.pop(0))
            yield from map(ray.get, waiting)

        return tally_blocks


def _tally_parts(
    config: Config,
    model_path: str,
    labels_n: np.ndarray,
    steps: Sequence[PruneStep],
    block: range,
    threads: int,
    *features: np.ndarray,
) -> Tally:
    # Ray hands over what lies in its store only where it is an argument of its own.
    return tally_block(config, model_path, features, labels_n, steps, block, threads)


def run_plan(plan: Plan, session: Session, address: str) -> dict[str, Outcome]:
    """Every cell that is not finished, on the cluster at `address`; returns how each ended, by label.

    A cell that fails takes no other with it, but for those whose network it trains. Raises `StoppedError` if somebody
    wants the work to stop, once the workers have.
    """
    ray = _import_ray()
    outcomes = {label: Outcome(label, "finished") for label in plan.cells if plan.run_of(label).is_finished}
    due = [cell for label, cell in plan.cells.items() if label not in outcomes]
    session.progress.say(f"grid {plan.path}: {counted(len(plan.cells), 'cell')}, {len(outcomes):,} finished")
    if not due:
        return outcomes
    _connect(ray, address)
    try:
        queue = _Queue(ray, plan, session)
        with session.progress.bar("grid", len(plan.cells), "cells") as advance:
            advance(len(outcomes), "")
            queue.add(due, outcomes)
            for outcome in queue.work(session.progress):
                outcomes[outcome.label] = outcome
                queue.add(due, outcomes)
                advance(1, f"{outcome.label} {outcome.state}")
        return outcomes
    finally:
        ray.shutdown()


def check_address(address: str) -> None:
    """Raise `ConfigError` if nobody listens at `address`, HOST:PORT: Ray waits for minutes, and takes no signal."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from error


class _Queue:
    """The tasks that Ray has, and how often each cell was given to it."""

    def __init__(self, ray: Any, plan: Plan, session: Session) -> None:
        self._ray, self._plan, self._session = ray, plan, session
        grid = plan.grid
        self._threads = max(1, ceil(grid.cpus))
        options = {"num_cpus": grid.cpus, "num_gpus": grid.gpus, "max_retries": grid.tries}
        self._work = ray.remote(work_cell).options(**options)
        self._datasets: dict[tuple[Any, ...], Any] = {}
        self._share_out = ray.put(RayBlocks(grid.shards, grid.cpus, grid.gpus, grid.tries)) if grid.shards > 1 else None
        self._tasks: dict[Any, Cell] = {}
        self._n_tries: dict[str, int] = {}

    def add(self, due: list[Cell], outcomes: dict[str, Outcome]) -> None:
        """Give Ray each of the cells that are due whose network is there; it is due no more."""
        for cell in list(due):
            trained = outcomes.get(cell.trained) if cell.trained else None
            if cell.trained and trained is None:
                continue
            due.remove(cell)
            if trained is not None and trained.state != "finished":
                message = f"the network of {cell.trained} was not trained: {trained.message}"
                outcomes[cell.label] = replace(trained, label=cell.label, message=message)
                continue
            if cell.trained:
                path = self._plan.run_of(cell.trained).path / f"model.{cell.config.train.format}"
                cell = replace(cell, config=with_settings(cell.config, model={"path": str(path.absolute())}))
            self._give(cell)

    def _give(self, cell: Cell) -> None:
        plan, session = self._plan, self._session
        self._n_tries[cell.label] = self._n_tries.get(cell.label, 0) + 1
        task = Task(
            label=cell.label,
            config=cell.config,
            kind=cell.kind,
            out=plan.path.absolute(),
            run_id=plan.run_of(cell.label).run_id,
            log=plan.log_of(cell.label).absolute(),
            device=session.device,
            mode=session.mode,
            threads=self._threads,
        )
        ref = self._work.remote(task, self._images_of(cell.config), self._share_out)
        self._tasks[ref] = cell

    def _images_of(self, config: Config) -> Any:
        """The images in Ray's store, put there once for all cells that have the same."""
        data = config.data
        key = (data.test, data.color, data.test_sha256)
        if key not in self._datasets:
            self._datasets[key] = self._ray.put(read_datasets(config))
        return self._datasets[key]

    def work(self, progress: Progress) -> Iterator[Outcome]:
        """How each cell ended, as soon as it has; tries it again where that may help."""
        ray = self._ray
        while self._tasks:
            done, _ = ray.wait(list(self._tasks), num_returns=1, timeout=0.5)
            if progress.is_asked_to_stop():
                self._stop(progress)
            for ref in done:
                cell = self._tasks.pop(ref)
                outcome = self._outcome_of(ref, cell.label)
                if outcome.state == "again" and self._n_tries[cell.label] < self._plan.grid.tries:
                    self._give(cell)
                else:
                    yield replace(outcome, state="failed") if outcome.state == "again" else outcome

    def _outcome_of(self, ref: Any, label: str) -> Outcome:
        try:
            outcome: Outcome = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            # A worker or a machine that went away more often than Ray starts a task again.
            reason = " ".join(str(error).split())[:300]
            return Outcome(label, "again", f"its worker ended: {reason}", 75)
        return outcome

    def _stop(self, progress: Progress) -> None:
        for ref in self._tasks:
            self._ray.cancel(ref, force=False)
        self._ray.wait(list(self._tasks), num_returns=len(self._tasks), timeout=_STOP_WITHIN_S)
        try:
            progress.stop_if_asked()
        except StoppedError as stopped:
            raise StoppedError(f"{stopped}; grid {self._plan.path} keeps what is done", stopped.exit_code) from None


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one on this machine that ends with this process."""
    try:
        if address == "local":
            # A token that lies about from other work would have the workers kept out.
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
        else:
            ray.init(address=address, log_to_driver=False, logging_level="error")
    except (ConnectionError, TimeoutError, ValueError, RuntimeError) as error:
        raise _no_cluster(address, str(error)) from error


def _no_cluster(address: str, reason: str) -> ConfigError:
    return ConfigError(
        f"--address must be local, auto or the address of a Ray cluster that answers, got {address}: "
        f"{' '.join(reason.split())[:200]}"
    )


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"grids need the package ray, which cannot be imported ({error}); install it with: pip install 'lab3[grid]'"
        ) from error
    return ray
