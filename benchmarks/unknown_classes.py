"""Compare unknown-class detectors: leave each class out of training and score its images against known ones.

    python benchmarks/unknown_classes.py ../shared/data

The features come from MobileNetV2 with ImageNet weights at 96 and 224 pixels. Each of the nine classes of
leaves_by_disease is left out in turn; known images are scored in three grouped folds. The detector is selected on apple
and strawberry leaves; bean leaves are only reported. For each crop, the table shows the AUROC and FPR@95, averaged over
the crop's classes. FPR@95 is the share of known images that are rejected when 95% of the unknown ones are rejected.
Detectors are sorted by the mean AUROC on apple and strawberry leaves at the first size.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from images import ingest_images, mobilenet_features
from runs import keep_table, table_parser
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler, normalize

from leaf.evaluate.baselines import HELD
from leaf.evaluate.linear_head import linear_head
from leaf.evaluate.out_of_distribution import fit_gaussian

DIMENSIONS = 64  # dimension of ViM's principal subspace
CHOSEN_ON = ("Apple", "Strawberry")
Scores = dict[str, np.ndarray]


def all_scores(train: np.ndarray, labels: np.ndarray, queries: np.ndarray) -> Scores:
    """Return each detector's scores of `queries` (N, D), float (N,); higher means more likely unknown."""
    scaler = StandardScaler().fit(train)
    standard, query = scaler.transform(train), scaler.transform(queries)
    centers = np.stack([standard[labels == label].mean(axis=0) for label in np.unique(labels)])
    within = standard - centers[np.searchsorted(np.unique(labels), labels)]
    nearest_class = np.min([_mahalanobis(query - center, within) for center in centers], axis=0)
    neighbors = NearestNeighbors(n_neighbors=5, algorithm="brute").fit(normalize(standard))
    distances = neighbors.kneighbors(normalize(query))[0]
    raw = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(normalize(train)).kneighbors(normalize(queries))[0]
    head = linear_head(train, labels, strength=HELD)
    logits, known_logits = (class_logits(head.decision_function(part)) for part in (queries, train))
    energy = -logsumexp(logits, axis=1)
    _, _, directions = np.linalg.svd(standard, full_matrices=False)
    basis = directions[: min(DIMENSIONS, len(directions) // 2)].T
    residual, known_residual = (np.linalg.norm(part - part @ basis @ basis.T, axis=1) for part in (query, standard))
    vim = known_logits.max(axis=1).mean() / known_residual.mean() * residual + energy
    relative = nearest_class - _mahalanobis(query, standard)
    scores = {
        "Mahalanobis, one Gaussian (leaf's detector)": fit_gaussian(train, queries[:1], 0.0).distance(queries),
        "Mahalanobis, class means": nearest_class,
        "relative Mahalanobis": relative,
        "nearest neighbor, standardized": distances[:, 0],
        "nearest neighbor, cosine": raw[:, 0],
        "5th neighbor, standardized": distances[:, 4],
        "maximum softmax probability": -np.exp(logits.max(axis=1) + energy),
        "maximum logit": -logits.max(axis=1),
        "energy": energy,
        "ViM": vim,
    }
    pairs = {
        "ViM + energy": (vim, energy),
        "nearest neighbor + energy": (distances[:, 0], energy),
        "relative Mahalanobis + energy": (relative, energy),
        "nearest neighbor, cosine + ViM": (raw[:, 0], vim),
    }
    return scores | {name: sum((part - part.mean()) / part.std() for part in pair) for name, pair in pairs.items()}


def class_logits(decision: np.ndarray) -> np.ndarray:
    """Return a logit per class, float (N, C). For two classes, scikit-learn's decision function has only one column."""
    return decision if decision.ndim == 2 else np.stack([-decision / 2, decision / 2], axis=1)


def _mahalanobis(difference: np.ndarray, centered: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distance with the Ledoit–Wolf covariance of `centered`."""
    precision = np.linalg.inv(ledoit_wolf(centered, assume_centered=True)[0])
    return (difference @ precision * difference).sum(axis=1)


def left_out(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, unknown: int) -> dict[str, list[float]]:
    """Return AUROC and FPR@95 of each detector for one class left out, as means over three grouped folds."""
    known, new = np.flatnonzero(labels != unknown), np.flatnonzero(labels == unknown)
    found: dict[str, list[list[float]]] = {}
    folds = StratifiedGroupKFold(3, shuffle=True, random_state=0)
    for train, test in folds.split(features[known], labels[known], groups[known]):
        rows, inside = known[train], known[test]
        outside = new[~np.isin(groups[new], groups[rows])]
        truth = np.repeat([0, 1], [len(inside), len(outside)])
        for name, score in all_scores(features[rows], labels[rows], features[np.append(inside, outside)]).items():
            rejected = score[truth == 0] >= np.quantile(score[truth == 1], 0.05)
            found.setdefault(name, []).append([roc_auc_score(truth, score), rejected.mean()])
    return {name: np.mean(values, axis=0).tolist() for name, values in found.items()}


def read_features(data: Path, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return features, labels, groups and class names of leaves_by_disease."""
    images, ingested = ingest_images(data / "leaves_by_disease", size)
    index = ingested.index
    groups = pd.factorize(index["group"].astype(str))[0]
    return mobilenet_features(images, data), index["label"].to_numpy(), groups, ingested.classes["name"].tolist()


def main(read: Callable = read_features) -> None:
    parser = table_parser(__doc__)
    parser.add_argument("data", type=Path, help="folder of the data sets and MobileNetV2's weights")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 224])
    options = parser.parse_args()
    cells: dict[str, list[str]] = {}
    columns = ["detector"]
    for size in options.sizes:
        features, labels, groups, names = read(options.data.resolve(), size)
        crops = np.array([name.split("_")[0] for name in names])
        classes = [left_out(features, labels, groups, label) for label in range(len(names))]
        means = {
            name: {
                crop: np.mean([classes[label][name] for label in np.flatnonzero(crops == crop)], axis=0)
                for crop in (*CHOSEN_ON, "Bean")
            }
            for name in classes[0]
        }
        for name, by_crop in sorted(means.items(), key=lambda each: -sum(each[1][crop][0] for crop in CHOSEN_ON)):
            cells.setdefault(name, []).extend(f"{area:.3f}/{fpr:.2f}" for area, fpr in by_crop.values())
        columns += [f"{crop}, {size} px" for crop in ("apple", "strawberry", "bean")]
    keep_table("unknown_classes", columns, [[name, *found] for name, found in cells.items()], options.record)


if __name__ == "__main__":
    main()
