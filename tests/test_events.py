"""A run logs live what is replayed from its folder: the same events, in the same order, with the same row numbers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from lab3.app.pipeline import recipes
from lab3.app.pipeline.record import replay_record
from lab3.base.files import sha256_file
from lab3.record.readers import read_summary
from lab3.record.rundir import RunDir
from lab3.tracking import Event, Tracker
from lab3.tracking.events import Alert, Asset, ChannelTable, Compacted, Finished, LostTable
from lab3.tracking.payloads import row_of
from tests.folders import DIGITS

QUICK = ("--set", "train.epochs=1", "--set", "sweep.schedule=0:C:8", "--set", "sweep.feature_maps_k=[8]")
SWEPT = ["Epoch", "Asset", "Asset", "Asset", "ChannelTable", "MediaReady", *["SweepPoint"] * 4]
SWEPT += ["ChannelTable", "LostTable", "MediaReady", "Asset", "Finished"]
TRAINED = ["Epoch", "Asset", "Asset", "Asset", "Asset", "MediaReady", "Finished"]


class Notes(Tracker):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, Event]] = []
        self.exit_codes: list[int] = []

    def log(self, step: int, event: Event) -> None:
        self.logged.append((step, event))

    def close(self, exit_code: int) -> str | None:
        self.exit_codes.append(exit_code)
        return None

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for _, event in self.logged]

    @property
    def content(self) -> list[Any]:
        """Without arrays, which cannot be compared by one sign, and without what the work cost."""

        def plain(event: Event) -> Any:
            match event:
                case ChannelTable():
                    return event.accuracy_at_k
                case Finished():
                    return {name: value for name, value in event.summary.items() if name != "cost"}
                case LostTable():
                    return event.lost.flips, event.lost.labels, event.lost.pictures.tobytes(), event.class_names
            return event

        return [(step, plain(event)) for step, event in self.logged]

    @property
    def n_attempts(self) -> int:
        """As the end of the run has it."""
        (end,) = (event for _, event in self.logged if isinstance(event, Finished))
        count: int = end.summary["cost"]["attempts"]
        return count


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> list[Notes]:
    """One for each start of a run."""
    opened: list[Notes] = []

    def open_notes(*_: object) -> Notes:
        opened.append(Notes())
        return opened[-1]

    monkeypatch.setattr(recipes, "open_tracker", open_notes)
    return opened


@pytest.mark.parametrize(("command", "kinds"), [("run", SWEPT), ("train", TRAINED)])
def test_what_is_logged_live_is_what_is_replayed(
    command: str, kinds: list[str], few_digits: tuple[str, ...], live: list[Notes], invoke: Callable[..., Result]
) -> None:
    result = invoke(command, DIGITS, *QUICK, *few_digits, "--run-id", "r")
    assert result.exit_code == 0, result.output
    replayed = Notes()
    replay_record(RunDir(Path("runs", "r")), replayed)
    (notes,) = live
    ended = notes.logged.pop()[1] if command == "run" else None  # nobody is told twice
    assert ended == (Alert("sweep finished", read_summary(RunDir(Path("runs", "r")))["sentence"]) if ended else None)
    assert notes.kinds == replayed.kinds == kinds
    assert notes.content == replayed.content
    assert notes.exit_codes == replayed.exit_codes == [0]
    # A step for each row, and the same for what has none until the next row.
    rows = [step for step, event in notes.logged if row_of(event) is not None]
    assert rows == list(range(7 if kinds == SWEPT else 2))


def test_a_compressed_network_is_logged_with_its_frontier_and_the_smaller_model(
    few_digits: tuple[str, ...], fitted_model: Path, live: list[Notes], invoke: Callable[..., Result]
) -> None:
    result = invoke("compress", fitted_model, *few_digits, "--set", "data.scale=16", "--budget", "0.2", "--run-id", "r")
    assert result.exit_code == 0, result.output
    run, replayed = RunDir(Path("runs", "r")), Notes()
    replay_record(run, replayed)
    (notes,) = live
    assert notes.logged.pop()[1] == Alert("compress finished", read_summary(run)["sentence"])
    assert notes.content == replayed.content and notes.exit_codes == replayed.exit_codes == [0]
    n_plans = notes.kinds.count("FrontierPoint")
    assert n_plans >= 2 and notes.kinds == [
        *["Asset"] * 4, *["FrontierPoint"] * n_plans, "MediaReady", "Finished", "Asset", "Compacted",
    ]  # fmt: skip
    *_, (_, artifact), (_, compacted) = notes.logged
    assert isinstance(artifact, Asset) and isinstance(compacted, Compacted)
    assert (artifact.name, sorted(artifact.files)) == ("model-r-compact", ["model.h5", "model.keras", "proof.json"])
    assert artifact.facts["source"] == sha256_file(fitted_model)
    proof = json.loads((run.compact / "proof.json").read_text())
    assert compacted.summary["parameters"] == proof["after"]["parameters"]
    assert compacted.summary["parameters_share"] == proof["after"]["parameters"] / proof["before"]["parameters"]
    assert compacted.summary["n_equal"] == 100


def test_a_resumed_run_logs_everything_again_from_the_start(
    live: list[Notes], toy_files: tuple[Path, Path], invoke: Callable[..., Result]
) -> None:
    assert invoke("sweep", toy_files[0], "--data", toy_files[1], "--run-id", "r").exit_code == 0
    run = RunDir(Path("runs", "r"))
    lines = run.journal_jsonl.read_bytes().splitlines(keepends=True)
    run.journal_jsonl.write_bytes(b"".join(lines[:3]))
    run.summary_json.unlink()
    unfinished = Notes()
    replay_record(run, unfinished)
    assert invoke("resume", run.path).exit_code == 0
    first, resumed = live
    assert first.content == resumed.content and [notes.n_attempts for notes in live] == [1, 2]
    assert unfinished.kinds[:6] == first.kinds[:6] and unfinished.exit_codes == [1]
