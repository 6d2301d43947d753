"""What all figures share: where they are drawn, how names and titles are written, and how they are saved."""

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab3.base.files import replacing
from lab3.errors import printable

BLUE, ORANGE, GREY, GREEN = "#1f5fa8", "#d9730d", "#8a8a8a", "#1a7f4b"
# Okabe and Ito's colors, which people with any color vision tell apart, without the yellow that is lost on white.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_LINES = ("-", "--", ":", "-.")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
_LONGEST_NAME = 40


def about(*, criterion: str | None, effect: str | None, n_images: int, source: str = "") -> str:
    """What a figure's title says of the sweep behind it; what is None differs among its curves."""
    data = f"{n_images:,} images" + (f" of {short(source)}" if source else "")
    named = {"criterion": criterion, "effect": effect}
    return ", ".join([*(f"{name} {value}" for name, value in named.items() if value), data])


def save_figure(figure: Any, path: Path) -> None:
    """Write `figure` in one durable step, as PNG, SVG or PDF by the path's ending."""
    from matplotlib import rc_context

    # Names inside an SVG are otherwise drawn by lot; type 42 fonts are text that an editor finds.
    with replacing(path) as temporary, rc_context({"svg.hashsalt": "lab3", "pdf.fonttype": 42}):
        # Without a fixed Software entry the bytes differ from version to version.
        metadata = {".png": {"Software": "lab3"}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        kind = path.suffix
        figure.savefig(temporary, format=kind[1:], dpi=120, metadata=metadata[kind])


def set_title(axes: Any, *text: str, size: float = 10.0) -> None:
    """Lines above `axes`, broken to fit the figure's width."""
    axes.set_title(_join_lines(axes.figure, text, size), fontsize=size)


def set_figure_title(figure: Any, *text: str, size: float = 10.0) -> None:
    """Lines above all of `figure`, broken to fit its width."""
    figure.suptitle(_join_lines(figure, text, size), fontsize=size)


def _join_lines(figure: Any, text: Iterable[str], size: float) -> str:
    # A letter is about 0.55 of the font's size wide, and axes are not as wide as their figure.
    n_letters = int(0.8 * figure.get_figwidth() * 72 / (0.55 * size))
    wrapped = [part for line in text for part in textwrap.wrap(printable(line), n_letters)]
    return "\n".join(plain(part) for part in wrapped)


def short(name: str, n_letters: int = _LONGEST_NAME) -> str:
    """A name of at most `n_letters`; a longer one lacks its middle, as names often differ at their ends."""
    name = printable(name)
    half = (n_letters - 3) // 2
    return name if len(name) <= n_letters else f"{name[:half]}...{name[-half:]}"


def plain(text: str) -> str:
    """A name as it is: matplotlib would read what stands between two dollar signs as a formula."""
    return printable(text).replace("$", r"\$")


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    # Figure alone, without pyplot: no window, no global list of open figures.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(width: float, height: float) -> Any:
    """The axes of a new figure, in inches."""
    return new_figure(width, height).subplots()


def curve_style(number: int, n_curves: int, n_points: int) -> dict[str, Any]:
    """How curve `number` of several is drawn: its own color and pair of line and marker, so different in grey too."""
    spacing = max(1, n_points // 8)
    return {
        "color": _COLORS[number % len(_COLORS)],
        "linestyle": _LINES[number % len(_LINES)],
        "marker": _MARKERS[number % len(_MARKERS)],
        "markevery": (number * spacing // n_curves, spacing),
        "markersize": 4.5,
        "linewidth": 1.5,
    }
