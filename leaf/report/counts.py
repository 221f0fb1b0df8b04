"""How many images went where: the flow, and the balance of the classes at each step."""

from typing import Any

import pandas as pd

from leaf.report.charts import Counts, Link, Node, balance, flow
from leaf.report.run import Run
from leaf.report.svg import both, plural

REASONS = {
    "outlier": "Outliers",
    "duplicate": "Duplicates",
    "near_duplicate": "Near-duplicates",
    "conflict": "Conflicts",
    "override": "Ruled out",
}
SPLITS = {"train": "Train", "validation": "Validation", "test": "Test"}


def section(run: Run) -> dict[str, Any]:
    """The flow figure, the balance figure and the table behind both."""
    nodes, links = graph(run)
    rows = balance_rows(run)
    first, second = run.classes
    kept, everything = len(run.kept()), len(run.index)
    sizes = [f"{SPLITS[name].lower()} {count:,}" for name, count in split_sizes(run).items()]
    told = f"Flow of {plural(everything, 'image')}: {kept:,} kept, {everything - kept:,} removed; then " + ", ".join(
        sizes
    )
    made = len(run.synthetic)
    if made:
        told += f"; {plural(made, 'synthetic image')} added to train"
    balance_told = "Class balance. " + "; ".join(f"{name}: {a:,} {first}, {b:,} {second}" for name, (a, b) in rows)
    return {
        "flow": both(lambda width: flow(nodes, links, told + ".", width)),
        "balance": both(lambda width: balance(rows, balance_told + ".", width)),
        "rows": rows,
        "kept": kept,
        "all": everything,
        "sizes": split_sizes(run),
        "made": made,
    }


def split_sizes(run: Run) -> dict[str, int]:
    """Images in each split that has some, in the order train, validation, test."""
    counts = run.splits["split"].value_counts()
    return {name: int(counts[name]) for name in SPLITS if name in counts}


def graph(run: Run) -> tuple[list[Node], list[Link]]:
    """The flow's nodes and its links."""
    table = run.decisions
    labels = run.labels()
    nodes = [Node("All images", _counts(table["label"]), 0)]
    links: list[Link] = []

    def grow(source: int, name: str, counts: Counts, column: int, kind: str = "") -> int:
        nodes.append(Node(name, counts, column, kind))
        links.append(Link(source, len(nodes) - 1, counts))
        return len(nodes) - 1

    kept = grow(0, "Kept", _counts(table.loc[table["kept"] == 1, "label"]), 1)
    gone = table[table["kept"] != 1]
    known = [reason for reason in REASONS if (gone["reason"] == reason).any()]
    for reason in known + sorted(set(gone["reason"]) - set(known)):
        name = REASONS.get(reason, reason.replace("_", " ").capitalize() or "Left")
        grow(0, name, _counts(gone.loc[gone["reason"] == reason, "label"]), 1, "gone")
    train = None
    for split, name in SPLITS.items():
        members = run.splits.loc[run.splits["split"] == split, "image"]
        if len(members):
            place = grow(kept, name, _counts(labels.reindex(members)), 2)
            train = place if split == "train" else train
    if train is not None and len(run.synthetic):
        made = _counts(run.synthetic["label"])
        before = nodes[train].counts
        after = (before[0] + made[0], before[1] + made[1])
        nodes.append(Node("Learned from", after, 3))
        links.append(Link(train, len(nodes) - 1, before))
        nodes.append(Node("Synthetic", made, 2))
        links.append(Link(len(nodes) - 1, len(nodes) - 2, made))
    return nodes, links


def balance_rows(run: Run) -> list[tuple[str, Counts]]:
    """(name, images of each class) at each step at which the balance may change."""
    labels = run.labels()
    rows = [("All images", _counts(run.index["label"])), ("After cleaning", _counts(labels[run.kept()]))]
    train = _counts(labels.reindex(run.splits.loc[run.splits["split"] == "train", "image"]))
    rows.append(("Train", train))
    if len(run.synthetic):
        made = _counts(run.synthetic["label"])
        rows.append(("Train, with synthetic images", (train[0] + made[0], train[1] + made[1])))
    for split in ("validation", "test"):
        members = run.splits.loc[run.splits["split"] == split, "image"]
        if len(members):
            rows.append((SPLITS[split], _counts(labels.reindex(members))))
    return rows


def _counts(labels: "pd.Series[Any]") -> Counts:
    values = labels.astype(int)
    return int((values == 0).sum()), int((values == 1).sum())
