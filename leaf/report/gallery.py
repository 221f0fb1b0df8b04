"""The images that say most: the worst mistakes and the least certain, each beside its heat map."""

from typing import Any

import pandas as pd

from leaf.report.run import Run, rows
from leaf.report.svg import share_shown
from leaf.report.thumbnails import Album

CARDS = 12
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
    sure = float(entry["probability"]) if int(entry["predicted"]) else 1 - float(entry["probability"])
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
