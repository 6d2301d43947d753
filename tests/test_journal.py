import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lab3.errors import RunStateError
from lab3.record.journal import decode_row, encode_row, open_journal, read_journal
from tests.strategies import json_values

HEADER = {"journal": 1, "model": "abc"}
ROWS = [{"k": 0, "loss": 0.5, "pruned_channels": []}, {"k": 1, "loss": 1 / 3, "pruned_channels": [7]}]


@pytest.fixture
def journal_path(tmp_path: Path) -> Path:
    path = tmp_path / "journal.jsonl"
    with open_journal(path, HEADER) as journal:
        for row in ROWS:
            journal.append(row)
    return path


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=4))
def test_a_row_survives_writing_and_reading(row: dict[str, Any]) -> None:
    assert decode_row(encode_row(row)) == row


def test_rows_come_back_in_order_and_more_can_follow(journal_path: Path) -> None:
    assert read_journal(journal_path) == ROWS
    with open_journal(journal_path, HEADER) as journal:
        assert journal.rows == ROWS
        journal.append({"k": 2})
    assert read_journal(journal_path) == [*ROWS, {"k": 2}]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 400))
def test_a_journal_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(journal_path: Path, cut: int) -> None:
    whole = journal_path.read_bytes()
    torn = journal_path.with_name("torn.jsonl")
    torn.write_bytes(whole[:cut])
    n_whole_rows = max(0, whole[:cut].count(b"\n") - 1)
    with open_journal(torn, HEADER) as journal:
        assert journal.rows == ROWS[:n_whole_rows]
        journal.append({"k": 9})
    assert read_journal(torn) == [*ROWS[:n_whole_rows], {"k": 9}]


def test_a_damaged_line_before_the_last_is_refused(journal_path: Path) -> None:
    content = journal_path.read_bytes()
    journal_path.write_bytes(content.replace(b'"k":0', b'"k":5'))
    with pytest.raises(RunStateError, match=r"journal.jsonl line 2 of 3 is damaged"):
        read_journal(journal_path)


def test_a_journal_of_other_settings_is_refused(journal_path: Path) -> None:
    with (
        pytest.raises(RunStateError, match=r"model was 'abc', now 'def'; settings\.bias was None, now 'keep'"),
        open_journal(journal_path, {**HEADER, "model": "def", "settings": {"bias": "keep"}}),
    ):
        pass


def test_nothing_is_cut_from_a_journal_that_is_refused(journal_path: Path) -> None:
    torn = journal_path.read_bytes()[:-3]
    journal_path.write_bytes(torn)
    with pytest.raises(RunStateError, match="other settings"), open_journal(journal_path, {"journal": 2}):
        pass
    assert journal_path.read_bytes() == torn


@pytest.mark.parametrize("change", ["cut", "added to", "replaced"])
def test_a_journal_that_something_else_writes_is_told(change: str, journal_path: Path) -> None:
    def touch() -> None:
        if change == "cut":
            os.truncate(journal_path, 30)
        elif change == "added to":
            with journal_path.open("ab") as file:
                file.write(b"x")
        else:
            copy = journal_path.with_name("copy")
            copy.write_bytes(journal_path.read_bytes())
            copy.replace(journal_path)

    for appends in (True, False):
        content = journal_path.read_bytes()
        with (
            pytest.raises(RunStateError, match="must be written by nothing else"),
            open_journal(journal_path, HEADER) as journal,
        ):
            touch()
            if appends:
                journal.append({"k": 3})
        journal_path.write_bytes(content)
    with pytest.raises(FileNotFoundError), open_journal(journal_path, HEADER) as journal:
        journal_path.unlink()
        journal.append({"k": 3})


def test_a_short_write_leaves_nothing_behind(journal_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = journal_path.read_bytes()
    real_write = os.write
    with open_journal(journal_path, HEADER) as journal:
        monkeypatch.setattr(os, "write", lambda fd, data: real_write(fd, data[:5]))
        with pytest.raises(OSError, match=r"only 5 of .* bytes of a journal line could be written"):
            journal.append({"k": 2})
        monkeypatch.undo()
        assert journal_path.read_bytes() == before
