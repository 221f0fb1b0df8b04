"""Compare the labelling order of `leaf.review.active_learning` with random, entropy and k-center.

    python benchmarks/active.py --data ../shared/data --seeds 10

Each seed holds out 30% of the groups as the test set; the other images are the pool. Labels are revealed in batches of
5% of the pool. The model is a logistic regression on standardized features of a frozen MobileNetV2 (ImageNet, 96
pixels). The labels needed are the smallest share of the pool at which the accuracy stays at or above 95% of the
accuracy with all labels. Features are computed once and cached in the folder of `--cache`.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from runs import keep_table
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupShuffleSplit
from sklearn.preprocessing import StandardScaler

from leaf.ingest.sandbox import read_file, read_image
from leaf.review.active_learning import entropy, k_center, select
from leaf.store import sha256

STEP, TARGET = 0.05, 0.95
STRATEGIES = ("ours", "random", "entropy", "k-center")


def read_features(data: Path, cache: Path, size: int = 96) -> pd.DataFrame:
    """Return one row per image of both folders: set, label, group, crop and `features` float (D,)."""
    if not cache.exists():
        from leaf.models.feature_cache import frozen_features  # imports Keras

        tables = []
        for name in ("leaves_by_plant", "leaves_by_disease"):
            table = pd.read_csv(data / name / "metadata.csv", dtype=str)
            if "label" not in table:
                table["label"] = [Path(file).parts[0] for file in table["file"]]
            tables.append(table.assign(set=name))
        table = pd.concat(tables, ignore_index=True)
        paths = [data / name / file for name, file in zip(table["set"], table["file"], strict=True)]
        images = np.stack([read_image(read_file(path), size).pixels for path in paths])
        weights = data / "mobilenet_v2_imagenet_no_top.h5"
        features = frozen_features(images, np.arange(len(images)), "mobilenet_v2", str(weights), sha256(weights))
        np.savez(
            cache,
            features=features,
            **{key: table[key].fillna("").to_numpy(str) for key in ("set", "label", "group", "crop")},
        )
    with np.load(cache) as kept:
        table = pd.DataFrame({key: kept[key] for key in kept.files if key != "features"})
        table["features"] = list(kept["features"])
    return table


def choose(
    strategy: str, x: np.ndarray, labelled: np.ndarray, count: int, probabilities: np.ndarray | None, seed: int
) -> np.ndarray:
    """Return the positions of the next `count` images of the pool, by one strategy."""
    rest = np.setdiff1d(np.arange(len(x)), labelled)
    if strategy == "k-center":
        return k_center(x, count, labelled)
    if strategy == "random" or (strategy == "entropy" and probabilities is None):
        return np.random.default_rng([seed, len(labelled)]).permutation(rest)[:count]
    if strategy == "entropy":
        assert probabilities is not None
        return rest[np.argsort(-entropy(probabilities[rest]), kind="stable")[:count]]
    return rest[select(x[rest], count, None if probabilities is None else probabilities[rest], seed)]


def curve(strategy: str, x: np.ndarray, y: np.ndarray, test: np.ndarray, pool: np.ndarray, seed: int) -> list[float]:
    """Return the test accuracy after each batch."""
    counts = np.rint(np.arange(STEP, 1 + STEP / 2, STEP) * len(pool)).astype(int)
    labelled, probabilities, accuracies = np.empty(0, np.int64), None, []
    for count in counts:
        new = choose(strategy, x[pool], labelled, count - len(labelled), probabilities, seed)
        labelled = np.concatenate([labelled, new])
        known = pool[labelled]
        classes = np.unique(y[known])
        if len(classes) == 1:
            accuracies.append(float((y[test] == classes[0]).mean()))
            continue
        model = LogisticRegression(C=0.1, max_iter=300).fit(x[known], y[known])
        accuracies.append(float(model.score(x[test], y[test])))
        probabilities = model.predict_proba(x[pool])
    return accuracies


def needed(accuracies: list[float]) -> float:
    """Return the smallest share of labels from which the accuracy stays at `TARGET` of the last one."""
    below = np.flatnonzero(np.array(accuracies) < TARGET * accuracies[-1])
    return STEP * (below[-1] + 2 if len(below) else 1)


def main() -> None:
    """Print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", type=Path, default=Path("tmp_active_features.npz"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--no-record", dest="record", action="store_false", help="do not update tables.json")
    options = parser.parse_args()
    table = read_features(options.data, options.cache)
    disease = table["set"].eq("leaves_by_disease")
    sets = {
        "leaves_by_plant": ~disease,
        "leaves_by_disease": disease,
        "apple of leaves_by_disease": disease & table["crop"].eq("apple"),
    }
    rows = []
    for name, mask in sets.items():
        part = table[mask]
        raw = np.stack(part["features"].to_list()).astype(np.float64)
        y, groups = part["label"].to_numpy(), part["group"].to_numpy()
        curves: dict[str, list[list[float]]] = {strategy: [] for strategy in STRATEGIES}
        for seed in range(options.seeds):
            pool, test = next(GroupShuffleSplit(1, test_size=0.3, random_state=seed).split(raw, y, groups))
            x = StandardScaler().fit(raw[pool]).transform(raw)  # features of the pool need no labels
            x = PCA(min(128, len(pool)), whiten=False, random_state=seed).fit(x[pool]).transform(x)
            x /= np.sqrt(np.square(x[pool]).mean())
            for strategy in STRATEGIES:
                curves[strategy].append(curve(strategy, x, y, test, pool, seed))
            print(name, seed, {key: round(needed(value[-1]), 2) for key, value in curves.items()}, flush=True)
        at30 = {key: np.array(value)[:, round(0.3 / STEP) - 1] for key, value in curves.items()}
        for strategy in STRATEGIES:
            share = [needed(each) for each in curves[strategy]]
            area = np.array(curves[strategy])[:, : round(0.5 / STEP)].mean(axis=1)
            random = np.array(curves["random"])[:, : round(0.5 / STEP)].mean(axis=1)
            rows.append(
                [
                    name,
                    strategy,
                    f"{np.mean([each[-1] for each in curves[strategy]]):.1%}",
                    f"{np.mean(share):.0%}",
                    f"{at30[strategy].mean():.1%}",
                    "" if strategy == "random" else f"{(area > random).sum()} of {len(area)}",
                ]
            )
    columns = [
        *("data set", "order", "accuracy, all labels", "labels for 95% of it", "accuracy at 30% of labels"),
        "seeds better than random",
    ]
    keep_table("active", columns, rows, options.record)


if __name__ == "__main__":
    main()
