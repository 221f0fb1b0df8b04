"""Charts for the report: scores with intervals, ROC and other unit-square curves, rankings and learning curves.

The first half of the module contains their building blocks: SVG elements, axes, and number formats.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

WIDE, NARROW = 880, 340
"""Figure widths in CSS pixels: for desktops and print, and for phones."""


def tag(element: str, *children: object, **attributes: object) -> Markup:
    """Return an SVG element with escaped content and attributes. `class_` becomes `class`, and `a_b` becomes `a-b`."""
    given = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items() if value is not None}
    text = "".join(f' {name}="{escape(_plain(value))}"' for name, value in given.items())
    inner = "".join(escape(child) for child in children)
    return Markup(f"<{element}{text}>{inner}</{element}>")  # noqa: S704 - every part was escaped above


def _plain(value: object) -> str:
    """Round coordinates to 0.01 pixels, so that files are small and identical on every machine."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def figure(width: float, height: float, alternative: str, *children: object, class_: str = "") -> Markup:
    """Return an SVG of `width` × `height` CSS pixels that shrinks to fit its column; `alternative` is its alt text."""
    box = {"viewBox": f"0 0 {_plain(width)} {_plain(height)}", "width": width, "height": height}
    return tag("svg", *children, class_=f"figure {class_}".strip(), **box, role="img", aria_label=alternative)


