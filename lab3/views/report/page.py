"""The page, the JSON and the Markdown of a run's facts."""

import base64
import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lab3.base.files import encode_json, write_atomically
from lab3.record.compaction import Compaction, Measures
from lab3.record.readers import read_capture, read_lost
from lab3.record.rundir import RunDir
from lab3.views.report.facts import Report, Sweep
from lab3.views.report.gather import gather_report
from lab3.views.report.pictures import data_uri, n_columns, sprite_of_maps, stitch
from lab3.views.report.plots import draw_charts


def write_report(path: Path) -> Path:
    """Write `report.html`, `report.json` and `report.md` into the folder of a finished run or group; returns the page.

    Raises as `gather_report` does.
    """
    for name, content in render_report(path).items():
        write_atomically(path / name, content)
    return path / "report.html"


def render_report(path: Path) -> dict[str, bytes]:
    """The three files by name; the same folder gives the same bytes."""
    report = gather_report(path)
    return {
        "report.html": _render_page(path, report).encode(),
        "report.json": encode_json(asdict(report)),
        "report.md": _environment().get_template("report.txt").render(**_common(report)).encode(),
    }


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lab3.views.report"),
        # In Markdown too: it can hold HTML.
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "short": _short, "cell": _cell, "tied": _tied}
    return environment


def _render_page(path: Path, report: Report) -> str:
    extra: dict[str, Any] = {"charts": draw_charts(report), "maps": None, "lost": None, "data": None}
    css, js = _text("report.css"), _text("report.js")
    if report.sweep is not None:
        run, sweep = RunDir(path), report.sweep
        maps, lost = _maps(run, sweep), _lost(run, sweep)
        css += _places("tile", "xy", maps) + _places("photo", "uv", lost)
        extra |= {"maps": maps, "lost": lost, "data": _data(sweep), "pruned": _pruned_at(sweep, sweep.certified_k)}
        extra["at"] = next((each for each in sweep.points if each.k == sweep.certified_k and each.n_pruned), None)
    hashes = {"css_hash": _hash(css), "js_hash": _hash(js)}
    # Both are of lab3 itself, with numbers and pictures as text.
    texts = {"css": Markup(css), "js": Markup(js)}
    page: str = _environment().get_template("report.html").render(**_common(report), **extra, **hashes, **texts)
    return page


def _text(name: str) -> str:
    loader = _environment().loader
    assert loader is not None
    return loader.get_source(_environment(), name)[0]


def _hash(text: str) -> str:
    """As a content security policy names the one script or style that it allows."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _places(element: str, axes: str, sprite: dict[str, Any] | None) -> str:
    """The rules that show part (column, row) of a picture in an element of the classes `<axes><number>`."""
    if sprite is None:
        return ""
    sizes = sprite["columns"], sprite["rows"]
    rules = [f".{element} {{ background-image: url({sprite['uri']}); "]
    rules[0] += f"background-size: {100 * sizes[0]}% {100 * sizes[1]}%; }}"
    for letter, axis, n in zip(axes, "xy", sizes, strict=True):
        place = (100 * number / max(1, n - 1) for number in range(n))
        rules += [
            f".{letter}{number} {{ background-position-{axis}: {each:.4g}%; }}" for number, each in enumerate(place)
        ]
    return "\n".join(rules) + "\n"


def _common(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {"report": report, "sweep": report.sweep, "cost_rows": _cost_rows(report.compaction)}
    if report.sweep is not None:
        points = report.sweep.points
        found["few_points"] = [points[number * (len(points) - 1) // 10] for number in range(11)]
    return found | {"saving": _saving(report)}


def _saving(report: Report) -> str | None:
    # A compressed network's sentence says it.
    if report.compaction is None or report.compression is not None:
        return None
    before, after = report.compaction.before, report.compaction.after
    shares = [f"{100 * getattr(after, n) / getattr(before, n):.0f} %" for n in ("parameters", "multiply_adds")]
    return f"The smaller model keeps {shares[0]} of the parameters and {shares[1]} of the multiply-adds."


def _cost_rows(compaction: Compaction | None) -> list[tuple[str, float, float, str]]:
    """Name, before, after and share of each cost."""
    if compaction is None:
        return []

    def rows_of(measures: Measures) -> dict[str, float]:
        found: dict[str, float] = {
            "parameters": measures.parameters,
            "multiply-adds of an image": measures.multiply_adds,
            "bytes of the .keras file": measures.file_bytes,
            "peak activation bytes": measures.peak_activation_bytes,
        }
        return found | {f"ms, batch {speed.batch_size}": 1000 * speed.seconds for speed in measures.speeds}

    before, after = rows_of(compaction.before), rows_of(compaction.after)
    return [(name, value, after[name], f"{100 * after[name] / value:.0f} %") for name, value in before.items() if value]


def _maps(run: RunDir, sweep: Sweep) -> dict[str, Any]:
    mean_map_hwc, _ = read_capture(run)
    columns = n_columns(sweep.n_channels)
    return {
        "uri": data_uri(sprite_of_maps(mean_map_hwc)),
        "columns": columns,
        "rows": -(-sweep.n_channels // columns),
        "size": mean_map_hwc.shape[:2],
    }


def _lost(run: RunDir, sweep: Sweep) -> dict[str, Any] | None:
    if not sweep.lost_first:
        return None
    pictures = read_lost(run).pictures
    columns = n_columns(len(pictures))
    return {"uri": data_uri(stitch(pictures)), "columns": columns, "rows": -(-len(pictures) // columns)}


def _pruned_at(sweep: Sweep, k: int) -> set[int]:
    pruned: set[int] = set()
    for point in sweep.points:
        if point.k <= k:
            pruned = pruned.union(point.new_channels).difference(point.back_channels)
    return pruned


def _data(sweep: Sweep) -> Markup:
    """What the script needs, as JSON that cannot end its element."""
    points = sweep.points
    columns = {
        name: [getattr(point, name) for point in points]
        for name in ("k", "n_pruned", "correct", "accuracy", "n_lost", "n_gained")
    }
    for name in ("band_low", "band_high"):
        columns[name] = [None if (value := getattr(point, name)) is None else round(value, 6) for point in points]
    columns |= {"new": [p.new_channels for p in points], "back": [p.back_channels for p in points]}
    start = max((number for number, point in enumerate(points) if point.k <= sweep.certified_k), default=0)
    text = json.dumps({**columns, "n_images": sweep.n_images, "start": start}, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _number(value: float | None) -> str:
    """As a table shows it."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _tied(text: str) -> str:
    """A sentence that is not broken before its percent signs."""
    return text.replace(" %", "\u00a0%")


def _cell(name: str) -> str:
    """A name in a cell of a Markdown table."""
    return name.replace("|", "\\|").replace("\n", " ")


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:18]}...{name[-18:]}"
