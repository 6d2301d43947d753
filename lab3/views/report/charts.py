"""Line charts as SVG: drawn here, so that they are there without a script and on paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 880, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 44
_STYLES = 8


@dataclass(frozen=True)
class Line:
    """A curve with its name; `style` is the class that gives it color and dashes."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    style: str


@dataclass(frozen=True)
class Chart:
    """What is drawn. `rules` and `posts` are lines across and upright, as (value, style, name); `band` is (xs, low,
    high); `has_cursor`: the script moves a line over it.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_max: float
    y_max: float
    y_min: float = 0.0
    rules: Sequence[tuple[float, str, str]] = ()
    posts: Sequence[tuple[float, str, str]] = ()
    band: tuple[Sequence[float], Sequence[float], Sequence[float], str] | None = None
    has_cursor: bool = False
    is_percent_left: bool = False
    marks: Sequence[tuple[float, float, str, str]] = field(default=())

    def x(self, value: float) -> float:
        """Pixels from the left; a share that is left of something falls to the right."""
        share = value / (self.x_max or 1)
        share = 1 - share if self.is_percent_left else share
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        share = (value - self.y_min) / ((self.y_max - self.y_min) or 1)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    def path(self, xs: Sequence[float], ys: Sequence[float]) -> str:
        """The points of a polyline."""
        return " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(xs, ys, strict=True))


def style_of(number: int) -> str:
    """The class of curve `number` of several.

    >>> style_of(0), style_of(8)
    ('c0 d0', 'c0 d1')
    """
    return f"c{number % _STYLES} d{number // _STYLES % 4}"


def draw(chart: Chart) -> Markup:
    """The chart with axes, and a legend below it."""
    parts = [
        Markup(
            '<svg class="chart{}" viewBox="0 0 {} {}" role="img" aria-label="{}" data-left="{}" data-right="{}" '
            'data-max="{}">'
        ).format(" follows" * chart.has_cursor, WIDTH, HEIGHT, chart.title, _LEFT, WIDTH - _RIGHT, chart.x_max)
    ]
    parts += [_tick_y(chart, value) for value in ticks(chart.y_min, chart.y_max)]
    parts += [_tick_x(chart, value) for value in ticks(0, chart.x_max, most=9)]
    if chart.band is not None:
        xs, low, high, _ = chart.band
        outline = f"{chart.path(xs, high)} {chart.path([*xs][::-1], [*low][::-1])}"
        parts.append(Markup('<polygon class="band" points="{}"/>').format(outline))
    for value, style, _ in chart.rules:
        y = chart.y(value)
        parts.append(Markup('<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            style, _LEFT, WIDTH - _RIGHT, y, y
        ))  # fmt: skip
    for value, style, _ in chart.posts:
        x = chart.x(value)
        parts.append(Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>').format(
            style, x, x, _TOP, HEIGHT - _BOTTOM
        ))  # fmt: skip
    for line in chart.lines:
        parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.style, chart.path(line.xs, line.ys)))
        if len(line.xs) <= 40:
            parts += [
                Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
                    line.style, chart.x(x), chart.y(y)
                )
                for x, y in zip(line.xs, line.ys, strict=True)
            ]
    for x, y, style, _ in chart.marks:
        parts.append(Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="6"/>').format(style, chart.x(x), chart.y(y)))
    if chart.has_cursor:
        parts.append(Markup('<line class="cursor" x1="0" x2="0" y1="{}" y2="{}"/>').format(_TOP, HEIGHT - _BOTTOM))
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(
        Markup('<text class="label" x="{}" y="{}">{}</text>').format(middle, HEIGHT - 6, chart.x_label)
        + Markup('<text class="label upright" transform="translate(13 {}) rotate(-90)">{}</text></svg>').format(
            (HEIGHT - _BOTTOM + _TOP) / 2, chart.y_label
        )
    )
    return Markup("").join([*parts, _legend(chart)])


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, at most `most`.

    >>> ticks(0, 512), ticks(0, 1)
    ([0.0, 100.0, 200.0, 300.0, 400.0, 500.0], [0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    """
    if high <= low:
        return [low]
    raw = (high - low) / (most - 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _tick_y(chart: Chart, value: float) -> Markup:
    y = chart.y(value)
    return Markup(
        '<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="tick-y" x="{}" y="{:.1f}">{}</text>'
    ).format(_LEFT, WIDTH - _RIGHT, y, y, _LEFT - 6, y + 4, f"{value:g}")


def _tick_x(chart: Chart, value: float) -> Markup:
    x, bottom = chart.x(value), HEIGHT - _BOTTOM
    text = f"{100 * value:g} %" if chart.is_percent_left else f"{value:g}"
    return Markup(
        '<line class="grid" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/><text class="tick-x" x="{:.1f}" y="{}">{}</text>'
    ).format(x, x, bottom, bottom + 5, x, bottom + 18, text)


def _legend(chart: Chart) -> Markup:
    named = [(line.name, f"line {line.style}") for line in chart.lines]
    named += [(chart.band[3], "band")] if chart.band is not None else []
    named += [(name, style) for _, style, name in (*chart.rules, *chart.posts)]
    named += [(name, style) for *_, style, name in chart.marks]
    items = [
        Markup('<li><svg class="key" viewBox="0 0 26 10" aria-hidden="true">{}</svg>{}</li>').format(_key(style), name)
        for name, style in named
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(items))


def _key(style: str) -> Markup:
    if style == "band":
        return Markup('<rect class="band" width="26" height="10"/>')
    if style.startswith("mark"):
        return Markup('<circle class="{}" cx="13" cy="5" r="4"/>').format(style)
    return Markup('<line class="{}" x1="0" x2="26" y1="5" y2="5"/>').format(style)