def text(x: float, y: float, words: object, class_: str, anchor: str | None = None) -> Markup:
    """Return a line of text; `y` is its baseline."""
    return tag("text", words, x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def dot(x: float, y: float, radius: float, class_: str, tip: str) -> Markup:
    """Return a circle with a tooltip."""
    return tag("circle", tag("title", tip), cx=x, cy=y, r=radius, class_=class_)


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through `points`, broken at non-finite points."""
    steps, pen = [], "M"
    for x, y in points:
        if not (math.isfinite(x) and math.isfinite(y)):
            pen = "M"
            continue
        steps.append(f"{pen}{_plain(x)} {_plain(y)}")
        pen = "L"
    return tag("path", d="".join(steps), class_=class_)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers between `low` and `high`."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * factor for factor in (1, 2, 2.5, 5, 10) if scale * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


@dataclass(frozen=True)
class Frame:
    """A plotting area: its position and size in pixels, and its data ranges. Values of y increase upward."""

    left: float
    top: float
    width: float
    height: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def x(self, value: float) -> float:
        return self.left + self.width * _share(value, *self.x_range)

    def y(self, value: float) -> float:
        return self.top + self.height * (1 - _share(value, *self.y_range))

    def points(self, xs: Iterable[float], ys: Iterable[float]) -> list[tuple[float, float]]:
        return [(self.x(x), self.y(y)) for x, y in zip(xs, ys, strict=True)]

    def vertical(self, value: float, class_: str) -> Markup:
        """Return a vertical line at x = `value`."""
        return line(self.x(value), self.top, self.x(value), self.bottom, class_)

    def y_axis(self, values: Sequence[float]) -> list[Markup]:
        """Return horizontal grid lines, labeled on the left."""
        right = self.left + self.width
        lines = [line(self.left, self.y(value), right, self.y(value), "grid") for value in values]
        return lines + [text(self.left - 8, self.y(value) + 4, number(value), "tick", "end") for value in values]

    def x_axis(self, values: Sequence[float], title: str) -> list[Markup]:
        """Return the x axis with labels below it and the title at its right end."""
        right = self.left + self.width
        marks = [text(self.x(value), self.bottom + 18, number(value), "tick", "middle") for value in values]
        axis = line(self.left, self.bottom, right, self.bottom, "axis")
        return [axis, *marks, text(right, self.bottom + 36, title, "tick", "end")]


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


@dataclass(frozen=True)
class Figure:
    """A drawing for wide columns, one for narrow columns (None if the first fits both), and a caption."""

    wide: Markup
    narrow: Markup | None = None
    caption: str = ""


def both(draw: Callable[[int], Markup], caption: str = "") -> Figure:
    """Return a figure drawn at both widths; `draw` takes the width in CSS pixels."""
    return Figure(draw(WIDE), draw(NARROW), caption)


def number(value: float, digits: int = 3) -> str:
    """Format a number for a label: `2,000`, `0.5` without trailing zeros, and small numbers as `2e-5`."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    rounded = f"{value:,.{digits}f}"
    return rounded.rstrip("0").rstrip(".") if "." in rounded else rounded


def with_interval(value: float, low: float, high: float, note: str = "") -> str:
    """Return a score such as `95.9% (89.9–98.4%)`; `note` precedes the interval."""
    return f"{value:.1%} ({note}{100 * low:.1f}–{high:.1%})"


def share_shown(shown: int, total: int, what: str) -> str:
    """Return a note such as `12 of 154 sets are shown.`, or "" if all are shown."""
    return f"{shown:,} of {total:,} {what} are shown." if shown < total else ""


@dataclass(frozen=True)
class Interval:
    """A score with its interval; `kind` is its CSS class."""

    name: str
    value: float
    low: float
    high: float
    kind: str = "first"


@dataclass(frozen=True)
class Dots:
    """A dot plot: scores with their intervals on a shared axis, rendered by the template macro `dots`.

    Attributes:
        axis: first and last value of the axis.
        signed: whether the scores are differences, shown in percentage points with a sign.
    """

    rows: Sequence[Interval]
    axis: tuple[float, float]
    caption: str = ""
    signed: bool = False

    def position(self, value: float) -> str:
        """Return the position of `value` on the axis as a CSS percentage."""
        low, high = self.axis
        return f"{100 * (value - low) / (high - low):.2f}%"

    def words(self, value: float) -> str:
        return f"{100 * value:+.1f}" if self.signed else f"{value:.1%}"

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Return the values and labels of the axis ticks."""
        unit = "" if self.signed else "%"
        return [(value, f"{100 * value:.4g}{unit}") for value in ticks(*self.axis, 4)]


def scores(rows: Sequence[Interval], caption: str = "") -> Dots:
    """Return a dot plot of scores; its axis ends at 100%."""
    return Dots(rows, (max(0.0, min(entry.low for entry in rows) - 0.03), 1.0), caption)


def differences(rows: Sequence[Interval]) -> Dots:
    """Return a dot plot of differences on an axis centered at zero. Intervals that exclude zero are colored by sign."""
    reach = max([0.02, *(abs(bound) for entry in rows for bound in (entry.low, entry.high))]) * 1.1
    shown = [
        replace(entry, kind="first" if entry.low > 0 else "second" if entry.high < 0 else "gone") for entry in rows
    ]
    return Dots(shown, (-reach, reach), signed=True)


@dataclass(frozen=True)
class Series:
    """A named line; `kind` is its CSS class."""

    name: str
    xs: Sequence[float] | np.ndarray
    ys: Sequence[float] | np.ndarray
    kind: str


class Point(NamedTuple):
    """A point with a tooltip; `kind` is its CSS class."""

    x: float
    y: float
    tip: str
    radius: float = 6
    kind: str = "fill-second"


def square(
    series: Sequence[Series],
    axes: tuple[str, str],
    alternative: str,
    *,
    points: Sequence[Point] = (),
    diagonal: bool = False,
    low: float = 0.0,
    size: int = 340,
) -> Markup:
    """Draw curves and points in the unit square, such as an ROC curve. The x axis starts at `low`."""
    frame = Frame(44, 30, size - 58, size - 58, (low, 1), (0, 1))
    parts = [*frame.y_axis(ticks(0, 1)), *frame.x_axis(ticks(low, 1), axes[0]), text(0, 14, axes[1], "tick")]
    if diagonal:
        parts.append(line(frame.x(low), frame.y(low), frame.x(1), frame.y(1), "chance"))
    parts += [path(frame.points(entry.xs, entry.ys), f"curve {entry.kind}") for entry in series]
    parts += [dot(frame.x(each.x), frame.y(each.y), each.radius, f"{each.kind} ring", each.tip) for each in points]
    return figure(size, frame.bottom + 44, alternative, *parts)


def ranking(distances: Sequence[float], cut: int, alternative: str, width: int) -> Markup:
    """Plot ascending distances from a reference, with a line after the first `cut` images, which were removed."""
    top = max([*distances, 1.0])
    frame = Frame(58, 16, width - 74, 150, (0.5, len(distances) + 0.5), (0, top * 1.05))
    parts = [*frame.y_axis(ticks(0, top * 1.05, 4))]
    parts += frame.x_axis(_whole_ticks(len(distances), 8 if width > 500 else 4), "rank by distance from the reference")
    if 0 < cut < len(distances):
        parts.append(frame.vertical(cut + 0.5, "mark"))
    radius = 3.6 if len(distances) <= 80 else 2.2
    for place, distance in enumerate(distances, start=1):
        kind = "fill-second" if place <= cut else "hollow"
        parts.append(dot(frame.x(place), frame.y(distance), radius, kind, f"rank {place}: {number(distance, 1)}"))
    return figure(width, frame.bottom + 42, alternative, *parts)


def _whole_ticks(count: float, marks: int) -> list[float]:
    return sorted({1.0, *(value for value in ticks(1, count, marks) if value == int(value))})


@dataclass(frozen=True)
class Panel:
    """A plot of one quantity by epoch. Its y axis starts at `floor`, if given."""

    title: str
    series: Sequence[Series]
    floor: float | None = None

    @property
    def y_range(self) -> tuple[float, float]:
        values = [value for entry in self.series for value in entry.ys if math.isfinite(value)] or [0.0, 1.0]
        low = min(values) if self.floor is None else self.floor
        high = max(values)
        pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
        return (low - pad if self.floor is None else low, high + pad)


def curves(panels: Sequence[Panel], marks: Sequence[tuple[float, str, str]], alternative: str, width: int) -> Markup:
    """Draw `panels` above a shared epoch axis, with a vertical line at each mark: epoch, CSS class and name."""
    last = max(x for panel in panels for entry in panel.series for x in entry.xs)
    x_range = (0.5, 1.5) if last <= 1 else (1.0, float(last))
    parts: list[Markup] = []
    for place, panel in enumerate(panels):
        frame = Frame(58, 34 + 190 * place, width - 74, 150, x_range, panel.y_range)
        parts += [*frame.y_axis(ticks(*frame.y_range)), text(0, frame.top - 9, panel.title, "label")]
        parts += [frame.vertical(epoch, f"mark {kind}") for epoch, kind, _ in marks]
        for entry in panel.series:
            points = frame.points(entry.xs, entry.ys)
            if len(points) == 1:  # a single epoch is a point, not a line
                tip = f"{entry.name} {number(entry.ys[0])}"
                parts.append(dot(*points[0], 4, entry.kind.replace("stroke", "fill"), tip))
            else:
                parts.append(path(points, f"curve {entry.kind}"))
    parts += frame.x_axis(_whole_ticks(last, 10 if width > 500 else 5), "epoch")
    return figure(width, frame.bottom + 42, alternative, *parts)


def lr_range(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], base: float, top: float
) -> Markup:
    """Plot raw and smoothed loss against the learning rate (log scale), and mark the proposed base and max."""
    bottom, height = min(smoothed), max(smoothed)
    margin = 0.1 * (height - bottom)
    low, high = math.log10(rates[0]), math.log10(rates[-1])
    frame = Frame(64, 56, 632, 300, (low, high), (max(0.0, bottom - margin), height + margin))
    xs = [math.log10(rate) for rate in rates]
    title = f"Loss against learning rate over {len(rates)} updates (solid: smoothed; dotted: raw)"
    parts = [text(0, 14, title, "label"), *frame.y_axis(ticks(*frame.y_range)), *frame.x_axis([], "learning rate")]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        parts.append(frame.vertical(exponent, "grid"))
        parts.append(text(frame.x(exponent), frame.bottom + 18, f"1e{exponent}", "tick", "middle"))
    for series, kind in ((losses, "stroke-muted dotted"), (smoothed, "stroke-first")):
        within = [min(max(loss, frame.y_range[0]), frame.y_range[1]) for loss in series]
        parts.append(path(frame.points(xs, within), f"curve {kind}"))
    for name, rate in (("base", base), ("max", top)):
        parts.append(frame.vertical(math.log10(rate), "mark"))
        parts.append(text(frame.x(math.log10(rate)), 44, f"{name} {rate:.1e}", "count", "middle"))
    return figure(720, 400, f"{title}. Proposed: base {base:.1e}, max {top:.1e}.", *parts)
