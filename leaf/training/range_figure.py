"""The learning-rate range test as an SVG drawing."""

import math
from collections.abc import Sequence

from leaf.training.range_test import RangeTest

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 44, 56  # margins, in pixels
INK, FAINT, LINE, MARK = "#1f2a24", "#c9d2cc", "#1b7a4b", "#b4530a"


def drawing(test: RangeTest) -> str:
    """Loss against learning rate (logarithmic), raw and smoothed, with the proposed base and max marked."""
    low, high = math.log10(test.rates[0]), math.log10(test.rates[-1])
    bottom, top = min(test.smoothed), max(test.smoothed)
    margin = 0.1 * (top - bottom)
    bottom, top = max(0.0, bottom - margin), top + margin

    def x(rate: float) -> float:
        return LEFT + (math.log10(rate) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(loss: float) -> float:
        return TOP + (top - min(max(loss, bottom), top)) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}" role="img">',
        f"<title>Learning-rate range test: base {test.base:.1e}, max {test.max:.1e}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20">Loss against learning rate, {len(test.rates)} updates (thin: each update)</text>',
    ]
    for exponent in range(math.ceil(low), math.floor(high) + 1):
        at = x(10.0**exponent)
        parts.append(_path([(at, TOP), (at, HEIGHT - BOTTOM)], FAINT, 1))
        parts.append(_text(at, HEIGHT - BOTTOM + 18, f"1e{exponent}"))
    for step in range(5):
        loss = bottom + (top - bottom) * step / 4
        parts.append(_path([(LEFT, y(loss)), (WIDTH - RIGHT, y(loss))], FAINT, 1))
        parts.append(_text(LEFT - 8, y(loss) + 4, f"{loss:.2f}", "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, "learning rate"))
    parts.append(_path([(x(r), y(v)) for r, v in zip(test.rates, test.losses, strict=True)], FAINT, 1.5))
    parts.append(_path([(x(r), y(v)) for r, v in zip(test.rates, test.smoothed, strict=True)], LINE, 2.5))
    for name, rate in (("base", test.base), ("max", test.max)):
        parts.append(_path([(x(rate), TOP), (x(rate), HEIGHT - BOTTOM)], MARK, 1.5))
        parts.append(_text(x(rate), TOP - 6, f"{name} {rate:.1e}"))
    return "\n".join([*parts, "</svg>", ""])


def _path(points: Sequence[tuple[float, float]], colour: str, width: float) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'
