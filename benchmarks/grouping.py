"""How well `group_by: features` finds the photographs of one leaf, where the true leaf of each is known.

python benchmarks/grouping.py ../shared/data --size 224

Clusters leaves_by_plant by MobileNetV2's features and colours as the stage split does, each species alone and all
of it, and prints the adjusted Rand index with the true leaves, the share of leaves whose photographs stand in several
clusters, and of five folds with whole clusters the share of images that have another photograph of their leaf in
another fold, which is the leak that is left.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import StratifiedGroupKFold

from leaf import networks
from leaf.colours import joint_histograms
from leaf.reading.ingest import ingest
from leaf.splitting.clustering import CUT, cluster_groups
from leaf.store import sha256

WEIGHTS = "mobilenet_v2_imagenet_no_top.h5"


def left(leaf: np.ndarray, cluster: np.ndarray, labels: np.ndarray) -> float:
    """Share of images with another photograph of their leaf in another fold, of five folds with whole clusters."""
    fold = np.zeros(len(leaf), np.int64)
    parted = StratifiedGroupKFold(5, shuffle=True, random_state=42).split(labels, labels, cluster)
    for number, (_, test) in enumerate(parted):
        fold[test] = number
    return float(np.mean([(fold[leaf == one] != number).any() for one, number in zip(leaf, fold, strict=True)]))


def row(name: str, leaf: np.ndarray, cluster: np.ndarray, labels: np.ndarray) -> str:
    """A row of the table."""
    leaves = [cluster[leaf == one] for one in np.unique(leaf) if (leaf == one).sum() > 1]
    apart = np.mean([len(np.unique(each)) > 1 for each in leaves])
    sizes = np.unique(cluster, return_counts=True)[1]
    cells = [
        *(str(len(leaf)), str(len(np.unique(leaf))), str(len(sizes)), str(sizes.max())),
        *(
            f"{adjusted_rand_score(leaf, cluster):.2f}",
            f"{100 * apart:.0f} %",
            f"{100 * left(leaf, cluster, labels):.0f} %",
        ),
    ]
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help=f"folder of leaves_by_plant and {WEIGHTS}")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--cut", type=float, default=CUT, help="distance above which clusters are not joined")
    options = parser.parse_args()
    weights = options.data / WEIGHTS
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "images.npy"
        index = ingest(options.data / "leaves_by_plant", path, ("healthy", "unhealthy"), options.size).index
        images = np.load(path)
    rows = np.arange(len(images))
    features = networks.frozen_features(images, rows, "mobilenet_v2", str(weights), sha256(weights))
    colours = joint_histograms(images, rows)
    leaf, labels = np.unique(index["group"], return_inverse=True)[1], index["label"].to_numpy()
    strawberry = index["group"].str.startswith("strawberry").to_numpy()
    print("| photographs | images | leaves | clusters | largest | Rand index | leaves split apart | leak left |")
    print("| --- |" + " --: |" * 7)
    for name, chosen in (("apple", ~strawberry), ("strawberry", strawberry), ("both", np.ones(len(leaf), bool))):
        alone = np.arange(chosen.sum())
        cluster = cluster_groups(alone, features[chosen], colours[chosen], options.cut)
        print(row(name, leaf[chosen], cluster, labels[chosen]))
    print(row("both, no groups", leaf, np.arange(len(leaf)), labels))


if __name__ == "__main__":
    main()
