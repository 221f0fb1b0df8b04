"""Why images left: outliers by reference, copies by group, near copies by distance, a person's rulings."""

from typing import Any

import numpy as np
import pandas as pd

from leaf.clean.groups import components
from leaf.finished_run import Run, rows
from leaf.report.charts import ranking
from leaf.report.gallery import Album
from leaf.report.svg import both, number, plural, share_shown

REFERENCES, RANKS = 6, 200
GROUPS, ROW = 12, 8
PAIRS = 12
RULINGS = 24
COPIES = ("exact", "near", "turned")


def outliers(run: Run, album: Album) -> dict[str, Any] | None:
    """Each reference with the ranking of the distances to it; None where nothing was ranked."""
    if run.distances.empty:
        return None
    references = sorted(set(run.distances["reference"]), key=_natural)
    shown = [_reference(name, run, album) for name in references[:REFERENCES]]
    return {
        "references": shown,
        "removed": int((run.decisions["reason"] == "outlier").sum()),
        "note": share_shown(len(shown), len(references), "references"),
    }


def _reference(name: str, run: Run, album: Album) -> dict[str, Any]:
    table = run.distances[run.distances["reference"] == name].sort_values(["rank", "image"])
    distances = table["distance"].astype(float).tolist()
    cut = int(table["outlier"].astype(int).sum())
    jump = (distances[cut - 1], distances[cut]) if 0 < cut < len(distances) else None
    shown = min(len(distances), RANKS, max(3 * cut, 40))
    image = int(table["image"].iloc[0])
    labels = run.index.set_index("image")["label"].astype(int).reindex(table["image"].iloc[:cut])
    counts = [int((labels == label).sum()) for label in range(len(run.classes))]
    borne = [f"{count:,} labelled {name}" for name, count in zip(run.classes, counts, strict=True) if count]
    told = f"{plural(cut, 'image')} out: " + ", ".join(borne) if cut else "no image out"
    alternative = f"Ranking of {shown:,} images by distance to reference {name}: {told}."
    if jump:
        alternative += f" The distance jumps from {number(jump[0], 0)} to {number(jump[1], 0)} after rank {cut}."
    return {
        "name": f"Image {name}" if name.isdigit() else name,
        "photo": album.photo(image),
        "nearest": not name.isdigit(),
        "told": told,
        "jump": jump and f"{number(jump[0], 0)} to {number(jump[1], 0)}",
        "cut": cut,
        "figure": both(
            lambda width: ranking(distances[:shown], cut, jump, alternative, min(width, 700)),
            share_shown(shown, len(distances), "ranks"),
        ),
    }


def copies(run: Run, album: Album) -> dict[str, Any]:
    """Groups of copies as rows of thumbnails, those with conflicting labels first, then the largest."""
    table = run.decisions.set_index("image")
    outside = set(table.index[table["reason"] == "outlier"])
    pairs = run.pairs[run.pairs["kind"].isin(COPIES)]
    pairs = pairs[~pairs["image"].isin(outside) & ~pairs["other"].isin(outside)]
    joined = pairs[["image", "other"]].to_numpy(np.int64)
    images = pd.Series(np.unique(joined))
    groups = [list(group) for _, group in images.groupby(components(len(table), joined)[images])]
    labels = run.index.set_index("image")["label"].astype(int)
    conflicting = {group[0] for group in groups if labels.reindex(group).nunique() > 1}
    groups.sort(key=lambda group: (group[0] not in conflicting, -len(group), group[0]))
    shown = [
        {
            "photos": [
                {"photo": album.photo(image), "label": album.label(image), "kept": bool(table.loc[image, "kept"])}
                for image in group[:ROW]
            ],
            "more": len(group) - min(len(group), ROW),
            "images": len(group),
            "conflicting": group[0] in conflicting,
        }
        for group in groups[:GROUPS]
    ]
    reasons = run.decisions["reason"].value_counts()
    return {
        "rows": shown,
        "groups": len(groups),
        "conflicting": len(conflicting),
        "removed": int(reasons.get("duplicate", 0)) + int(reasons.get("near_duplicate", 0)),
        "note": share_shown(len(shown), len(groups), "groups"),
    }


def near(run: Run, album: Album) -> dict[str, Any] | None:
    """Pairs that are not equal but close, nearest first, and pairs that match once aligned; None without any."""
    shown = {
        "close": _pairs(run, album, ("near", "turned"), "mse"),
        "aligned": _pairs(run, album, ("aligned",), "aligned_mse"),
    }
    return shown if any(entry["total"] for entry in shown.values()) else None


def _pairs(run: Run, album: Album, kinds: tuple[str, ...], by: str) -> dict[str, Any]:
    pairs = run.pairs[run.pairs["kind"].isin(kinds)]
    pairs = pairs.assign(order=pairs[by].fillna(pairs["mse"])).sort_values(["order", "image", "other"])
    gone = set(run.decisions.loc[run.decisions["kept"] != 1, "image"])
    shown = [
        {
            "photos": [album.photo(pair["image"]), album.photo(pair["other"])],
            "distance": number(float(pair["order"]), 1),
            "kind": "turned or mirrored" if pair["kind"] == "turned" else "",
            "removed": [pair["image"] in gone, pair["other"] in gone],
        }
        for pair in rows(pairs.head(PAIRS))
    ]
    return {"rows": shown, "total": len(pairs), "note": share_shown(len(shown), len(pairs), "pairs")}


def rulings(run: Run, album: Album) -> dict[str, Any] | None:
    """What a person ruled in data/overrides.csv, or the majority of copies decided; None where nobody did."""
    came = run.index.set_index("image")["label"].astype(int)
    table = run.decisions
    ruled = table[table["reason"].isin(["override", "relabelled"]) | (table["label"].astype(int).values != came.values)]
    if ruled.empty:
        return None
    shown = []
    for row in rows(ruled.head(RULINGS)):
        before, after = run.classes[came[row["image"]]], run.classes[int(row["label"])]
        fate = "left out" if not row["kept"] else f"now {after}" if before != after else "kept"
        shown.append({"photo": album.photo(row["image"]), "before": before, "fate": fate})
    return {"rows": shown, "total": len(ruled), "note": share_shown(len(shown), len(ruled), "rulings")}


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def flagged(index: pd.DataFrame) -> dict[str, int]:
    """How many images bear each flag, such as dark or blurred."""
    if "flags" not in index:
        return {}
    counts = index["flags"].fillna("").astype(str).str.split().explode().dropna().value_counts()
    return {str(flag).replace("_", " "): int(count) for flag, count in sorted(counts.items())}
