"""Draw the Sankey diagram of the images at each pipeline step; compute the class balance at each step."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from leaf.errors import plural
from leaf.finished_run import Run
from leaf.report.charts import WIDE, both, figure, tag, text

REASONS = {
    "outlier": "Outliers",
    "duplicate": "Duplicates",
    "near_duplicate": "Near duplicates",
    "shared_split": "In another split",
    "conflict": "Conflicts",
    "override": "Removed manually",
}
SPLITS = ("train", "validation", "test")

_BAR = 9
_LABEL = 34  # height of a node's label, two lines of text
_GAP = 14


@dataclass(frozen=True)
class Node:
    """A node of the Sankey diagram. `counts` are the images of both classes or, with more classes, the total and 0."""

    name: str
    counts: tuple[int, int]
    column: int
    kind: str = ""  # CSS class; "gone" for removed images


@dataclass(frozen=True)
class Link:
    """A link of the Sankey diagram: two nodes, by list index, and the number of images of each class between them."""

    source: int
    target: int
    counts: tuple[int, int]


def section(run: Run) -> dict[str, Any]:
    """Return the Sankey diagram, the image counts of each class at each step, and the totals."""
    nodes, links = graph(run)
    kept, everything, made = len(run.kept()), len(run.index), len(run.synthetic)
    words = f"Flow of {plural(everything, 'image')}: {kept:,} kept, {everything - kept:,} removed; then "
    words += ", ".join(f"{name} {sum(counts):,}" for name, counts in split_counts(run).items())
    words += f"; {plural(made, 'synthetic image')} added to the training set." if made else "."
    return {
        "flow": both(lambda width: flow(nodes, links, words, width)),
        "steps": balance_rows(run),
        "kept": kept,
        "all": everything,
        "sizes_in": original_sizes(run),
    }


def original_sizes(run: Run) -> str:
    """Describe the original image sizes."""
    sides = run.index[["width", "height"]]
    counts = sides.value_counts()
    (width, height), most = counts.index[0], counts.iloc[0]
    subject = "All originals are" if most == len(sides) else "The most common size of the originals is"
    words = f"{subject} {width:,}\xa0×\xa0{height:,} pixels"
    if most < len(sides):
        words += f"; their sides range from {sides.to_numpy().min():,} to {sides.to_numpy().max():,}"
    return f"{words}. The network input is {run.images.shape[2]}\xa0×\xa0{run.images.shape[1]}."


def split_counts(run: Run) -> dict[str, list[int]]:
    """Return the number of images of each class in each non-empty split, ordered train, validation, test."""
    images = {name: run.splits.loc[run.splits["split"] == name, "image"] for name in SPLITS}
    labels = run.labels()
    return {name: _counts(labels[each], len(run.classes)) for name, each in images.items() if len(each)}


def graph(run: Run) -> tuple[list[Node], list[Link]]:
    """Return the nodes and links of the Sankey diagram."""
    table = run.decisions

    def bands(labels: "pd.Series[Any]") -> tuple[int, int]:
        return _bands(_counts(labels, len(run.classes)))

    nodes = [Node("All images", bands(table["label"]), 0)]
    links: list[Link] = []

    def grow(source: int, name: str, counts: tuple[int, int], column: int, kind: str = "") -> int:
        nodes.append(Node(name, counts, column, kind))
        links.append(Link(source, len(nodes) - 1, counts))
        return len(nodes) - 1

    kept = grow(0, "Kept", bands(table.loc[table["kept"] == 1, "label"]), 1)
    gone = table[table["kept"] != 1]
    found = set(gone["reason"])
    for reason in [each for each in REASONS if each in found] + sorted(found - REASONS.keys()):
        name = REASONS.get(reason, reason.replace("_", " ").capitalize() or "Removed")
        grow(0, name, bands(gone.loc[gone["reason"] == reason, "label"]), 1, "gone")
    places = {name: grow(kept, name.capitalize(), _bands(each), 2) for name, each in split_counts(run).items()}
    if len(run.synthetic):
        made, before = bands(run.synthetic["label"]), nodes[places["train"]].counts
        total = grow(places["train"], "Trained on", (before[0] + made[0], before[1] + made[1]), 3)
        links[-1] = Link(places["train"], total, before)
        nodes.append(Node("Synthetic", made, 2))
        links.append(Link(len(nodes) - 1, total, made))
    return nodes, links


def _bands(counts: Sequence[int]) -> tuple[int, int]:
    return (counts[0], counts[1]) if len(counts) == 2 else (sum(counts), 0)


def balance_rows(run: Run) -> list[tuple[str, list[int]]]:
    """Return each step that can change the class balance, with the number of images of each class after it."""
    labels, classes, splits = run.labels(), len(run.classes), split_counts(run)
    train = splits.pop("train")
    rows = [
        ("All images", _counts(run.index["label"], classes)),
        ("After cleaning", _counts(labels[run.kept()], classes)),
        ("Train", train),
    ]
    if len(run.synthetic):
        made = _counts(run.synthetic["label"], classes)
        rows.append(("Train, with synthetic images", [sum(each) for each in zip(train, made, strict=True)]))
    return rows + [(name.capitalize(), counts) for name, counts in splits.items()]


def _counts(labels: "pd.Series[Any]", classes: int) -> list[int]:
    return np.bincount(labels.astype(int), minlength=classes).tolist()


def flow(nodes: Sequence[Node], links: Sequence[Link], alternative: str, width: int) -> Markup:
    """Draw a Sankey diagram whose links have one band per class."""
    columns = max(node.column for node in nodes) + 1
    room = 122 if width >= WIDE else 104  # space for the labels of the last column
    step = (width - room - _BAR) / (columns - 1)
    most = max(sum(sum(node.counts) for node in nodes if node.column == column) for column in range(columns))
    scale = (300 if width >= WIDE else 330) / most
    tops, height = _place(nodes, columns, scale, below=width < WIDE)
    parts = _links(nodes, links, tops, scale, step)
    for node, top in zip(nodes, tops, strict=True):
        parts += _node(node, top, scale, step)
    return figure(width, height, alternative, *parts, class_="flow")


def _thick(count: float, scale: float) -> float:
    """Return the thickness of a band in pixels. Every nonzero count is visible."""
    return max(count * scale, 1.5) if count else 0.0


def _place(nodes: Sequence[Node], columns: int, scale: float, below: bool) -> tuple[list[float], float]:
    """Return each node's top edge and the total height. With `below`, removed images are placed below all columns."""
    free = [4.0] * columns
    tops = [0.0] * len(nodes)
    for gone in (False, True):
        if gone and below:
            free = [max(free)] * columns
        for place, node in enumerate(nodes):
            if (node.kind == "gone") == gone:
                tops[place] = free[node.column]
                free[node.column] += max(sum(_thick(count, scale) for count in node.counts), _LABEL) + _GAP
    return tops, max(free) - _GAP + 4


