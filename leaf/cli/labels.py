"""`leaf labels`: images whose label looks wrong to networks that did not learn from them."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from leaf.errors import LeafError
from leaf.revisions import PREDICTIONS, reader, table

app = typer.Typer()


def wrong_labels(revisions: Sequence[str]) -> pd.DataFrame:
    """The images whose label looks wrong, the most suspicious first: `image,source,hash,label,likely,score`.

    Taken are the validation and test predictions of the `revisions` (as for `leaf compare`), their mean where an image
    is in several: the folds of a cross-validation predict every image. `label` and `likely` are class names; `score`
    is the predicted probability of `label`.
    """
    predicted = pd.concat([_predictions(revision) for revision in revisions])
    keys = ["source", "hash", "label"]
    predicted = predicted.groupby(keys, as_index=False).agg(
        image=("image", "first"), probability=("probability", "mean")
    )
    if predicted["source"].duplicated().any() or predicted["label"].nunique() < 2:
        raise LeafError(
            "labels: the revisions differ in images or labels, or hold one class; valid: runs of one data set"
        )
    places, scores = suspicious(predicted["label"].to_numpy(), predicted["probability"].to_numpy())
    names = table(reader(revisions[0]), "data/ingested/classes.csv").sort_values("label")["name"].tolist()
    found = predicted.iloc[places].assign(score=scores)
    found["likely"] = [names[1 - label] for label in found["label"]]
    found["label"] = [names[label] for label in found["label"]]
    found.attrs["predicted"] = len(predicted)
    return found[["image", "source", "hash", "label", "likely", "score"]].reset_index(drop=True)


def describe(found: pd.DataFrame, most: int) -> str:
    """How many, and a line for each of the first `most`."""
    lines = [
        f"{len(found)} of {found.attrs['predicted']} images that the network did not learn from have a label that "
        "looks wrong"
    ]
    if len(found):
        shown = found.head(most)[["image", "source", "label", "likely", "score"]]
        lines.append(shown.to_string(index=False, float_format="{:.3f}".format))
        lines.append(
            "Look at each (`leaf why IMAGE`) before you rule on it; `leaf labels --rulings` prints rows to edit."
        )
    return "\n".join(lines)


def rulings(found: pd.DataFrame, most: int) -> str:
    """The first `most` as rows of data/overrides.csv, without its header; who rules is left to the person."""
    rows = pd.DataFrame({"hash": found["hash"], "ruling": "relabel", "label": found["likely"], "who": ""})
    rows["why"] = [
        f"image {image}: {label} has probability {score:.3f}"
        for image, label, score in zip(found["image"], found["label"], found["score"], strict=True)
    ]
    return rows.head(most).to_csv(index=False, header=False, lineterminator="\n").rstrip("\n")


def _predictions(revision: str) -> pd.DataFrame:
    read = reader(revision)
    index = table(read, "data/ingested/index.csv")
    return table(read, PREDICTIONS).merge(index[["image", "source", "hash"]], on="image")


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images whose label is likely wrong, the most likely first: places int64 (K,), and scores float64 (K,).

    `labels` 0/1 (N,) of both classes, `probabilities` of 1 (N,) by a network that did not learn from these images. A
    score is the probability of the image's own label: low is suspicious.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    both = np.stack([1 - probabilities, probabilities], axis=1)
    found = find_label_issues(labels, both, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64), get_label_quality_scores(labels, both)[found]


@app.command(epilog="Examples: `leaf labels`   `leaf labels --rulings >> data/overrides.csv`")
def command(
    revisions: Annotated[list[str] | None, typer.Argument(help="runs, or all folds of one  [workspace]")] = None,
    most: Annotated[int, typer.Option(help="images to list, at most", min=1)] = 20,
    rows: Annotated[bool, typer.Option("--rulings", help="print rows for data/overrides.csv instead")] = False,
) -> None:
    """Name images whose label looks wrong, among those that the network did not learn from (confident learning)."""
    found = wrong_labels(revisions or ["workspace"])
    typer.echo((rulings if rows else describe)(found, most))
