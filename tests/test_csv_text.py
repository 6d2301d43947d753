"""Names in tables are text for a spreadsheet, and come back as they were."""

from pathlib import Path

import pytest

from lab3.base.csv_text import encode_csv, read_csv

FORMULAS = (
    "=1+2", "+1+2", "-1+2", "@SUM(A1)", "=HYPERLINK(\"http://example.org\")", "=cmd|' /C calc'!A0", "\t=1", "\r=1",
    "\n=1", "'=1", "''", "-", "=",
)  # fmt: skip


@pytest.mark.parametrize("name", [*FORMULAS, "conv2d_12", "a=1", "-0.25", "nan", "", 'a,b"c'])
def test_a_name_is_no_formula_and_comes_back(name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(encode_csv(["layer", "k"], [(name, -3)]))
    assert read_csv(path) == [{"layer": name, "k": "-3"}]


def test_only_what_a_spreadsheet_would_compute_is_quoted() -> None:
    rows = [("=1+2", "-0.250000", -3, 0.5), ("conv", "1e-3", None, "+5")]
    assert encode_csv(["-", "b", "c", "d"], rows) == b"'-,b,c,d\n'=1+2,-0.250000,-3,0.5\nconv,1e-3,,+5\n"


def test_a_line_with_a_value_too_many_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(b"a,b\n1,2,3\n")
    with pytest.raises(ValueError, match="longer"):
        read_csv(path)
