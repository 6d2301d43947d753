"""Tables as CSV files, read as values by spreadsheets too, never as formulas."""

import csv
import io
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# Source: OWASP, CSV Injection. A cell that begins so is a formula, or may become one.
_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def encode_csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A CSV file; the same rows give the same bytes.

    A text that a spreadsheet would compute, as the name `=1+2` of a layer, is put behind an apostrophe, and so is one
    that begins with an apostrophe.
    """
    return "".join(_line(row) for row in (header, *rows)).encode()


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a file of `encode_csv` by the names of its columns. Raises `ValueError` if one lacks a value."""
    header, *rows = read_cells(path)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_cells(path: Path) -> list[list[str]]:
    """The lines of a file of `encode_csv`, the header first. Raises `ValueError` if it has none."""
    with path.open(newline="") as file:
        lines = [[cell.removeprefix("'") for cell in line] for line in csv.reader(file, strict=True)]
    if not lines:
        raise ValueError("it must have a header")
    return lines


def _line(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    # A carriage return in a cell is quoted only where it is a part of the terminator.
    csv.writer(text, lineterminator="\r\n").writerow([_quote(cell) for cell in cells])
    return text.getvalue().removesuffix("\r\n") + "\n"


def _quote(cell: Any) -> Any:
    if not isinstance(cell, str) or not cell.startswith(("'", *_STARTS)):
        return cell
    with suppress(ValueError):
        float(cell)
        return cell
    return f"'{cell}"
