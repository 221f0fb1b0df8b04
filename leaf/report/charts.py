"""The figures of counts and scores: bars, dots with intervals, unit squares, the confusion matrix."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from leaf.report.svg import LETTER, WIDE, Frame, dot, figure, line, number, path, rect, tag, text, ticks


@dataclass(frozen=True)
class Interval:
    """A score with its interval; without one where `low` and `high` are None."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    kind: str = "ink"


@dataclass(frozen=True)
class Series:
    """A named line; `kind` is its CSS class."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    kind: str


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def balance(rows: Sequence[tuple[str, tuple[int, int]]], alternative: str, width: int) -> Markup:
    """One bar a row, parted into the two classes, with the count of each at its end."""
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


def intervals(rows: Sequence[Interval], alternative: str, width: int, least: float | None = None) -> Markup:
    """A dot for each score and a line for its interval, on one axis of percentages."""
    wide = width > 500
    left, row = (250, 34) if wide else (12, 54)
    lows = [entry.low if entry.low is not None else entry.value for entry in rows]
    low = max(0.0, min([*lows, least if least is not None else 1.0]) - 0.03)
    frame = Frame(left, 6, width - left - 70, row * len(rows), (low, 1.0), (0, 1))
    bottom = frame.top + frame.height
    parts: list[Markup] = []
    for value in ticks(low, 1.0, 6 if wide else 4):
        parts.append(line(frame.x(value), frame.top, frame.x(value), bottom, "grid"))
        parts.append(text(frame.x(value), bottom + 18, f"{100 * value:.4g}%", "tick", anchor="middle"))
    for place, entry in enumerate(rows):
        y = frame.top + row * (place + 0.5) + (0 if wide else 10)
        parts.append(text(0, y + 4 if wide else y - 14, _fit(entry.name, left - 10 if wide else width), "label halo"))
        tip = f"{entry.name}: {percent(entry.value)}"
        if entry.low is not None and entry.high is not None:
            tip += f" ({percent(entry.low)} to {percent(entry.high)})"
            parts.append(line(frame.x(entry.low), y, frame.x(entry.high), y, f"whisker stroke-{entry.kind}"))
        parts.append(dot(frame.x(entry.value), y, 5.5, f"fill-{entry.kind}", tip))
        parts.append(text(width, y + 5, percent(entry.value), "count", anchor="end"))
    return figure(width, bottom + 26, alternative, *parts)


def differences(rows: Sequence[Interval], alternative: str, width: int) -> Markup:
    """Differences in points of accuracy with their intervals, on one axis with zero marked."""
    wide = width > 500
    left, row = (330, 34) if wide else (12, 54)
    reach = max([0.02, *(abs(bound) for entry in rows for bound in (entry.low, entry.high) if bound is not None)]) * 1.1
    frame = Frame(left, 6, width - left - 76, row * len(rows), (-reach, reach), (0, 1))
    bottom = frame.top + frame.height
    parts: list[Markup] = []
    for value in ticks(-reach, reach, 6 if wide else 4):
        x = frame.x(value)
        parts.append(line(x, frame.top, x, bottom, "axis strong" if value == 0 else "grid"))
        parts.append(text(x, bottom + 18, f"{100 * value:+.3g}" if value else "0", "tick", anchor="middle"))
    for place, entry in enumerate(rows):
        y = frame.top + row * (place + 0.5) + (0 if wide else 10)
        low, high = entry.low if entry.low is not None else entry.value, entry.high or entry.value
        kind = "first" if low > 0 else "second" if high < 0 else "gone"
        parts.append(text(0, y + 4 if wide else y - 14, _fit(entry.name, left - 20 if wide else width), "label halo"))
        parts.append(line(frame.x(low), y, frame.x(high), y, f"whisker stroke-{kind}"))
        parts.append(dot(frame.x(entry.value), y, 5.5, f"fill-{kind}", f"{100 * entry.value:+.1f} points"))
        parts.append(text(width, y + 5, f"{100 * entry.value:+.1f}", "count", anchor="end"))
    return figure(width, bottom + 26, alternative, *parts)


def square(
    series: Sequence[Series],
    axes: tuple[str, str],
    alternative: str,
    chance: bool = False,
    point: tuple[float, float] | None = None,
    size: int = 340,
) -> Markup:
    """Lines in the unit square, such as an ROC, with `point` marked; `chance` draws the diagonal of pure chance."""
    frame = Frame(44, 30, size - 58, size - 58, (0, 1), (0, 1))
    marks = [0, 0.25, 0.5, 0.75, 1]
    parts = [*frame.y_axis(marks), *frame.x_axis(marks, axes[0]), text(0, 14, axes[1], "tick")]
    if chance:
        parts.append(line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "chance"))
    parts += [path(frame.points(entry.xs, entry.ys), f"curve {entry.kind}") for entry in series]
    if point is not None:
        parts.append(dot(frame.x(point[0]), frame.y(point[1]), 6, "fill-second ring", "at the threshold"))
    return figure(size, frame.top + frame.height + 44, alternative, *parts)


def reliability(bins: Sequence[dict[str, float]], alternative: str, size: int = 340) -> Markup:
    """Share right against the confidence given: on the diagonal the network means what it says."""
    low = 0.5 if all(entry["confidence"] >= 0.5 for entry in bins) else 0.0
    frame = Frame(44, 30, size - 58, size - 58, (low, 1), (0, 1))
    parts = [
        *frame.y_axis([0, 0.25, 0.5, 0.75, 1]),
        *frame.x_axis(ticks(low, 1, 5), "confidence"),
        text(0, 14, "share right", "tick"),
        line(frame.x(low), frame.y(low), frame.x(1), frame.y(1), "chance"),
    ]
    most = max([entry["images"] for entry in bins], default=1)
    for entry in bins:
        x, y = frame.x(entry["confidence"]), frame.y(entry["accuracy"])
        radius = 3 + 8 * (entry["images"] / most) ** 0.5
        parts.append(line(x, frame.y(entry["confidence"]), x, y, "gap"))
        parts.append(
            dot(
                x,
                y,
                radius,
                "fill-first ring",
                f"{entry['images']:,.0f} images with {percent(entry['confidence'])} confidence on average, "
                f"{percent(entry['accuracy'])} right",
            )
        )
    return figure(size, frame.top + frame.height + 44, alternative, *parts)


def confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], alternative: str, size: int = 340) -> Markup:
    """Two by two: a row for each true class, a cell for each answer, as strong as its share of the row."""
    cell, tall = (size - 6) / 2, 118.0
    names = [_fit(name, cell - 60) for name in classes]
    parts: list[Markup] = []
    for row in range(2):
        total = sum(matrix[row])
        y = 22 + row * (tall + 44)
        parts.append(text(0, y - 8, f"{total:,} {_fit(classes[row], size - 90)}", "label"))
        for column in range(2):
            count = matrix[row][column]
            share = count / total if total else 0.0
            x = column * (cell + 6)
            kind = f"cell fill-{('second', 'first')[row == column]}"
            box = {"x": x, "y": y, "width": cell, "height": tall, "rx": 4, "class_": kind}
            parts.append(tag("rect", **box, fill_opacity=round(0.07 + 0.2 * share, 3)))
            parts.append(text(x + 14, y + 46, f"{count:,}", "big"))
            parts.append(text(x + 14, y + 74, f"said {names[column]}", "note"))
            parts.append(text(x + 14, y + 94, percent(share), "note"))
    return figure(size, 22 + 2 * tall + 46, alternative, *parts)


def ruler(rows: Sequence[Interval], alternative: str, width: int) -> Markup:
    """Scores on one line from below the lowest to 100%: the first above it with its interval, the others below.

    The others' words end at their own leader and stand lower the further right, so that no leader crosses a word.
    """
    least = min(min(entry.value, entry.low if entry.low is not None else 1.0) for entry in rows)
    frame = Frame(8, 0, width - 16, 0, (max(0.0, math.floor(least * 20) / 20 - 0.05), 1.0), (0, 1))
    y, main = 40.0, rows[0]
    parts = [line(0, y, width, y, "axis strong")]
    parts += [text(0, y + 22, f"{100 * frame.x_range[0]:.0f}%", "tick"), text(width, y + 22, "100%", "tick", "end")]
    if main.low is not None and main.high is not None:
        parts.append(rect(frame.x(main.low), y - 5, frame.x(main.high) - frame.x(main.low), 10, "span", radius=5))
    ends = [(0, 40.0), (0, float(width))]  # (row, right end) of the words so far
    for entry in sorted(rows[1:], key=lambda entry: entry.value):
        x, words = frame.x(entry.value), f"{percent(entry.value)} {entry.note}"
        long = len(words) * LETTER
        right = max(x - 5, long)
        row = next(
            n for n in range(len(rows) + 1) if all(n != m or right < end - 40 or right - long > end for m, end in ends)
        )
        ends.append((row, right))
        parts.append(line(x, y + 7, x, y + 28 + 18 * row, "axis"))
        parts.append(text(right, y + 27 + 18 * row, words, "tick halo", anchor="end"))
        parts.append(dot(x, y, 5, f"fill-{entry.kind} ring", words))
    words = f"{percent(main.value)} {main.note}"
    half = len(words) * LETTER / 2 + 8
    parts.append(dot(frame.x(main.value), y, 7, f"fill-{main.kind} ring", words))
    parts.append(text(min(max(frame.x(main.value), half), width - half), y - 17, words, "label", anchor="middle"))
    return figure(width, y + 34 + 18 * max(row for row, _ in ends), alternative, *parts)


def ranking(
    distances: Sequence[float], cut: int, jump: tuple[float, float] | None, alternative: str, width: int
) -> Markup:
    """Distances to a reference in ascending order; the first `cut` left, and the jump after them is marked."""
    top = max([*distances, 1.0])
    frame = Frame(58, 16, width - 74, 150, (0.5, len(distances) + 0.5), (0, top * 1.05))
    parts = [*frame.y_axis(ticks(0, top * 1.05, 4))]
    parts += frame.x_axis(_ranks(len(distances), 8 if width > 500 else 4), "rank by distance to the reference")
    if jump is not None and 0 < cut < len(distances):
        x = frame.x(cut + 0.5)
        parts.append(line(x, frame.top, x, frame.top + frame.height, "mark"))
        words = f"jump from {number(jump[0], 0)} to {number(jump[1], 0)}"
        left = x + len(words) * LETTER + 12 < width
        y = frame.top + frame.height - 12 if jump[1] > 0.25 * top else frame.top + 12  # where no dot follows
        parts.append(text(x + (8 if left else -8), y, words, "label halo", anchor="start" if left else "end"))
    radius = 3.6 if len(distances) <= 80 else 2.2
    for place, distance in enumerate(distances, start=1):
        gone = place <= cut
        tip = f"rank {place}: {number(distance, 1)}"
        parts.append(dot(frame.x(place), frame.y(distance), radius, "fill-second" if gone else "hollow", tip))
    return figure(width, frame.top + frame.height + 42, alternative, *parts)


def _ranks(count: int, marks: int) -> list[float]:
    inner = [value for value in ticks(1, count, marks) if value == int(value) and value >= 1]
    return sorted({1.0, *inner})


def _fit(words: str, width: float) -> str:
    letters = max(int(width / (1.17 * LETTER)), 4)  # these stand a little larger and heavier
    return words if len(words) <= letters else words[: letters - 1] + "…"


Counts = tuple[int, int]

_BAR = 9
_LABEL = 34  # height that a node's two lines of text need
_GAP = 14


@dataclass(frozen=True)
class Node:
    """A state of the images: its name, the images of each class in it, and the column it stands in."""

    name: str
    counts: Counts
    column: int
    kind: str = ""  # "gone" for what left


@dataclass(frozen=True)
class Link:
    """So many images of each class go from one node to another, both given by their place in the list of nodes."""

    source: int
    target: int
    counts: Counts


def flow(nodes: Sequence[Node], links: Sequence[Link], alternative: str, width: int) -> Markup:
    """Draw `nodes` in columns and `links` between them, each parted into a band for each class."""
    columns = max(node.column for node in nodes) + 1
    room = 122 if width >= WIDE else 104  # for the labels right of the last column
    step = (width - room - _BAR) / max(columns - 1, 1)
    most = max(sum(sum(node.counts) for node in nodes if node.column == column) for column in range(columns))
    scale = (300 if width >= WIDE else 330) / max(most, 1)
    tops, height = _place(nodes, columns, scale, below=width < WIDE)
    parts = _links(nodes, links, tops, scale, step)
    for node, top in zip(nodes, tops, strict=True):
        parts += _node(node, top, scale, step)
    return figure(width, height, alternative, *parts, class_="flow")


def _thick(count: float, scale: float) -> float:
    """A count's thickness; the smallest that is not zero stays visible."""
    return max(count * scale, 1.5) if count else 0.0


