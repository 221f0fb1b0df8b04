"""SVG figures: bars, dots with intervals, unit squares, confusion matrices and curves by epoch."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from leaf.report.svg import LETTER, Frame, dot, figure, label, line, number, path, rect, tag, text, ticks, wrapped


@dataclass(frozen=True)
class Interval:
    """A score with its interval (none if `low` and `high` are None); `kind` is its CSS class."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "first"

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval, or the value twice."""
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        span = "" if self.low is None else f", {percent(self.bounds[0])} to {percent(self.bounds[1])}"
        return f"{self.name}: {percent(self.value)}{span}"


@dataclass(frozen=True)
class Series:
    """A named line; `kind` is its CSS class."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: str


QUARTERS = (0, 0.25, 0.5, 0.75, 1)


def percent(value: float) -> str:
    """Format a fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def balance(rows: Sequence[tuple[str, Sequence[int]]], alternative: str, width: int) -> Markup:
    """Draw one bar per row, split into two classes, with each count at its end."""
    wide = width > 500
    left = 210 if wide else 0
    height_row = 34 if wide else 52
    span = width - left - 112
    parts: list[Markup] = []
    for place, (name, (first, second)) in enumerate(rows):
        top = place * height_row
        y = top + (6 if wide else 22)
        parts.append(text(0, y + 13 if wide else top + 14, name, "label"))
        x = left + 52
        share = first / max(first + second, 1)
        parts += [
            text(x - 8, y + 13, f"{first:,}", "count first", anchor="end"),
            rect(x, y, span * share - 1, 18, "fill-first", f"{name}: {first:,}"),
            rect(x + span * share + 1, y, span * (1 - share) - 1, 18, "fill-second", f"{name}: {second:,}"),
            text(x + span + 8, y + 13, f"{second:,}", "count second"),
            line(x + span / 2, y - 3, x + span / 2, y + 21, "half"),
        ]
    return figure(width, len(rows) * height_row + 2, alternative, *parts)


def class_bars(
    classes: Sequence[str], before: Sequence[int], after: Sequence[int], alternative: str, width: int
) -> Markup:
    """Draw one row per class: a bar for all its images and a thin bar for its training images."""
    wide = width > 500
    left, row = (280, 30) if wide else (0, 46)
    span = (width - left - 110) / max(*before, *after, 1)
    parts: list[Markup] = []
    for place, (name, came, learned) in enumerate(zip(classes, before, after, strict=True)):
        y = place * row + (4 if wide else 20)
        parts += [
            *label(0, y + 8 if wide else y - 6, name, left - 10 if wide else width - 10, middle=wide),
            rect(left, y, span * came, 10, "fill-first", f"{name}: {came:,} read"),
            rect(left, y + 11, span * learned, 4, "fill-second", f"{name}: {learned:,} in train"),
            text(left + span * max(came, learned) + 8, y + 12, f"{came:,} · {learned:,}", "count"),
        ]
    return figure(width, len(classes) * row + 4, alternative, *parts)


def intervals(rows: Sequence[Interval], alternative: str, width: int, least: float = 1.0) -> Markup:
    """Draw a dot for each score and a line for its interval on a shared percentage axis."""
    low = max(0.0, min([*(entry.bounds[0] for entry in rows), least]) - 0.03)
    return _dots(rows, alternative, width, (low, 1.0))


def differences(rows: Sequence[Interval], alternative: str, width: int) -> Markup:
    """Draw accuracy differences in percentage points, with their intervals, on a shared axis with zero marked."""
    reach = max([0.02, *(abs(bound) for entry in rows for bound in entry.bounds)]) * 1.1
    kinds = ["first" if entry.bounds[0] > 0 else "second" if entry.bounds[1] < 0 else "gone" for entry in rows]
    shown = [replace(entry, kind=kind) for entry, kind in zip(rows, kinds, strict=True)]
    return _dots(shown, alternative, width, (-reach, reach))


def _dots(rows: Sequence[Interval], alternative: str, width: int, x_range: tuple[float, float]) -> Markup:
    """Draw values with their intervals, as percentages or, if the axis starts below 0, as differences in points."""
    wide, signed = width > 500, x_range[0] < 0
    room, gap, right = (330, 20, 76) if signed else (250, 10, 70)
    left, row = (room, 34) if wide else (12, 54)
    frame = Frame(left, 6, width - left - right, row * len(rows), x_range, (0, 1))
    bottom = frame.top + frame.height
    parts: list[Markup] = []
    for value in ticks(*x_range, 6 if wide else 4):
        x, words = frame.x(value), f"{100 * value:+.3g}" if signed and value else f"{100 * value:.4g}"
        parts.append(line(x, frame.top, x, bottom, "axis strong" if signed and not value else "grid"))
        parts.append(text(x, bottom + 18, words + ("" if signed else "%"), "tick", anchor="middle"))
    for place, entry in enumerate(rows):
        y = frame.top + row * (place + 0.5) + (0 if wide else 10)
        parts += label(0, y if wide else y - 14, entry.name, left - gap if wide else width, middle=wide)
        words, low, high = (f"{100 * x:+.1f}" if signed else percent(x) for x in (entry.value, *entry.bounds))
        tip = f"{entry.name}: {words}"
        if entry.low is not None:
            tip += f" ({low} to {high})"
            start, end = (frame.x(bound) for bound in entry.bounds)
            parts.append(line(start, y, end, y, f"whisker stroke-{entry.kind}"))
        parts.append(dot(frame.x(entry.value), y, 5.5, f"fill-{entry.kind}", tip))
        parts.append(text(width, y + 5, words, "count", anchor="end"))
    return figure(width, bottom + 26, alternative, *parts)


def _unit_frame(size: int, low: float = 0.0) -> Frame:
    return Frame(44, 30, size - 58, size - 58, (low, 1), (0, 1))


def square(
    series: Sequence[Series],
    axes: tuple[str, str],
    alternative: str,
    chance: bool = False,
    point: tuple[float, float] | None = None,
    size: int = 340,
) -> Markup:
    """Draw lines in the unit square, such as an ROC curve, with `point` marked; `chance` draws the diagonal."""
    frame = _unit_frame(size)
    parts = [*frame.y_axis(QUARTERS), *frame.x_axis(QUARTERS, axes[0]), text(0, 14, axes[1], "tick")]
    if chance:
        parts.append(line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "chance"))
    parts += [path(frame.points(entry.xs, entry.ys), f"curve {entry.kind}") for entry in series]
    if point is not None:
        parts.append(dot(frame.x(point[0]), frame.y(point[1]), 6, "fill-second ring", "at the threshold"))
    return figure(size, frame.top + frame.height + 44, alternative, *parts)


def reliability(bins: Sequence[dict[str, float]], alternative: str, size: int = 340) -> Markup:
    """Draw accuracy against confidence; a calibrated network lies on the diagonal."""
    low = 0.5 if all(entry["confidence"] >= 0.5 for entry in bins) else 0.0
    frame = _unit_frame(size, low)
    parts = [*frame.y_axis(QUARTERS), *frame.x_axis(ticks(low, 1, 5), "confidence"), text(0, 14, "accuracy", "tick")]
    parts.append(line(frame.x(low), frame.y(low), frame.x(1), frame.y(1), "chance"))
    most = max(entry["images"] for entry in bins)
    for entry in bins:
        x, y = frame.x(entry["confidence"]), frame.y(entry["accuracy"])
        tip = f"{entry['images']:,.0f} images with {percent(entry['confidence'])} confidence on average, "
        tip += f"{percent(entry['accuracy'])} correct"
        parts.append(line(x, frame.y(entry["confidence"]), x, y, "gap"))
        parts.append(dot(x, y, 3 + 8 * (entry["images"] / most) ** 0.5, "fill-first ring", tip))
    return figure(size, frame.top + frame.height + 44, alternative, *parts)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], alternative: str, size: int = 340) -> Markup:
    """Draw a 2 × 2 confusion matrix: one row per true class, with cells shaded by their share of the row."""
    cell, tall = (size - 6) / 2, 118.0
    titles = [wrapped(f"{sum(row):,} {name}", size - 10) for row, name in zip(matrix, classes, strict=True)]
    parts: list[Markup] = []
    y = 8.0
    for row, counts in enumerate(matrix):
        parts += [text(0, y + 15 * (place + 1) - 1, words, "label") for place, words in enumerate(titles[row])]
        y += 15 * len(titles[row]) + 6
        for column, count in enumerate(counts):
            share, x = count / max(sum(counts), 1), column * (cell + 6)
            kind = f"cell fill-{('second', 'first')[row == column]}"
            box = {"x": x, "y": y, "width": cell, "height": tall, "rx": 4, "class_": kind}
            parts.append(tag("rect", **box, fill_opacity=round(0.07 + 0.2 * share, 3)))
            parts.append(text(x + 14, y + 42, f"{count:,}", "big"))
            parts.append(text(x + cell - 14, y + 42, percent(share), "note", anchor="end"))
            lines = ["predicted as", *wrapped(classes[column], cell - 28)]
            parts += [text(x + 14, y + 70 + 16 * place, words, "note") for place, words in enumerate(lines)]
        y += tall + 14
    return figure(size, y - 10, alternative, *parts)


def confusion_grid(matrix: Sequence[Sequence[int]], classes: Sequence[str], alternative: str, width: int) -> Markup:
    """Draw the confusion matrix of more than two classes: one row per true class, shaded by share of the row.

    Columns are numbered like the rows. Names that do not fit beside the grid are listed below it.
    """
    names = [f"{row + 1} {name}" for row, name in enumerate(classes)]
    longest = 1.17 * LETTER * max(map(len, names)) + 8
    listed = width <= 500 or longest > 300
    left = 26.0 if listed else longest
    cell = min((width - left - 4) / len(classes), 46.0)
    parts: list[Markup] = []
    for row, counts in enumerate(matrix):
        y = 20 + row * cell
        if cell >= 14 or row % 2 == 0:
            words = str(row + 1) if listed else names[row]
            parts.append(text(left - 8, y + cell / 2 + 4, words, "tick", anchor="end"))
        if cell >= 16 or row % 2 == 0:
            parts.append(text(left + (row + 0.5) * cell, 14, str(row + 1), "tick", anchor="middle"))
        for column, count in enumerate(counts):
            share = count / max(sum(counts), 1)
            x, kind = left + column * cell, f"cell fill-{('second', 'first')[row == column]}"
            tip = tag("title", f"{count:,} of {sum(counts):,} {classes[row]}: predicted as {classes[column]}")
            box = {"x": x, "y": y, "width": cell - 1, "height": cell - 1, "class_": kind}
            strength = 0.03 if not count else round(0.1 + 0.45 * share, 3)
            parts.append(tag("rect", tip, **box, fill_opacity=strength))
            if count and cell >= 7 * len(str(count)) + 4:
                parts.append(text(x + cell / 2, y + cell / 2 + 4, str(count), "on", anchor="middle"))
    below = 24 + len(classes) * cell
    for words in itertools.chain.from_iterable(wrapped(name, width) for name in names if listed):
        below += 17
        parts.append(text(0, below, words, "tick"))
    return figure(width, below + 4, alternative, *parts)


def ruler(rows: Sequence[Interval], alternative: str, width: int) -> Markup:
    """Draw scores on one axis that ends at 100%: the first above the axis with its interval, the others below.

    Labels below the axis end at their leader line and move down toward the right, so that no leader crosses a label.
    """
    least = min(min(entry.value, entry.bounds[0]) for entry in rows)
    frame = Frame(8, 0, width - 16, 0, (max(0.0, math.floor(least * 20) / 20 - 0.05), 1.0), (0, 1))
    y, main = 40.0, rows[0]
    parts = [line(0, y, width, y, "axis strong")]
    parts += [text(0, y + 22, f"{100 * frame.x_range[0]:.0f}%", "tick"), text(width, y + 22, "100%", "tick", "end")]
    if main.low is not None and main.high is not None:
        parts.append(rect(frame.x(main.low), y - 5, frame.x(main.high) - frame.x(main.low), 10, "span", radius=5))
    ends = [(0, 40.0), (0, float(width))]  # (row, right end) of the labels so far
    for entry in sorted(rows[1:], key=lambda entry: entry.value):
        x, words = frame.x(entry.value), f"{percent(entry.value)} {entry.name.lower()}"
        long = len(words) * LETTER
        right = max(x - 5, long)
        row = next(
            n for n in range(len(rows) + 1) if all(n != m or right < end - 40 or right - long > end for m, end in ends)
        )
        ends.append((row, right))
        parts.append(line(x, y + 7, x, y + 28 + 18 * row, "axis"))
        parts.append(text(right, y + 27 + 18 * row, words, "tick halo", anchor="end"))
        parts.append(dot(x, y, 5, f"fill-{entry.kind} ring", words))
    words = f"{percent(main.value)} {main.name.lower()}"
    half = len(words) * LETTER / 2 + 8
    parts.append(dot(frame.x(main.value), y, 7, f"fill-{main.kind} ring", words))
    parts.append(text(min(max(frame.x(main.value), half), width - half), y - 17, words, "label", anchor="middle"))
    return figure(width, y + 34 + 18 * max(row for row, _ in ends), alternative, *parts)


def ranking(
    distances: Sequence[float], cut: int, jump: tuple[float, float] | None, alternative: str, width: int
) -> Markup:
    """Draw ascending distances to a reference and mark the jump after the first `cut`, which were removed."""
    top = max([*distances, 1.0])
    frame = Frame(58, 16, width - 74, 150, (0.5, len(distances) + 0.5), (0, top * 1.05))
    parts = [*frame.y_axis(ticks(0, top * 1.05, 4))]
    parts += frame.x_axis(_whole_ticks(len(distances), 8 if width > 500 else 4), "rank by distance to the reference")
    if jump is not None and 0 < cut < len(distances):
        x = frame.x(cut + 0.5)
        parts.append(line(x, frame.top, x, frame.top + frame.height, "mark"))
        words = f"jump from {number(jump[0], 0)} to {number(jump[1], 0)}"
        left = x + len(words) * LETTER + 12 < width
        y = frame.top + frame.height - 12 if jump[1] > 0.25 * top else frame.top + 12  # the side without dots
        parts.append(text(x + (8 if left else -8), y, words, "label halo", anchor="start" if left else "end"))
    radius = 3.6 if len(distances) <= 80 else 2.2
    for place, distance in enumerate(distances, start=1):
        gone = place <= cut
        tip = f"rank {place}: {number(distance, 1)}"
        parts.append(dot(frame.x(place), frame.y(distance), radius, "fill-second" if gone else "hollow", tip))
    return figure(width, frame.top + frame.height + 42, alternative, *parts)


def _whole_ticks(count: float, marks: int) -> list[float]:
    return sorted({1.0, *(value for value in ticks(1, count, marks) if value == int(value) and value >= 1)})


@dataclass(frozen=True)
class Panel:
    """One quantity by epoch; the axis starts at `floor`, if given."""

    title: str
    series: Sequence[Series]
    floor: float | None = None


@dataclass(frozen=True)
class Mark:
    """A named epoch."""

    epoch: float
    words: str
    kind: str


def curves(panels: Sequence[Panel], marks: Sequence[Mark], alternative: str, width: int, tall: int = 150) -> Markup:
    """Draw `panels` on a shared epoch axis, with `marks` through all of them."""
    last = max([x for panel in panels for entry in panel.series for x in entry.xs], default=1)
    x_range = (0.5, 1.5) if last <= 1 else (1.0, float(last))
    parts: list[Markup] = []
    top = 34.0 + 16 * len(marks)
    frame = Frame(58, top, width - 74, tall, x_range, (0, 1))
    for panel in panels:
        frame = Frame(58, top, width - 74, tall, x_range, _panel_range(panel))
        parts += [*frame.y_axis(ticks(*frame.y_range, count=5)), text(0, top - 9, panel.title, "label")]
        parts.append(line(frame.left, top + tall, frame.left + frame.width, top + tall, "axis"))
        for mark in marks:
            parts.append(line(frame.x(mark.epoch), top, frame.x(mark.epoch), top + tall, f"mark {mark.kind}"))
        for entry in panel.series:
            points = frame.points(entry.xs, entry.ys)
            if len(points) == 1:  # draw a single epoch as a point, not a line
                tip = f"{entry.name}: {number(entry.ys[0])}"
                parts.append(dot(*points[0], 4, entry.kind.replace("stroke", "fill"), tip))
            else:
                parts.append(path(points, f"curve {entry.kind}"))
        top += tall + 40
    parts += frame.x_axis(_whole_ticks(last, 10 if width > 500 else 5), "epoch")
    parts += _epoch_words(marks, frame, panels[0].title if panels else "", width)
    return figure(width, top + 2, alternative, *parts)


def _panel_range(panel: Panel) -> tuple[float, float]:
    values = [value for entry in panel.series for value in entry.ys if math.isfinite(value)] or [0.0, 1.0]
    low = min(values) if panel.floor is None else panel.floor
    high = max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low - pad if panel.floor is None else low, high + pad)


def _epoch_words(marks: Sequence[Mark], frame: Frame, title: str, width: int) -> list[Markup]:
    """Return the labels of the marks, each in its own row above the panels, ordered so that no line crosses a label.

    A line leads from each label down to the first panel and stops above its title.
    """
    parts: list[Markup] = []
    end, foot = float(width), 34.0 + 16 * len(marks)
    for place, mark in enumerate(sorted(marks, key=lambda mark: -mark.epoch)):
        x, y = frame.x(mark.epoch), 12.0 + 16 * place
        fits = x + 12 + len(mark.words) * LETTER < end
        under = foot - 24 if x < len(title) * 1.3 * LETTER else foot
        parts.append(line(x, y - 9, x, under, f"mark {mark.kind}"))
        parts.append(text(x + (6 if fits else -6), y, mark.words, "tick halo", anchor="start" if fits else "end"))
        end = x
    return parts


def lr_range(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], base: float, top: float
) -> Markup:
    """Draw loss against learning rate (logarithmic), raw and smoothed, with the proposed base and max marked."""
    bottom, height = min(smoothed), max(smoothed)
    margin = 0.1 * (height - bottom)
    low, high = math.log10(rates[0]), math.log10(rates[-1])
    frame = Frame(64, 56, 632, 300, (low, high), (max(0.0, bottom - margin), height + margin))
    xs = [math.log10(rate) for rate in rates]
    title = f"Loss against learning rate, {len(rates)} updates (dotted: each update)"
    parts = [text(0, 14, title, "label"), *frame.y_axis(ticks(*frame.y_range)), *frame.x_axis([], "learning rate")]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        parts.append(line(frame.x(exponent), 56, frame.x(exponent), 356, "grid"))
        parts.append(text(frame.x(exponent), 374, f"1e{exponent}", "tick", "middle"))
    for series, kind in ((losses, "stroke-muted dotted"), (smoothed, "stroke-first")):
        within = [min(max(loss, frame.y_range[0]), frame.y_range[1]) for loss in series]
        parts.append(path(frame.points(xs, within), f"curve {kind}"))
    for name, rate in (("base", base), ("max", top)):
        x = frame.x(math.log10(rate))
        parts.append(line(x, 50, x, 356, "mark"))
        parts.append(text(x, 44, f"{name} {rate:.1e}", "count", "middle"))
    return figure(720, 400, f"{title}. Proposed: base {base:.1e}, max {top:.1e}.", *parts)
