"""Building blocks of figures: SVG elements, axis ticks, a plotting area with axes, and number formats."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

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