def _size(node: Node, scale: float) -> float:
    return _thick(node.counts[0], scale) + _thick(node.counts[1], scale)


def _place(nodes: Sequence[Node], columns: int, scale: float, below: bool) -> tuple[list[float], float]:
    """Each node's top edge and the height of all; what left stands `below` everything where columns are narrow."""
    free = [4.0] * columns
    tops = [0.0] * len(nodes)
    for gone in (False, True):
        if gone and below:
            free = [max(free)] * columns
        for place, node in enumerate(nodes):
            if (node.kind == "gone") == gone:
                tops[place] = free[node.column]
                free[node.column] += max(_size(node, scale), _LABEL) + _GAP
    return tops, max(free) - _GAP + 4


def _links(
    nodes: Sequence[Node], links: Sequence[Link], tops: Sequence[float], scale: float, step: float
) -> list[Markup]:
    parts: list[Markup] = []
    left: defaultdict[tuple[int, int], float] = defaultdict(float)  # used height by (node, label), on its right side
    right: defaultdict[tuple[int, int], float] = defaultdict(float)
    for link in links:
        source, target = nodes[link.source], nodes[link.target]
        x1, x2 = source.column * step + _BAR, target.column * step
        for label, count in enumerate(link.counts):
            if not count:
                continue
            y1 = tops[link.source] + left[link.source, label] + label * _thick(source.counts[0], scale)
            y2 = tops[link.target] + right[link.target, label] + label * _thick(target.counts[0], scale)
            left[link.source, label] += count * scale
            right[link.target, label] += count * scale
            kind = "band-gone" if target.kind == "gone" else ("band-first", "band-second")[label]
            tip = tag("title", f"{source.name} to {target.name}: {count:,}")
            parts.append(tag("path", tip, d=_band(x1, y1, x2, y2, _thick(count, scale)), class_=kind))
    return parts


def _band(x1: float, y1: float, x2: float, y2: float, thick: float) -> str:
    middle = (x1 + x2) / 2
    there = f"M{x1:.1f} {y1:.1f}C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    y1, y2 = y1 + thick, y2 + thick
    return f"{there}V{y2:.1f}C{middle:.1f} {y2:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}Z"


def _node(node: Node, top: float, scale: float, step: float) -> list[Markup]:
    x = node.column * step
    first, second = (_thick(count, scale) for count in node.counts)
    classes = ("fill-gone", "fill-gone") if node.kind == "gone" else ("fill-first", "fill-second")
    middle = top + max((first + second) / 2, _LABEL / 2 - 2)
    return [
        rect(x, top, _BAR, first, classes[0], f"{node.name}: {node.counts[0]:,}"),
        rect(x, top + first, _BAR, second, classes[1], f"{node.name}: {node.counts[1]:,}"),
        text(x + _BAR + 7, middle - 3, node.name, "label halo"),
        text(x + _BAR + 7, middle + 14, f"{sum(node.counts):,}", "count halo"),
    ]
