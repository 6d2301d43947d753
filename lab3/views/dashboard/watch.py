"""A folder of runs, read again only where something changed; folders from people one does not know among them."""

import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from lab3.errors import Lab3Error
from lab3.record.journal import Row, decode_row
from lab3.record.listing import Listed, list_run
from lab3.record.rundir import RunDir, runs_in
from lab3.record.state import read_state

# What a page or a list is made from; of each, only a plain file inside the run's own folder is read.
_READ = (
    "manifest.json", "config.yaml", "summary.json", "journal.jsonl", "measured.jsonl", "epochs.jsonl", "capture.npz",
    "channels.csv", "scores.csv", "metrics.csv", "certificate.csv", "lost.npz", "plan.csv", "frontier.csv",
    "compact/proof.json",
)  # fmt: skip
DOWNLOADS = (
    "results.csv", "metrics.csv", "certificate.csv", "channels.csv", "scores.csv", "plan.csv", "frontier.csv",
    "summary.json", "compact/model.keras", "compact/model.h5", "compact/proof.json",
)  # fmt: skip
_LARGEST_BYTES = 1 << 30


@dataclass
class _Seen:
    """A run as it was read last. `offset` into its journal, whose `points` are all before it; `version` of the row."""

    row: Listed
    stamp: tuple[tuple[int, int], ...]
    version: int
    offset: int = 0
    points: list[Row] = field(default_factory=list)


class Watch:
    """The runs in `folder`, each with the number of the look at which it last changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.version = 0
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()

    def look(self) -> tuple[int, list[tuple[Listed, int]]]:
        """The number of this look, and every run with its version, the one that wrote last first."""
        with self._lock:
            self.version += 1
            found = {name: path for path in runs_in(self.folder) if (name := self._name_of(path))}
            for name in self._seen.keys() - found.keys():
                del self._seen[name]
            for name, path in found.items():
                self._look_at(name, path)
            rows = [(each.row, each.version) for each in self._seen.values()]
            return self.version, sorted(rows, key=lambda each: each[0].age_s)

    def path_of(self, name: str) -> Path | None:
        """The folder of a run that a look has found, None for any other name."""
        with self._lock:
            path = self.folder / name
            return path if name in self._seen and self._name_of(path) == name and is_plain(path) else None

    def points_after(self, name: str, n_points: int) -> list[Row]:
        """The points of a run's journal behind the first `n_points`, as far as whole lines go."""
        with self._lock:
            seen, journal = self._seen.get(name), self.folder / name / "journal.jsonl"
            if seen is None or not journal.exists() or not is_plain(self.folder / name):
                return []
            with journal.open("rb") as file:
                file.seek(seen.offset)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            rows = [decode_row(line) for line in whole.splitlines(keepends=True)]
            seen.points += [_short(row) for row in rows if row is not None and "correct" in row]
            seen.offset += len(whole)
            return seen.points[n_points:]

    def _name_of(self, path: Path) -> str | None:
        """A run's place below the folder; None where a link leads out of it."""
        if path.is_symlink() or path.parent.is_symlink() or not path.resolve().is_relative_to(self.folder):
            return None
        return path.relative_to(self.folder).as_posix() if path != self.folder else None

    def _look_at(self, name: str, path: Path) -> None:
        stamp = tuple(_stamps(path))
        seen = self._seen.get(name)
        if seen is not None and seen.stamp == stamp:
            if seen.row.condition == "finished" or not is_plain(path):
                return
            # Nothing was written: only what its process does can have changed.
            state = read_state(RunDir(path), n_done=seen.row.n_done)
            row = replace(seen.row, state=str(state), condition=state.condition, age_s=state.age_s)
            if row.state != seen.row.state:
                seen.version = self.version
            seen.row = row
            return
        fresh = _Seen(_list(path, self.folder), stamp, self.version)
        if seen is not None:
            fresh.offset, fresh.points = seen.offset, seen.points
        self._seen[name] = fresh


def is_plain(path: Path) -> bool:
    """True if all that is read of a run are plain files of its own, no links, devices or pipes, and none is huge."""
    for name in (*_READ, "compact"):
        try:
            status = (path / name).lstat()
        except OSError:
            continue
        wanted = stat.S_ISDIR if name == "compact" else stat.S_ISREG
        if not wanted(status.st_mode) or (name != "compact" and status.st_size > _LARGEST_BYTES):
            return False
    return True


def _list(path: Path, folder: Path) -> Listed:
    name = path.relative_to(folder).as_posix()
    damaged = Listed(path=name, run_id=path.name, state="damaged", condition="damaged", n_done=0, age_s=0.0)
    if not is_plain(path):
        return damaged
    try:
        return list_run(path, folder)
    except (Lab3Error, OSError, KeyError, TypeError, AttributeError):
        # A summary from elsewhere can be any JSON.
        return damaged


def _stamps(path: Path) -> Iterator[tuple[int, int]]:
    for name in ("manifest.json", "summary.json", "journal.jsonl", "measured.jsonl", "epochs.jsonl"):
        try:
            status = (path / name).lstat()
        except OSError:
            yield 0, 0
        else:
            yield status.st_mtime_ns, status.st_size


def _short(row: Row) -> Row:
    names = ("k", "correct", "total", "n_pruned")
    found = {name: row[name] for name in names if isinstance(row.get(name), int)}
    return found | {"n_pruned": len(row.get("pruned_channels", ()))}
