"""Charts as inline SVG: numbers in, markup out. Colours, fonts and dark mode are the page's; a class names what a mark means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape

Numbers = npt.NDArray[np.integer] | npt.NDArray[np.floating]

WIDTH, HEIGHT = 360, 148  # of a chart with axes, in the page's own pixels on a wide screen
LEFT, RIGHT, TOP, BOTTOM = 6, 6, 16, 20
LEVELS = 6  # of darkness in a map


@dataclass(frozen=True)
class Layer:
    """Counts of one meaning in a histogram; `name` is its class in the page's CSS."""

    name: str
    counts: Numbers


def histogram(
    layers: Sequence[Layer], span: tuple[float, float], label: str, *, mark: float | None = None, ticks: Sequence[float] = ()
) -> Markup:
    """Layers of counts stacked over equal bins of `span`; `mark` is drawn as an upright line, such as a threshold.

    Heights are of the square root of the counts, where the largest is above fifty times the middle one would else be flat.
    """
    counts = np.stack([np.asarray(layer.counts, np.float64) for layer in layers])
    total, bins = counts.sum(axis=0), counts.shape[1]
    step = (WIDTH - LEFT - RIGHT) / bins
    room, floor = HEIGHT - TOP - BOTTOM, HEIGHT - BOTTOM
    scale = room / max(total.max(initial=0), 1)
    parts: list[Markup] = [_line(LEFT, floor, WIDTH - RIGHT, floor, "axis")]
    under = np.zeros(bins)
    for layer, own in zip(layers, counts, strict=True):
        bars = "".join(
            f"M{LEFT + k * step:.1f} {floor - under[k] * scale:.1f}v{-own[k] * scale:.1f}h{step - 1:.1f}v{own[k] * scale:.1f}z"
            for k in np.flatnonzero(own).tolist()
        )
        parts.append(Markup('<path class="{}" d="{}"/>').format(layer.name, bars))
        under += own

    def x_of(value: float) -> float:
        return LEFT + (value - span[0]) / (span[1] - span[0]) * (WIDTH - LEFT - RIGHT)

    parts += [_text(x_of(tick), HEIGHT - 5, f"{tick:g}", "middle") for tick in ticks]
    if mark is not None:
        parts.append(_line(x_of(mark), TOP - 4, x_of(mark), floor, "mark"))
        anchor = "start" if mark < (span[0] + span[1]) / 2 else "end"
        parts.append(_text(x_of(mark) + (4 if anchor == "start" else -4), TOP + 4, f"{mark:g}", anchor, "mark-text"))
    return svg(Markup("").join(parts), WIDTH, HEIGHT, label, "chart")


def spark(layers: Sequence[Layer], label: str, mark: float | None = None, width: int = 120, height: int = 26) -> Markup:
    """A histogram of 0..1 for a line of a table."""
    counts = np.stack([_halved(layer.counts) for layer in layers])
    bins, scale = counts.shape[1], (height - 2) / max(float(counts.sum(axis=0).max(initial=0)), 1)
    step, under, parts = width / bins, np.zeros(counts.shape[1]), []
    for layer, own in zip(layers, counts, strict=True):
        bars = "".join(
            f"M{k * step:.1f} {height - 1 - under[k] * scale:.1f}v{-own[k] * scale:.1f}h{step - 0.6:.1f}v{own[k] * scale:.1f}z"
            for k in np.flatnonzero(own).tolist()
        )
        parts.append(Markup('<path class="{}" d="{}"/>').format(layer.name, bars))
        under += own
    parts.append(_line(0, height - 0.5, width, height - 0.5, "axis"))
    if mark is not None:
        parts.append(_line(mark * width, 0, mark * width, height, "mark"))
    return svg(Markup("").join(parts), width, height, label, "spark")


def heat(grid: Numbers, label: str, *, origin: str = "top", frame: bool = True) -> Markup:
    """A map of counts: the darker, the more. `grid` (rows, columns); `origin` says where its first row is drawn."""
    values = np.asarray(grid, np.float64)
    if origin == "bottom":
        values = values[::-1]
    rows, columns = values.shape
    most = max(values.max(initial=0), 1)
    level = np.ceil(np.sqrt(values / most) * LEVELS).astype(np.int64)  # by the root: few are still seen beside many
    parts = []
    for darkness in range(1, LEVELS + 1):
        cells = "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(level == darkness).tolist())
        if cells:
            parts.append(Markup('<path class="heat{}" d="{}"/>').format(darkness, cells))
    return svg(Markup("").join(parts), columns, rows, label, "heat framed" if frame else "heat")


def bar(share: float, name: str = "kept", width: int = 120, height: int = 8) -> Markup:
    """A bar of a table's cell, beside the number that says the same; a reader of the page is not told it twice."""
    long = max(1.0, share * width) if share > 0 else 0.0
    body = Markup('<rect class="rail" width="{}" height="{}" rx="1.5"/><rect class="{}" width="{:.1f}" height="{}" rx="1.5"/>')
    return svg(body.format(width, height, name, long, height), width, height, "", "bar")


def interval(value: float, low: float, high: float, label: str, width: int = 180) -> Markup:
    """A figure of 0..1 with its interval, on a rule of quarters."""
    quarters = Markup("").join(_line(1 + k / 4 * (width - 2), 4, 1 + k / 4 * (width - 2), 14, "axis") for k in range(5))
    x1, x2, x = (1 + part * (width - 2) for part in (low, high, value))
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


def curves(lines: Sequence[tuple[str, Sequence[float]]], label: str) -> Markup:
    """Lines over 1, 2, 3, ... with values of 0..1; each is named at its end."""
    most = max((len(values) for _, values in lines), default=1)
    wide, tall, right = 560, 220, 120

    def point(place: int, value: float) -> tuple[float, float]:
        return LEFT + 24 + place / max(most - 1, 1) * (wide - right - LEFT - 24), TOP + (1 - value) * (tall - TOP - BOTTOM)

    parts: list[Markup] = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = point(0, value)[1]
        parts += [_line(LEFT + 24, y, wide - right, y, "axis"), _text(LEFT + 18, y + 4, f"{value:g}", "end")]
    ends: list[float] = []
    for number, (name, values) in enumerate(lines):
        path = "L".join("{:.1f} {:.1f}".format(*point(place, value)) for place, value in enumerate(values))
        parts.append(Markup('<path class="line line{}" d="M{}"/>').format(number + 1, path))
        y = point(0, values[-1])[1]
        while any(abs(y - other) < 14 for other in ends):
            y += 14
        ends.append(y)
        parts.append(_text(wide - right + 8, y + 4, f"{name} {values[-1]:.2f}", "start", f"name{number + 1}"))
    parts += [_text(point(place, 0)[0], tall - 4, str(place + 1), "middle") for place in sorted({0, most // 2, most - 1})]
    return svg(Markup("").join(parts), wide, tall, label, "chart curves")


def svg(body: Markup, width: float, height: float, label: str, name: str) -> Markup:
    """An image for a reader of the page if `label` says what it shows, else decoration."""
    told = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup('<svg class="{}" viewBox="0 0 {:g} {:g}" {}>{}</svg>').format(name, width, height, told, body)


def _halved(counts: Numbers) -> npt.NDArray[np.float64]:
    """Two bins as one."""
    values: npt.NDArray[np.float64] = np.asarray(counts, np.float64).reshape(-1, 2).sum(axis=1)
    return values


def _line(x1: float, y1: float, x2: float, y2: float, name: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(name, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str, name: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(name, x, y, anchor, escape(text))
