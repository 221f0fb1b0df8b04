"""Find likely label errors from held-out predictions (confident learning)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.revisions import PREDICTIONS, class_names, probabilities, reader, table


def wrong_labels(revisions: Sequence[str]) -> pd.DataFrame:
    """Return likely label errors, most suspicious first: `image,source,file_hash,label,likely,score`.

    `label` and `likely` (the suggested label) are class names, and `score` is the predicted probability of `label`.
    `revisions` are runs, specified as for `leaf compare`. Only validation and test images are examined. If several runs
    predict the same image, their predictions are averaged.

    Raises:
        LeafError: if the runs differ in images, labels or classes, or have only one class.
    """
    names = class_names(reader(revisions[0]))
    predicted = pd.concat([_predictions(revision) for revision in revisions])
    keys, columns = ["source", "file_hash", "label"], list(range(len(names)))
    if set(columns) != set(predicted.columns) - {*keys, "image"}:
        raise LeafError("labels: the runs have different classes. Use runs on the same data set.")
    predicted = predicted.groupby(keys, as_index=False).agg({"image": "first"} | dict.fromkeys(columns, "mean"))
    if predicted["source"].duplicated().any() or predicted["label"].nunique() < 2:
        raise LeafError(
            "labels: the runs have different images or labels, or only one class. Use runs on the same data set."
        )
    labels, shares = predicted["label"].to_numpy(), predicted[columns].to_numpy()
    places, scores = suspicious(labels, shares)
    likely = np.where(np.eye(len(names))[labels] == 1, -1, shares).argmax(axis=1)
    named = {"label": np.array(names, object)[labels[places]], "likely": np.array(names, object)[likely[places]]}
    found = predicted.iloc[places].assign(**named, score=scores).reset_index(drop=True)
    found.attrs["predicted"] = len(predicted)
    return found[["image", "source", "file_hash", "label", "likely", "score"]]


def describe(found: pd.DataFrame, most: int) -> str:
    """Return text with the number of likely label errors and a table of the first `most` of them."""
    said = f"likely label errors: {len(found)} of {found.attrs['predicted']} validation and test images"
    if found.empty:
        return said
    shown = found.head(most)[["image", "source", "label", "likely", "score"]]
    return (
        f"{said}\n{shown.to_string(index=False, float_format='{:.3f}'.format)}\nReview the labels with `leaf review`."
    )


def _predictions(revision: str) -> pd.DataFrame:
    """Return the columns `image,source,file_hash,label` and a column of probabilities for each class."""
    read = reader(revision)
    index = table(read, "data/ingested/index.csv")
    rows = table(read, PREDICTIONS)[["image", "label"]]
    wide = pd.DataFrame(probabilities(read))
    return pd.concat([rows, wide], axis=1).merge(index[["image", "source", "file_hash"]], on="image")


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find label errors by confident learning (Northcutt 2021, arXiv 1911.00068), most suspicious first.

    Return their positions, int64 (K,), and the predicted probabilities of their labels, float64 (K,). `labels` are int
    (N,), and `probabilities` are held-out predictions, float (N, C).
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64), get_label_quality_scores(labels, probabilities)[found]
