"""A figure twice, for a wide column and for a phone, with its caption; the page shows the one that fits."""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from leaf.page.svg import NARROW, WIDE


@dataclass(frozen=True)
class Figure:
    """A drawing for a wide column, one for a narrow column (None where one serves both), and a caption."""

    wide: Markup
    narrow: Markup | None = None
    caption: str = ""


def both(draw: Callable[[int], Markup], caption: str = "") -> Figure:
    """Draw once for each width; `draw` takes it in CSS pixels."""
    return Figure(draw(WIDE), draw(NARROW), caption)


def plural(count: int, one: str, many: str = "") -> str:
    """`1 image`, `2,000 images`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def share_shown(shown: int, total: int, what: str) -> str:
    """`12 of 154 groups are shown`, or nothing where all are."""
    return f"{shown:,} of {total:,} {what} are shown." if shown < total else ""
