"""Report sections on removed images: outliers, copies, near-duplicates and manual decisions."""

from typing import Any

import pandas as pd

from leaf.finished_run import Run, rows
from leaf.report.charts import ranking
from leaf.report.gallery import Album
from leaf.report.svg import both, number, plural, share_shown

REFERENCES, RANKS = 6, 200
SETS, ROW = 12, 8
PAIRS = 12
DECISIONS = 24


def outliers(run: Run, album: Album) -> dict[str, Any] | None:
    """Return each reference with its ranking of distances, or None if nothing was ranked."""
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
    removed = [f"{count:,} labeled {name}" for name, count in zip(run.names, counts, strict=True) if count]
    words = f"{plural(cut, 'image')} removed: " + ", ".join(removed) if cut else "no image removed"
    alternative = f"Ranking of {shown:,} images by distance to reference {name}: {words}."
    if jump:
        alternative += f" The distance jumps from {number(jump[0], 0)} to {number(jump[1], 0)} after rank {cut}."
    return {
        "name": f"Image {name}" if name.isdigit() else name,
        "photo": album.photo(image),
        "nearest": not name.isdigit(),
        "words": words,
        "jump": jump and f"{number(jump[0], 0)} to {number(jump[1], 0)}",
        "cut": cut,
        "figure": both(
            lambda width: ranking(distances[:shown], cut, jump, alternative, min(width, 700)),
            share_shown(shown, len(distances), "ranks"),
        ),
    }


def copies(run: Run, album: Album) -> dict[str, Any]:
    """Return sets of copies as rows of thumbnails, sorted by conflicting labels first, then by size."""
    kept, sets = set(run.kept()), run.copies()
    conflicting = {each[0] for each in run.conflicting_copies()}
    sets.sort(key=lambda each: (each[0] not in conflicting, -len(each), each[0]))
    shown = [
        {
            "photos": [
                {"photo": album.photo(image), "label": album.label(image), "kept": image in kept}
                for image in each[:ROW]
            ],
            "more": len(each) - min(len(each), ROW),
            "images": len(each),
            "conflicting": each[0] in conflicting,
        }
        for each in sets[:SETS]
    ]
    reasons = run.decisions["reason"].value_counts()
    return {
        "rows": shown,
        "sets": len(sets),
        "conflicting": len(conflicting),
        "removed": int(reasons.get("duplicate", 0)) + int(reasons.get("near_duplicate", 0)),
        "note": share_shown(len(shown), len(sets), "sets"),
    }


def near(run: Run, album: Album) -> dict[str, Any] | None:
    """Return near-duplicate pairs, nearest first, and pairs that match after alignment, or None if there are none."""
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
            "kind": "rotated or mirrored" if pair["kind"] == "turned" else "",
            "removed": [pair["image"] in gone, pair["other"] in gone],
        }
        for pair in rows(pairs.head(PAIRS))
    ]
    return {"rows": shown, "total": len(pairs), "note": share_shown(len(shown), len(pairs), "pairs")}


def decisions(run: Run, album: Album) -> dict[str, Any] | None:
    """Return the images changed by data/overrides.csv or by the copies' majority label, or None if there are none."""
    given = run.index.set_index("image")["label"].astype(int)
    table = run.decisions
    manual = table["reason"].isin(["override", "relabelled"])
    chosen = table[manual | (table["label"].astype(int).values != given.values)]
    if chosen.empty:
        return None
    shown = []
    for row in rows(chosen.head(DECISIONS)):
        before, after = run.names[given[row["image"]]], run.names[int(row["label"])]
        result = "removed" if not row["kept"] else f"relabeled {after}" if before != after else "kept"
        shown.append({"photo": album.photo(row["image"]), "before": before, "result": result})
    return {"rows": shown, "total": len(chosen), "note": share_shown(len(shown), len(chosen), "images")}


def _natural(name: str) -> tuple[int, int, str]:
    return (0, int(name), "") if name.isdigit() else (1, 0, name)


def flagged(index: pd.DataFrame) -> dict[str, int]:
    """Return the number of images with each quality flag, such as dark or blurred."""
    if "flags" not in index:
        return {}
    counts = index["flags"].fillna("").astype(str).str.split().explode().dropna().value_counts()
    return {str(flag).replace("_", " "): int(count) for flag, count in sorted(counts.items())}