def _links(
    nodes: Sequence[Node], links: Sequence[Link], tops: Sequence[float], scale: float, step: float
) -> list[Markup]:
    parts: list[Markup] = []
    used: defaultdict[tuple[int, int, str], float] = defaultdict(float)  # height already used at (node, class, side)
    for link in links:
        source, target = nodes[link.source], nodes[link.target]
        x1, x2 = source.column * step + _BAR, target.column * step
        for label, count in enumerate(link.counts):
            if not count:
                continue
            ends = (link.source, label, "right"), (link.target, label, "left")
            y1, y2 = (tops[end[0]] + used[end] + label * _thick(nodes[end[0]].counts[0], scale) for end in ends)
            for end in ends:
                used[end] += count * scale
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
    x, bottom, parts = node.column * step, top, []
    for kind, count in zip(("first", "second"), node.counts, strict=True):
        box = {"x": x, "y": bottom, "width": _BAR, "height": _thick(count, scale)}
        parts.append(tag("rect", tag("title", f"{node.name}: {count:,}"), **box, class_=f"fill-{node.kind or kind}"))
        bottom += _thick(count, scale)
    middle = max((top + bottom) / 2, top + _LABEL / 2 - 2)
    words = text(x + _BAR + 7, middle - 3, node.name, "label halo")
    return [*parts, words, text(x + _BAR + 7, middle + 14, f"{sum(node.counts):,}", "count halo")]
