"""What W&B's server should show of a run, and how that differs from what it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab3.engine import SweepPoint
from lab3.tracking import Asset, ChannelTable, Tracker
from lab3.tracking.payloads import row_of_epoch, row_of_point
from lab3.tracking.remote import RemoteRun
from lab3.training import Epoch


@dataclass
class Expected(Tracker):
    """A tracker that keeps what the server should show."""

    run_id: str
    rows: list[tuple[dict[str, Any], frozenset[str]]] = field(default_factory=list)  # with the names of pictures
    artifacts: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    has_table: bool = False
    summary: Mapping[str, Any] = field(default_factory=dict)
    is_finished: bool = True
    _waiting: set[str] = field(default_factory=set)

    def log_epoch(self, epoch: Epoch) -> None:
        """Expect a row."""
        self.rows.append((row_of_epoch(epoch), frozenset()))

    def log_asset(self, asset: Asset) -> None:
        """Expect an artifact."""
        if asset.artifact:
            self.used.add(asset.artifact)
        else:
            self.artifacts.add(asset.name)

    def log_channels(self, table: ChannelTable) -> None:
        """Expect a table in the summary."""
        self.has_table = True
        # The name that W&B gives a table's artifact.
        self.artifacts.add(f"run-{self.run_id}-channels")

    def log_figures(self, figures: Mapping[str, Path]) -> None:
        """Expect pictures with the next media."""
        self._waiting.update(figures)

    def log_media(self) -> None:
        """Expect a row of what waits, if anything."""
        if self._waiting:
            self.rows.append(({}, frozenset(self._waiting)))
            self._waiting.clear()

    def log_point(self, point: SweepPoint) -> None:
        """Expect a row."""
        self.rows.append((row_of_point(point), frozenset()))

    def finish(self, summary: Mapping[str, Any], exit_code: int, *, is_preempted: bool = False) -> str | None:
        """Expect a summary and a state, and what still waits."""
        if exit_code == 0:
            self.log_media()
        self.summary, self.is_finished = summary, exit_code == 0
        return None

    def n_rows_in(self, remote: RemoteRun | None) -> int:
        """How many rows, from the first on, the server has with all that belongs to them, pictures' files aside."""
        if remote is None:
            return 0
        for number, (found, (row, media)) in enumerate(zip(remote.rows, self.rows, strict=False)):
            if any(found.get(name) != value for name, value in row.items()) or not media <= set(found):
                return number
        return min(len(remote.rows), len(self.rows))

    def damage(self, remote: RemoteRun | None) -> list[str]:
        """What of the server's rows no further row can mend, in words; nothing if they are the first of these rows."""
        if remote is None:
            return []
        n_there = self.n_rows_in(remote)
        rows = zip(remote.rows[:n_there], self.rows, strict=False)
        missing = sorted({found[name]["path"] for found, (_, media) in rows for name in media} - remote.files)
        found = [f"of its {remote.n_lines} rows only the first {n_there} are right"] * (remote.n_lines > n_there)
        return found + [f"the files of {len(missing)} pictures are missing, as {path}" for path in missing[:1]]

    def missing_inputs(self, remote: RemoteRun | None) -> list[str]:
        """Artifacts the run was made from that the server does not link with it."""
        there = remote.used if remote else frozenset()
        return sorted(self.used - there)

    def differences(self, remote: RemoteRun | None) -> list[str]:
        """What the server does not show as the folder has it, in words; nothing if all is there."""
        found = self.damage(remote) + self.run_differences(remote)
        if inputs := self.missing_inputs(remote):
            found.append(f"it is not linked with {', '.join(inputs)}")
        return found

    def run_differences(self, remote: RemoteRun | None) -> list[str]:
        """As `differences`, what sending the rows that are not there, if any, and the run's end cannot add aside."""
        if remote is None:
            return ["the server has no such run"]
        found = []
        n_there = self.n_rows_in(remote)
        if n_there < len(self.rows):
            found.append(f"{n_there} of {len(self.rows)} rows are there")
        missing = sorted(self.artifacts - remote.artifacts)
        if missing:
            found.append(f"artifacts are missing: {', '.join(missing)}")
        wrong = sorted(name for name, value in self.summary.items() if remote.summary.get(name) != value)
        wrong += ["channels"] * (self.has_table and not self._has_table(remote))
        if wrong:
            found.append(f"the summary differs in {', '.join(wrong)}")
        if (remote.state == "finished") != self.is_finished:
            found.append(f"its state is {remote.state}, but the run is {'' if self.is_finished else 'not '}finished")
        return found

    @staticmethod
    def _has_table(remote: RemoteRun) -> bool:
        table = remote.summary.get("channels")
        return isinstance(table, Mapping) and table.get("path") in remote.files
