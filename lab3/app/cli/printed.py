"""Tables on stdout."""

import sys
from dataclasses import replace

from rich.cells import cell_len
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from lab3.record.compaction import Measures

_NAMES = ("run", "layer", "class", "figure")
_LEAST_OF_NAMES = 12


def print_table(table: Table) -> None:
    """Print `table` on stdout."""
    table.columns = [replace(each, min_width=_least_width(each)) for each in table.columns]
    # Where nobody's screen ends, nothing needs to be cut.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    # A narrower terminal breaks each row's one line itself: nothing is left out.
    least = sum(each.min_width or 0 for each in table.columns) + 2 * (len(table.columns) - 1)
    whole = Console(highlight=False, width=1000)
    (whole if least > console.width else console).print(table)


def _least_width(column: Column) -> int:
    width = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return min(width, _LEAST_OF_NAMES) if column.header in _NAMES else width


def new_table(*titles: str) -> Table:
    """A table with these columns, numbers on the right. On a narrow screen names go on in the next line."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in titles:
        is_name = title in _NAMES
        is_text = is_name or title in ("criterion", "effect", "state", "output shape", "")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=not is_name, overflow="fold")
    return table


def show_measures(before: Measures, after: Measures, channels: str, device: str) -> None:
    """Both models side by side; `channels` names what their numbers of channels are."""
    figures: list[tuple[str, float, float, str]] = [
        (channels, before.n_channels, after.n_channels, ",d"),
        ("parameters", before.parameters, after.parameters, ",d"),
        ("multiply-adds of an image", before.multiply_adds, after.multiply_adds, ",d"),
        ("bytes of the .keras file", before.file_bytes, after.file_bytes, ",d"),
        ("peak activation bytes", before.peak_activation_bytes, after.peak_activation_bytes, ",d"),
    ]
    for ours, theirs in zip(before.speeds, after.speeds, strict=True):
        batch = f"batch {ours.batch_size} on {device}"
        figures.append((f"ms, {batch}", ours.seconds * 1000, theirs.seconds * 1000, ",.2f"))
        figures.append((f"images/s, {batch}", ours.images_per_second, theirs.images_per_second, ",.0f"))
    table = new_table("figure", "before", "after", "share")
    for name, old, new, form in figures:
        table.add_row(Text(name), f"{old:{form}}", f"{new:{form}}", f"{new / old:.0%}" if old else "")
    print_table(table)
