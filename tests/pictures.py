"""What stands for figures where they are not the subject: drawing those of a run takes as long as a small sweep."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from lab3.views import drawings

PLOTS = [name for name in vars(drawings) if name.startswith("plot_")]


def save_grey(_figure: object, path: Path, **_settings: object) -> None:
    """In place of `matplotlib.figure.Figure.savefig`: a PNG of one grey."""
    Image.new("L", (4, 4), 128).save(path, "PNG")


class Blank:
    """In place of a figure."""

    savefig = save_grey


def plot_blank(*_args: object, **_settings: object) -> Blank:
    """In place of a plot."""
    return Blank()


def draw_no_figures(put: Callable[[object, str, object], None]) -> None:
    """Have `put` replace the plots of a run, and the rendering of other figures."""
    from matplotlib.figure import Figure

    put(Figure, "savefig", save_grey)
    for name in PLOTS:
        put(drawings, name, plot_blank)
