"""Score the network and the baselines on validation and test; export the network to ONNX."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from leaf.errors import one_line_errors
from leaf.evaluate import out_of_distribution as ood
from leaf.evaluate.evaluation import evaluate
from leaf.models import gradcam
from leaf.models.onnx_inference import metadata
from leaf.models.trained_model import Scorer, load_network, load_scorer
from leaf.params import check_threshold, read_params
from leaf.split.stratified_split import check_splits, check_synthetic, shared_groups
from leaf.store import read_array, read_classes, read_json, read_table, sha256, write_array, write_json, write_table

NETWORK = Path("models/model.onnx")
_OOD_IMAGES = 2048  # approximate number of images per split used to fit the out-of-distribution detector
LEAKY = "The parameter grouping is none, so scores can be optimistic; groups in more than one split: {}."


def main() -> None:
    """Read the network and the tables; write data/scored/ and metrics/evaluate.json."""
    params = read_params("evaluate")
    classes = read_classes()
    check_threshold(params.threshold, len(classes))
    images = read_array("data/ingested/images.npy")
    sources = read_table("data/ingested/index.csv", ["image", "source"], text=["source"])[["image", "source"]]
    decisions = read_table("data/cleaned/decisions.csv", ["image", "label", "kept", "group", "reason", "reference"])
    splits = read_table("data/split/splits.csv", ["image", "split"])
    leaky = params.grouping == "none"
    check_splits(splits, decisions, leaky)
    check_synthetic(read_table("data/balanced/index.csv", ["image", "parent", "neighbour"]), splits)
    table = splits.merge(decisions[["image", "label", "group"]], on="image").merge(sources, on="image")

    run = read_json("models/run.json")
    scorer = load_scorer(NETWORK.with_suffix(".keras"), run, images, table["image"].to_numpy(), params.views)
    note = LEAKY.format(len(shared_groups(splits, decisions))) if leaky else ""
    settings = (params.threshold, params.calibrate, params.error_rate, note)
    result = evaluate(images, table, scorer.probabilities, classes, *settings)

    for name in ("predictions", "roc", "answers", "gallery"):
        write_table(getattr(result, name), f"data/scored/{name}.csv")
    write_array(result.probabilities, "data/scored/probabilities.npy")
    write_json(result.scores, "data/scored/scores.json")
    decision = {key: result.scores[key] for key in ("threshold", "temperature", "min_confidence", "error_rate")}
    accuracy = result.metrics["test"]["accuracy"]
    decision |= {"views": params.views, "test_accuracy": accuracy, "model_sha256": run["model_sha256"]}
    rows, places = np.unique(result.gallery["image"], return_inverse=True)
    # On a busy machine, several BLAS threads make the eigendecomposition in `ood.fit` up to 40× slower.
    with threadpool_limits(1), ThreadPoolExecutor(1) as pool:
        detector = pool.submit(ood.fit, *ood_data(scorer, images, table, decisions))
        decision["without_onnx"] = scorer.write_onnx(metadata(run | decision), rows, NETWORK)
        network = load_network(NETWORK, run["model_sha256"])
        shown = result.gallery["shown"].to_numpy()
        heatmaps = gradcam.heatmaps(network, np.asarray(images[rows], np.float32), shown, places)
        write_array(heatmaps, "data/scored/heatmaps.npy")
        write_json(decision | {"onnx_sha256": sha256(NETWORK)}, "data/scored/decision.json")
        ood.write(detector.result(), run["model_sha256"], "data/scored/ood.npz")
    write_json(result.metrics, "metrics/evaluate.json")
    print(result.summary)
    if decision["without_onnx"]:
        print(f"{NETWORK} is empty, so predictions require Keras: {decision['without_onnx']}")


def ood_data(scorer: Scorer, images: np.ndarray, table: pd.DataFrame, decisions: pd.DataFrame) -> list[np.ndarray]:
    """Return the arguments of `ood.fit`: features and images of train and validation, and an outlier per reference."""
    every = (table.loc[table["split"] == name, "image"].to_numpy() for name in ("train", "validation"))
    train, validation = (rows[:: 1 + len(rows) // _OOD_IMAGES] for rows in every)
    outliers = decisions[decisions["reason"] == "outlier"].groupby("reference")["image"].first().to_numpy()
    return [scorer.features(train), images[train], scorer.features(validation), images[validation], images[outliers]]


if __name__ == "__main__":
    with one_line_errors():
        main()
