"""Compare the labeling order of `leaf review --unlabelled` with random sampling, entropy and k-center.

    python benchmarks/active.py --data ../shared/data

Each seed holds out 30% of the groups as the test set; the other images are the pool. Labels are revealed in batches of
5% of the pool. The model is the logistic regression of the review page, on features of a frozen MobileNetV2 (ImageNet,
96 pixels). "Labels needed" is the smallest labeled share of the pool after which accuracy never falls below 95% of the
accuracy with all labels. `--cache` names a file that stores the features.
"""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from images import mobilenet_features
from runs import keep_table, table_parser
from sklearn.model_selection import GroupShuffleSplit

from leaf.ingest.sandbox import read_file, read_image
from leaf.review.active_learning import fit_head, reduce_features, select

STEP, TARGET = 0.05, 0.95
FIRST_SEED = 100  # lower seeds were used to design the labeling order
STRATEGIES = ("leaf", "random", "entropy", "k-center")


def read_features(data: Path, cache: Path, size: int = 96) -> pd.DataFrame:
    """Return one row per image of both data sets: set, label, group, crop and `features`, float (D,)."""
    if not cache.exists():
        tables = []
        for name in ("leaves_by_plant", "leaves_by_disease"):
            table = pd.read_csv(data / name / "metadata.csv", dtype=str)
            if "label" not in table:
                table["label"] = [Path(file).parts[0] for file in table["file"]]
            tables.append(table.assign(set=name))
        table = pd.concat(tables, ignore_index=True)
        paths = [data / name / file for name, file in zip(table["set"], table["file"], strict=True)]
        images = np.stack([read_image(read_file(path), size).pixels for path in paths])
        columns = {key: table[key].fillna("").to_numpy(str) for key in ("set", "label", "group", "crop")}
        np.savez(cache, features=mobilenet_features(images, data), **columns)
    with np.load(cache) as kept:
        table = pd.DataFrame({key: kept[key] for key in kept.files if key != "features"})
        table["features"] = list(kept["features"])
    return table


def choose(
    strategy: str, x: np.ndarray, labelled: np.ndarray, count: int, probabilities: np.ndarray | None, seed: int
) -> np.ndarray:
    """Return the positions in the pool of the next `count` images to label."""
    rest = np.setdiff1d(np.arange(len(x)), labelled)
    if count == len(rest):
        return rest
    if strategy == "k-center":
        return k_center(x, count, labelled)
    if strategy == "random" or (strategy == "entropy" and probabilities is None):
        return np.random.default_rng([seed, len(labelled)]).permutation(rest)[:count]
    if strategy == "entropy":
        assert probabilities is not None
        return rest[np.argsort(-entropy(probabilities[rest]), kind="stable")[:count]]
    return rest[select(x[rest], count, None if probabilities is None else probabilities[rest], seed)]


def entropy(probabilities: np.ndarray) -> np.ndarray:
    """Return the Shannon entropy of each row, float (N,), in nats."""
    clipped = np.clip(probabilities, 1e-12, 1)
    return -(clipped * np.log(clipped)).sum(axis=1)


def k_center(features: np.ndarray, count: int, labelled: np.ndarray) -> np.ndarray:
    """Return `count` positions chosen by greedy k-center: each is farthest from the labeled and already chosen images.

    References:
        Sener and Savarese, "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """
    chosen = [] if len(labelled) else [int(np.square(features - features.mean(axis=0)).sum(axis=1).argmin())]
    gaps = np.full(len(features), np.inf)
    for center in [*labelled.tolist(), *chosen]:
        gaps = np.minimum(gaps, np.square(features - features[center]).sum(axis=1))
    while len(chosen) < count:
        chosen.append(int(gaps.argmax()))
        gaps = np.minimum(gaps, np.square(features - features[chosen[-1]]).sum(axis=1))
    return np.array(chosen[:count], np.int64)


def curve(strategy: str, x: np.ndarray, y: np.ndarray, test: np.ndarray, pool: np.ndarray, seed: int) -> list[float]:
    """Return the test accuracy after each batch up to 60% of the pool, and with all of it."""
    counts = np.rint(np.append(np.arange(STEP, 0.6 + STEP / 2, STEP), 1) * len(pool)).astype(int)
    labelled, probabilities, accuracies = np.empty(0, np.int64), None, []
    for count in counts:
        new = choose(strategy, x[pool], labelled, count - len(labelled), probabilities, seed)
        labelled = np.concatenate([labelled, new])
        known = pool[labelled]
        classes = np.unique(y[known])
        if len(classes) == 1:
            accuracies.append(float((y[test] == classes[0]).mean()))
            continue
        model = fit_head(x[known], y[known])
        accuracies.append(float(model.score(x[test], y[test])))
        probabilities = model.predict_proba(x[pool])
    return accuracies


def needed(accuracies: list[float]) -> float:
    """Return the smallest share (at most 65%) after which accuracy never falls below `TARGET` × its last value."""
    below = np.flatnonzero(np.array(accuracies[:-1]) < TARGET * accuracies[-1])
    return STEP * (below[-1] + 2 if len(below) else 1)


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir(), "active_features.npz"))
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    table = read_features(options.data, options.cache)
    disease = table["set"].eq("leaves_by_disease")
    sets = {
        "leaves_by_plant": ~disease,
        "leaves_by_disease": disease,
        "apple images of leaves_by_disease": disease & table["crop"].eq("apple"),
    }
    rows = []
    for name, mask in sets.items():
        part = table[mask]
        x = reduce_features(np.stack(part["features"].to_list()))
        y, groups = part["label"].to_numpy(), part["group"].to_numpy()
        curves: dict[str, list[list[float]]] = {strategy: [] for strategy in STRATEGIES}
        for seed in range(options.seeds):
            pool, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=FIRST_SEED + seed).split(x, y, groups))
            for strategy in STRATEGIES:
                curves[strategy].append(curve(strategy, x, y, test, pool, seed))
            print(name, seed, {key: round(needed(value[-1]), 2) for key, value in curves.items()}, flush=True)
        shares = {key: np.mean([needed(each) for each in value]) for key, value in curves.items()}
        areas = {key: np.array(value)[:, : round(0.5 / STEP)].mean(axis=1) for key, value in curves.items()}
        for strategy, values in curves.items():
            better = f"{(areas[strategy] > areas['random']).sum()} of {len(values)}"
            full, at30 = np.array(values)[:, -1].mean(), np.array(values)[:, round(0.3 / STEP) - 1].mean()
            cells = [f"{full:.1%}", f"{shares[strategy]:.0%}", f"{at30:.1%}", "" if strategy == "random" else better]
            rows.append([name, strategy, *cells])
    columns = [
        "data set",
        "order",
        "accuracy, all labels",
        "labels for 95% of that accuracy",
        "accuracy, 30% of the labels",
    ]
    columns.append("seeds with a higher mean accuracy than random (up to 50% of the labels)")
    keep_table("active", columns, rows, options.record)


if __name__ == "__main__":
    main()
