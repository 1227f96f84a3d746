"""Charts as inline SVG: numbers in, markup out. Colours, fonts and dark mode are the page's; a class names what a mark means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]

EDGE, TOP, BOTTOM = 2, 20, 20  # around the bars of a chart, in its own pixels; it is drawn at about its own size
LEVELS = 6  # of darkness in a map


@dataclass(frozen=True)
class Layer:
    """Counts of one meaning in a histogram; `name` is its class in the page's CSS."""

    name: str
    counts: Numbers


def histogram(
    layers: Sequence[Layer],
    span: tuple[float, float],
    label: str,
    *,
    mark: float | None = None,
    ticks: Sequence[float] = (),
    size: tuple[int, int] = (360, 150),
) -> Markup:
    """Layers of counts stacked over equal bins of `span`, with the largest sum; `mark` is an upright line, as a threshold."""
    width, height = size
    floor, room = height - BOTTOM, height - TOP - BOTTOM
    most = _most(layers)

    def x_of(value: float) -> float:
        return EDGE + (value - span[0]) / (span[1] - span[0]) * (width - 2 * EDGE)

    parts = [_line(EDGE, TOP, width - EDGE, TOP, "grid"), _text(width - EDGE, TOP - 5, f"{most:,}", "end")]
    parts += [_bars(layers, (EDGE, floor), width - 2 * EDGE, room / most), _line(EDGE, floor, width - EDGE, floor, "axis")]
    parts += [_text(x_of(tick), height - 5, f"{tick:g}", _anchor(tick, span)) for tick in ticks]
    if mark is not None:
        parts.append(_line(x_of(mark), TOP - 4, x_of(mark), floor, "mark"))
        parts.append(_text(x_of(mark), TOP - 7, f"{mark:g}", "middle", "mark-text"))
    return svg(Markup("").join(parts), width, height, label, "chart")


def spark(layers: Sequence[Layer], label: str, mark: float) -> Markup:
    """A histogram of 0..1 for a line of a table, of half as many bins."""
    width, height = 120, 26
    halved = [Layer(layer.name, np.asarray(layer.counts).reshape(-1, 2).sum(axis=1)) for layer in layers]
    most = _most(halved)
    parts = [_bars(halved, (0, height - 1), width, (height - 2) / most), _line(0, height - 0.5, width, height - 0.5, "axis")]
    parts.append(_line(mark * width, 0, mark * width, height, "mark"))
    return svg(Markup("").join(parts), width, height, label, "spark")


def where(grid: Numbers, label: str, aspect: float) -> Markup:
    """A map of the image, which is `aspect` times as wide as high: the darker, the more often covered. `grid` (rows, columns)."""
    rows, columns = grid.shape
    cells = Markup('<g transform="scale({:.4f} {:.4f})">{}</g>').format(240 / columns, 240 / aspect / rows, _cells(grid))
    return svg(cells, 240, 240 / aspect, label, "map")


def sizes(grid: Numbers, label: str, decades: float) -> Markup:
    """A map of widths (to the right) and heights (up) by powers of ten, the last of which ends at the whole image."""
    side, low, top = 200, 40, 4
    cells = Markup('<g transform="translate({} {}) scale({:.4f})">{}</g>').format(
        low, top, side / len(grid), _cells(np.sqrt(grid[::-1]))
    )
    parts = [Markup('<rect class="well" x="{}" y="{}" width="{}" height="{}"/>').format(low, top, side, side), cells]
    for power in range(int(decades) + 1):
        share = f"{100 * 10.0 ** (power - decades):g} %"
        along = side * power / decades
        if 0 < power < decades:
            parts += [
                _line(low + along, top, low + along, top + side, "grid"),
                _line(low, top + along, low + side, top + along, "grid"),
            ]
        parts.append(_text(low + along, top + side + 14, share, _anchor(power, (0, decades))))
        parts.append(_text(low - 5, top + side - along + (4 if power < decades else 9), share, "end"))
    return svg(Markup("").join(parts), low + side + 8, top + side + 18, label, "map")


def bar(share: float, name: str = "kept", width: int = 120, height: int = 8) -> Markup:
    """A bar of a table's cell, beside the number that says the same; a reader of the page is not told it twice."""
    long = max(1.0, share * width) if share > 0 else 0.0
    body = Markup('<rect class="rail" width="{}" height="{}" rx="1.5"/><rect class="{}" width="{:.1f}" height="{}" rx="1.5"/>')
    return svg(body.format(width, height, name, long, height), width, height, "", "bar")


