"""Measure how dropout on the input affects the features and the head of a pretrained network.

    python benchmarks/accuracy.py --dataset LEAVES.npz --weights WEIGHTS.h5 --results benchmarks/dropout.json \
        --set dropout_at=input --recipes mobilenet_v2+dropout=0 mobilenet_v2+dropout=0.1 mobilenet_v2+dropout=0.2
    python benchmarks/dropout.py

The first command trains. The second analyzes the frozen networks of one seed in build/accuracy. It compares the
features of images, with and without dropout, with the mean and standard deviation stored in the head's
BatchNormalization, which describe the training features. Accuracy is measured on test images with and without dropout.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from runs import provenance, scored

from leaf.models.prediction import extract_features, predict_probabilities
from leaf.models.saving import load_model
from leaf.store import read_array, read_json, read_yaml

RESULTS = Path(__file__).with_name("dropout_features.json")


def dropped(images: np.ndarray, share: float) -> np.ndarray:
    """Apply dropout as in training: set a share of the values to 0 and scale up the others. Return float32 images."""
    kept = np.random.default_rng(0).random(images.shape) >= share
    return (images * kept / (1 - share)).astype(np.float32)


def against_head(model: Any, images: np.ndarray) -> dict[str, float]:
    """Return the shift and spread of the features of `images` relative to the head's BatchNormalization."""
    head = model.get_layer("batch_normalization")
    mean, variance = (np.asarray(each) for each in (head.moving_mean, head.moving_variance))
    standard = (extract_features(model, images, 64) - mean) / np.sqrt(variance + head.epsilon)
    return {
        "shift": round(float(np.abs(standard.mean(axis=0)).mean()), 3),
        "spread": round(float(np.median(standard.std(axis=0))), 3),
    }


def measure(folder: Path) -> dict[str, Any]:
    """Return the measurements on the test images of a finished run."""
    share = read_yaml(folder / "params.yaml")["dropout"]
    model = load_model(folder / "models/model.keras", sha256=read_json(folder / "models/run.json")["model_sha256"])
    test = scored(folder)
    clean = read_array(folder / "data/ingested/images.npy")[test["image"].to_numpy()].astype(np.float32)
    labels = test["label"].to_numpy()
    result: dict[str, Any] = {"dropout": share, "images": len(test)}
    for name, images in (("clean", clean), ("dropped", dropped(clean, share or 0.1))):
        right = predict_probabilities(model, images, 64).argmax(axis=1) == labels
        result[name] = {**against_head(model, images), "accuracy": round(float(right.mean()), 4)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/accuracy"), help="folder of the runs of accuracy.py")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the results")
    options = parser.parse_args()
    found = {}
    for folder in sorted(options.work.glob("run-*")):
        params = read_yaml(folder / "params.yaml")
        wanted = (params["backbone"], params["freeze_depth"], params["seed"]) == ("mobilenet_v2", "all", options.seed)
        if wanted and (folder / "metrics/evaluate.json").exists():
            found[params["dropout"]] = measure(folder)
            print(json.dumps(found[params["dropout"]]))
    rows = [found[share] for share in sorted(found)]
    options.results.write_text(json.dumps({"rows": rows, **provenance()}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
