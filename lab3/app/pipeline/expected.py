"""What W&B's server should show of a run, and how that differs from what it shows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

from lab3.tracking.events import Asset, ChannelTable, Event, LostTable, Tracker
from lab3.tracking.offline import ShownRun
from lab3.tracking.payloads import row_of, summary_of


@dataclass(frozen=True)
class Comparison:
    """What a server, or an offline run, shows of a run: its first `n_there` rows are right.

    In words: `damage`, which no further row can repair; `lacking`, which sending what follows those rows adds. And
    `unlinked`, the artifacts of the server that the run was made from and is not linked with.
    """

    n_there: int
    damage: list[str]
    lacking: list[str]
    unlinked: list[str]

    @property
    def problems(self) -> list[str]:
        """All but links, which only the server has."""
        return self.damage + self.lacking

    @property
    def differences(self) -> list[str]:
        """All of it in words; nothing if the run is up to date."""
        links = [f"it is not linked with {', '.join(self.unlinked)}"] if self.unlinked else []
        return self.problems + links


@dataclass
class Expected(Tracker):
    """A tracker that keeps what the server should show."""

    run_id: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: set[str] = field(default_factory=set)
    used: set[str] = field(default_factory=set)
    is_finished: bool = False

    def log(self, step: int, event: Event) -> None:
        """Expect a row, a part of the summary or an artifact."""
        if (row := row_of(event)) is not None:
            self.rows.append(row)
        self.summary |= summary_of(event)
        if isinstance(event, ChannelTable | LostTable):
            # The name that W&B gives a table's artifact.
            self.artifacts.update(f"run-{self.run_id}-{name}" for name in summary_of(event))
        if isinstance(event, Asset):
            if event.artifact:
                self.used.add(event.artifact)
            else:
                self.artifacts.add(event.name)

    def close(self, exit_code: int) -> str | None:
        """Expect a state."""
        self.is_finished = exit_code == 0
        return None

    def compare(self, shown: ShownRun | None) -> Comparison:
        """How what is shown differs; None is no run at all."""
        if shown is None:
            return Comparison(0, [], ["the server has no such run"], sorted(self.used))
        rows = zip(shown.rows, self.rows, strict=False)
        right = list(takewhile(lambda both: _is_right(*both), rows))
        n_there, damage, lacking = len(right), [], []
        if shown.n_lines > n_there:
            damage.append(f"of its {shown.n_lines} rows only the first {n_there} are right")
        paths = {found[name]["path"] for found, row in right for name in row if isinstance(row[name], Path)}
        if missing := sorted(paths - shown.files):
            damage.append(f"the files of {len(missing)} pictures are missing, as {missing[0]}")
        if n_there < len(self.rows):
            lacking.append(f"{n_there} of {len(self.rows)} rows are there")
        if artifacts := sorted(self.artifacts - shown.artifacts):
            lacking.append(f"artifacts are missing: {', '.join(artifacts)}")
        if wrong := [name for name in sorted(self.summary) if not self._is_in_summary(name, shown)]:
            lacking.append(f"the summary differs in {', '.join(wrong)}")
        if (shown.state == "finished") != self.is_finished:
            lacking.append(f"its state is {shown.state}, but the run is {'' if self.is_finished else 'not '}finished")
        return Comparison(n_there, damage, lacking, sorted(self.used - shown.used))

    def _is_in_summary(self, name: str, shown: ShownRun) -> bool:
        expected, found = self.summary[name], shown.summary.get(name)
        if isinstance(expected, ChannelTable | LostTable):
            return isinstance(found, Mapping) and found.get("path") in shown.files
        return bool(found == expected)


def _is_right(found: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """True if a row that is shown has all that the expected one has, pictures' files aside."""
    return all(name in found if isinstance(value, Path) else found.get(name) == value for name, value in row.items())