def interval(value: float, low: float, high: float, label: str, width: int = 180) -> Markup:
    """A figure of 0..1 with its interval, on a rule of quarters."""

    def x_of(part: float) -> float:  # the dot of 0 or 1 has room as well
        return 5 + part * (width - 10)

    quarters = Markup("").join(_line(x_of(k / 4), 4, x_of(k / 4), 14, "axis") for k in range(5))
    x1, x2, x = map(x_of, (low, high, value))
    reach = Markup('<rect class="reach" x="{:.1f}" y="6" width="{:.1f}" height="6" rx="3"/>').format(x1, max(x2 - x1, 1))
    dot = Markup('<circle class="kept" cx="{:.1f}" cy="9" r="4"/>').format(x)
    return svg(quarters + reach + dot, width, 18, label, "interval")


def dumbbell(first: float, second: float, label: str, width: int = 220) -> Markup:
    """Two figures of 0..1 on one rule: an open dot, and a filled one."""
    x1, x2 = (5 + part * (width - 10) for part in (first, second))
    body = Markup(
        '<line class="axis" x1="5" x2="{}" y1="9" y2="9"/><line class="reach-line" x1="{:.1f}" x2="{:.1f}" y1="9" y2="9"/>'
        '<circle class="open" cx="{:.1f}" cy="9" r="4"/><circle class="kept" cx="{:.1f}" cy="9" r="4"/>'
    )
    return svg(body.format(width - 5, x1, x2, x1, x2), width, 18, label, "interval")


def curves(lines: Sequence[tuple[str, Sequence[float]]], at: Sequence[int], label: str) -> Markup:
    """Lines over the epochs `at`, with values of 0..1; each is named at its end, a little higher where names would meet."""
    most, span = len(at), max(at[-1] - at[0], 1)
    left, right, tall, line_height = 34, 440, 220, 15

    def point(place: int, value: float) -> tuple[float, float]:
        return left + (at[place] - at[0]) / span * (right - left), TOP + (1 - value) * (tall - TOP - BOTTOM)

    parts: list[Markup] = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = point(0, value)[1]
        parts += [_line(left, y, right, y, "axis"), _text(left - 6, y + 4, f"{value:g}", "end")]
    for number, (_, values) in enumerate(lines):
        path = "L".join("{:.1f} {:.1f}".format(*point(place, value)) for place, value in enumerate(values))
        parts.append(Markup('<path class="line line{}" d="M{}"/>').format(number + 1, path))
    y = float(tall)
    for last, number in sorted((values[-1], number) for number, (_, values) in enumerate(lines)):
        y = min(point(0, last)[1] + 4, y - line_height)
        parts.append(_text(right + 8, y, f"{lines[number][0]} {last:.2f}", "start", f"tick name{number + 1}"))
    parts += [_text(point(place, 0)[0], tall - 4, str(at[place]), "middle") for place in sorted({0, most // 2, most - 1})]
    return svg(Markup("").join(parts), right + 130, tall, label, "chart curves")


def svg(body: Markup, width: float, height: float, label: str, name: str) -> Markup:
    """An image for a reader of the page if `label` says what it shows, else decoration."""
    told = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" {}>{}</svg>').format(name, width, height, told, body)


def _most(layers: Sequence[Layer]) -> int:
    """The highest stack, 1 where all are empty."""
    return max(int(np.sum([layer.counts for layer in layers], axis=0).max(initial=0)), 1)


def _bars(layers: Sequence[Layer], origin: tuple[float, float], width: float, scale: float) -> Markup:
    """Stacked bars from the left end of their floor, `scale` high for one."""
    bins = len(layers[0].counts)
    step, under, paths = width / bins, np.zeros(bins), []
    gap = min(1.0, step / 4)
    for layer in layers:
        heights = np.asarray(layer.counts, np.float64) * scale
        path = "".join(
            f"M{origin[0] + k * step:.1f} {origin[1] - under[k]:.1f}v{-heights[k]:.1f}h{step - gap:.1f}v{heights[k]:.1f}z"
            for k in np.flatnonzero(heights).tolist()
        )
        paths.append(Markup('<path class="{}" d="{}"/>').format(layer.name, path))
        under += heights
    return Markup("").join(paths)


def _cells(grid: Numbers) -> Markup:
    """The cells of a map in `LEVELS` of darkness."""
    level = np.ceil(grid / max(float(grid.max(initial=0)), 1.0) * LEVELS).astype(np.int64)
    paths = []
    for darkness in range(1, LEVELS + 1):
        path = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(level == darkness).tolist())
        paths.append(Markup('<path class="heat{}" d="{}"/>').format(darkness, path) if path else Markup(""))
    return Markup("").join(paths)


def _anchor(value: float, span: tuple[float, float]) -> str:
    """So that the text below an axis does not leave the picture."""
    return "start" if value <= span[0] else "end" if value >= span[1] else "middle"


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str, name: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, x, y, anchor, escape(text))
