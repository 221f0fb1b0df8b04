"""The training figure: accuracy, loss and learning rate above one another on one axis of epochs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from leaf.report.charts import Series
from leaf.report.svg import LETTER, Frame, dot, figure, line, number, path, text, ticks


@dataclass(frozen=True)
class Panel:
    """One quantity: its lines over the epochs, `named` in a key or not; its axis starts at `floor` where given."""

    title: str
    series: Sequence[Series]
    floor: float | None = None
    named: bool = True


@dataclass(frozen=True)
class Mark:
    """A named epoch."""

    epoch: float
    words: str
    kind: str


def curves(panels: Sequence[Panel], marks: Sequence[Mark], alternative: str, width: int, tall: int = 150) -> Markup:
    """Draw `panels` on one axis of epochs with `marks` through all of them."""
    last = max([x for panel in panels for entry in panel.series for x in entry.xs], default=1)
    x_range = (0.5, 1.5) if last <= 1 else (1.0, float(last))
    parts: list[Markup] = []
    top = 34.0 + 16 * len(marks)
    frame = Frame(58, top, width - 74, tall, x_range, (0, 1))
    for panel in panels:
        frame = Frame(58, top, width - 74, tall, x_range, _range(panel))
        parts += [*frame.y_axis(ticks(*frame.y_range, count=5)), text(0, top - 9, panel.title, "label")]
        parts.append(line(frame.left, top + tall, frame.left + frame.width, top + tall, "axis"))
        parts += _names(panel, width, top - 9)
        for entry in panel.series:
            parts += _line(entry, frame)
        top += tall + 40
    bottom = top - 40
    epochs = [value for value in ticks(*x_range, count=10 if width > 500 else 5) if value == int(value)]
    shown = sorted({1.0, *epochs}) if last > 1 else [1.0]
    parts += frame.x_axis(shown, "epoch")
    parts += _marks(marks, frame, bottom, width)
    return figure(width, bottom + 42, alternative, *parts)


def _range(panel: Panel) -> tuple[float, float]:
    values = [value for entry in panel.series for value in entry.ys if math.isfinite(value)] or [0.0, 1.0]
    low = min(values) if panel.floor is None else panel.floor
    high = max(values)
    pad = (high - low) * 0.08 or abs(high) * 0.1 or 1.0
    return (low - pad if panel.floor is None else low, high + pad)


def _line(entry: Series, frame: Frame) -> list[Markup]:
    points = frame.points(entry.xs, entry.ys)
    if len(points) == 1:  # one epoch is a point, not a line
        return [dot(*points[0], 4, entry.kind.replace("stroke", "fill"), f"{entry.name}: {number(entry.ys[0])}")]
    return [path(points, f"curve {entry.kind}")]


def _names(panel: Panel, width: int, y: float) -> list[Markup]:
    """The key of a panel's lines, right-aligned above it."""
    if len(panel.series) < 2 or not panel.named:
        return []
    parts, x = [], float(width - 16)
    for entry in reversed(panel.series):
        x -= len(entry.name) * LETTER
        parts.append(text(x, y, entry.name, "tick"))
        parts.append(line(x - 30, y - 4, x - 6, y - 4, f"curve {entry.kind}"))
        x -= 46
    return parts


def _marks(marks: Sequence[Mark], frame: Frame, bottom: float, width: int) -> list[Markup]:
    """Lines through all panels; the words stand in rows of their own, so that near epochs stay readable."""
    parts: list[Markup] = []
    for place, mark in enumerate(marks):
        x, y = frame.x(mark.epoch), 12.0 + 16 * place
        fits = x + 6 + len(mark.words) * LETTER < width
        parts.append(line(x, y - 9, x, bottom, f"mark {mark.kind}"))
        parts.append(text(x + (6 if fits else -6), y, mark.words, "tick halo", anchor="start" if fits else "end"))
    return parts
