"""`leaf labels`: images whose label looks wrong to networks that did not learn from them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from leaf.errors import LeafError
from leaf.revisions import PREDICTIONS, class_names, probabilities, reader, table


def wrong_labels(revisions: Sequence[str]) -> pd.DataFrame:
    """The images whose label looks wrong, the most suspicious first: `image,source,file_hash,label,likely,score`.

    Taken are the validation and test predictions of the `revisions` (as for `leaf compare`), their mean where an image
    is in several: the folds of a cross-validation predict every image. `label` and `likely` are class names; `score`
    is the predicted probability of `label`.
    """
    names = class_names(reader(revisions[0]))
    predicted = pd.concat([_predictions(revision) for revision in revisions])
    keys, columns = ["source", "file_hash", "label"], list(range(len(names)))
    if set(columns) != set(predicted.columns) - {*keys, "image"}:
        raise LeafError("labels: the revisions differ in their classes; valid: runs of one data set")
    predicted = predicted.groupby(keys, as_index=False).agg({"image": "first"} | dict.fromkeys(columns, "mean"))
    if predicted["source"].duplicated().any() or predicted["label"].nunique() < 2:
        raise LeafError(
            "labels: the revisions differ in images or labels, or hold one class; valid: runs of one data set"
        )
    labels, shares = predicted["label"].to_numpy(), predicted[columns].to_numpy()
    places, scores = suspicious(labels, shares)
    others = np.where(np.eye(len(names))[labels] == 1, -1, shares)
    found = predicted.iloc[places].assign(score=scores)
    found["likely"] = [names[label] for label in others[places].argmax(axis=1)]
    found["label"] = [names[label] for label in found["label"]]
    found.attrs["predicted"] = len(predicted)
    return found[["image", "source", "file_hash", "label", "likely", "score"]].reset_index(drop=True)


def describe(found: pd.DataFrame, most: int) -> str:
    """How many, and a line for each of the first `most`."""
    lines = [
        f"{len(found)} of {found.attrs['predicted']} images that the network did not learn from have a label that "
        "looks wrong"
    ]
    if len(found):
        shown = found.head(most)[["image", "source", "label", "likely", "score"]]
        lines.append(shown.to_string(index=False, float_format="{:.3f}".format))
        lines.append("`leaf review` shows each of them, and takes your ruling.")
    return "\n".join(lines)


def _predictions(revision: str) -> pd.DataFrame:
    """`image,source,file_hash,label` and a column of probabilities for each label."""
    read = reader(revision)
    index = table(read, "data/ingested/index.csv")
    rows = table(read, PREDICTIONS)[["image", "label"]]
    wide = pd.DataFrame(probabilities(read))
    return pd.concat([rows, wide], axis=1).merge(index[["image", "source", "file_hash"]], on="image")


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images whose label is likely wrong, the most likely first: places int64 (K,), and scores float64 (K,).

    `labels` int (N,), `probabilities` (N, C) by a network that did not learn from these images. A score is the
    probability of the image's own label: low is suspicious.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64), get_label_quality_scores(labels, probabilities)[found]
