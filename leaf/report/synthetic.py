"""Synthetic images between their parent and its neighbour."""

from typing import Any

import numpy as np

from leaf.report.run import Run, rows
from leaf.report.svg import share_shown
from leaf.report.thumbnails import Album, Photo, data_uri

TRIPLES = 9


def section(run: Run, album: Album) -> dict[str, Any] | None:
    """Triples spread over all synthetic images; None where there are none. Copies (weight 0) are only counted."""
    table = run.synthetic
    if table.empty:
        return None
    blended = table[table["weight"].astype(float) > 0]
    places = np.unique(np.linspace(0, len(blended) - 1, min(TRIPLES, len(blended))).round().astype(int))
    triples = []
    for row in rows(blended.iloc[places]):
        label = run.classes[int(row["label"])]
        uri = data_uri(run.synthetic_images[int(row["image"])])
        parent, neighbour, weight = row["parent"], row["neighbour"], row["weight"]
        told = f"Synthetic image {row['image']}, {label}, {weight:.0%} of the way from {parent} to {neighbour}"
        triples.append(
            {
                "parent": album.photo(parent),
                "made": Photo(uri, told, f"{weight:.0%}", told),
                "neighbour": album.photo(neighbour),
                "weight": f"{weight:.2f}",
            }
        )
    return {
        "triples": triples,
        "total": len(table),
        "copies": len(table) - len(blended),
        "classes": [run.classes[label] for label in sorted(set(table["label"].astype(int)))],
        "note": share_shown(len(triples), len(blended), "synthetic images"),
    }
