"""Images to look at: the worst mistakes and the least certain ones, and synthetic images beside their parents."""

from typing import Any

import numpy as np
import pandas as pd

from leaf.report.photos import Album, Photo, data_uri
from leaf.report.run import Run, rows
from leaf.report.svg import share_shown

CARDS, TRIPLES = 12, 9
MANY_CLASSES = 12  # above it the grid of samples shows fewer of each
KINDS = {"mistake": "mistakes", "uncertain": "uncertain images"}


def section(run: Run, album: Album) -> dict[str, Any]:
    """By kind (mistake, uncertain): cards in the order of gallery.csv, at most CARDS, and how many there are."""
    scored = run.predictions.set_index("image") if len(run.predictions) else run.predictions
    return {
        kind: {
            "cards": [
                _card(row, scored, run, album) for row in rows(table.head(CARDS)) if row["image"] in scored.index
            ],
            "note": share_shown(min(len(table), CARDS), len(table), words),
        }
        for kind, words in KINDS.items()
        for table in [run.gallery[run.gallery["kind"] == kind]]
    }


def _card(row: dict[str, Any], scored: pd.DataFrame, run: Run, album: Album) -> dict[str, Any]:
    entry = scored.loc[row["image"]]
    truth, said = run.classes[int(entry["label"])], run.classes[int(entry["predicted"])]
    sure = float(entry["probability"])  # of the second class where there are two, else of the predicted one
    if len(run.classes) == 2 and not int(entry["predicted"]):
        sure = 1 - sure
    place = int(row["row"])
    heat = run.heatmaps[place] if place < len(run.heatmaps) else None
    return {
        "photo": album.photo(row["image"]),
        "heated": album.heated(row["image"], heat) if heat is not None else None,
        "truth": truth,
        "said": said,
        "probability": f"{sure:.0%}",
        "right": truth == said,
        "split": str(row["split"]),
    }


def samples(run: Run, album: Album) -> list[dict[str, Any]]:
    """A few images of each class, spread over those that stayed."""
    labels = run.labels()[run.kept()]
    many = 6 if len(run.classes) <= MANY_CLASSES else 3
    shown = []
    for label, name in enumerate(run.classes):
        images = labels.index[labels == label].to_numpy()
        places = np.unique(np.linspace(0, len(images) - 1, min(many, len(images))).round().astype(int))
        shown.append({"name": name, "photos": [album.photo(image) for image in images[places]], "total": len(images)})
    return shown


def synthetic(run: Run, album: Album) -> dict[str, Any] | None:
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
