"""The images worth looking at, and the folders worth a second look."""

import numpy as np
import pandas as pd

from leaf.scoring.intervals import wilson


def gallery(predictions: pd.DataFrame, threshold: float, most: int = 12) -> pd.DataFrame:
    """The worst mistakes, most confident first, then the least certain of the other images: `row,image,split,kind`.

    `predictions`: `image,split,label,probability,predicted` of one split. Up to `most` of each kind; equals by image.
    """
    p = predictions["probability"]
    ranked = predictions.assign(
        confidence=np.where(predictions["predicted"].eq(1), p, 1 - p), gap=(p - threshold).abs()
    )
    wrong = ranked[ranked["predicted"].ne(ranked["label"])]
    mistakes = wrong.sort_values(["confidence", "image"], ascending=[False, True]).head(most)
    others = ranked.drop(mistakes.index).sort_values(["gap", "image"]).head(most)
    chosen = pd.concat([mistakes.assign(kind="mistake"), others.assign(kind="uncertain")], ignore_index=True)
    chosen.insert(0, "row", np.arange(len(chosen)))
    return chosen[["row", "image", "split", "kind"]]


def by_folder(predictions: pd.DataFrame, sources: pd.Series) -> list[dict[str, object]]:
    """Accuracy with its interval in each folder that the images came from; nothing where there is only one.

    `sources`: where each row of `predictions` came from, a path with slashes, or a number for an .npz.
    """
    folders = sources.str.rpartition("/")[0].to_numpy()
    if len(set(folders)) < 2:
        return []
    right = predictions["predicted"].eq(predictions["label"]).to_numpy()
    table = pd.DataFrame({"folder": folders, "right": right}).groupby("folder")["right"].agg(["size", "sum"])
    rows = []
    for folder, (images, hits) in zip(table.index, table.to_numpy().tolist(), strict=True):
        low, high = wilson(hits, images)
        rows.append({"folder": folder, "images": images, "accuracy": hits / images, "low": low, "high": high})
    return rows
