"""Simulate the coverage of 95% intervals, and how often `leaf compare` reports a difference between equal runs.

Each data set has 20, 33 or 60 leaves with six images each (even), or with a log-normal number of images with a mean of
about six (skewed). The probability of a correct prediction follows a beta distribution over leaves, with mean 0.9 and
intraclass correlation 0.3. The score of an image is normal, with a leaf effect of 0.8 standard deviations and a class
difference of 2. Recall uses one class, which has 40% of the leaves. The accuracies of the three seeds have a standard
deviation of 2 points. Compared runs have equal accuracy and make errors on different leaves. The naive methods ignore
leaves: Wilson's interval, DeLong's interval and McNemar's test.
"""

import math
from collections import defaultdict

import numpy as np
from runs import keep_table, table_parser
from scipy.stats import binomtest, norm

from leaf.evaluate.statistics import auc_interval, proportion_interval, sign_flip_test, wilson_interval

ACCURACY, CORRELATION = 0.9, 0.3
SEPARATION, LEAF_EFFECT, SEED_DEVIATION = 2.0, 0.8, 0.02
AUC = float(norm.cdf(SEPARATION / math.sqrt(2 * (1 + LEAF_EFFECT**2))))
COLUMNS = [
    *("leaves", "accuracy", "recall", "AUC", "mean over 3 seeds"),
    *("false differences", "naive accuracy", "naive AUC", "naive McNemar"),
]


def leaf_sizes(leaves: int, skewed: bool, random: np.random.Generator) -> np.ndarray:
    """Return the number of images of each leaf."""
    if not skewed:
        return np.full(leaves, 6)
    return np.maximum(1, np.round(6 * random.lognormal(-0.5, 1, leaves))).astype(int)


def correctness(groups: np.ndarray, random: np.random.Generator, accuracy: float = ACCURACY) -> np.ndarray:
    """Simulate which images are classified correctly, and return bool (N,)."""
    scale = (1 - CORRELATION) / CORRELATION
    of_leaf = random.beta(accuracy * scale, (1 - accuracy) * scale, groups.max() + 1)
    return random.random(len(groups)) < of_leaf[groups]


def simulate(leaves: int, skewed: bool, replicates: int) -> dict[str, float]:
    """Return the coverage of each interval and the rejection rate of each test."""
    random = np.random.default_rng(leaves + skewed)
    found: dict[str, list[bool]] = defaultdict(list)

    def covers(name: str, interval: tuple[float, float], truth: float) -> None:
        found[name].append(interval[0] <= truth <= interval[1])

    for _ in range(replicates):
        sizes = leaf_sizes(leaves, skewed, random)
        groups = np.repeat(np.arange(leaves), sizes)
        correct = correctness(groups, random)
        covers("accuracy", proportion_interval(correct, groups), ACCURACY)
        covers("naive accuracy", wilson_interval(int(correct.sum()), len(correct)), ACCURACY)
        labels = (random.permutation(leaves) < 0.4 * leaves)[groups].astype(int)
        one = labels == 1
        covers("recall", proportion_interval(correct[one], groups[one]), ACCURACY)
        scores = SEPARATION * labels + random.normal(size=len(labels))
        scores += LEAF_EFFECT * random.normal(size=leaves)[groups]
        covers("AUC", auc_interval(labels, scores, groups)[1:], AUC)
        covers("naive AUC", auc_interval(labels, scores)[1:], AUC)
        # Seeds share the leaves' difficulty and differ in their overall accuracy.
        difficulty, noise = random.normal(size=leaves)[groups], random.normal(size=(3, len(groups)))
        shift = SEED_DEVIATION * random.normal(size=(3, 1))
        latent = math.sqrt(CORRELATION) * difficulty + math.sqrt(1 - CORRELATION) * noise
        seeds = latent < norm.ppf(np.clip(ACCURACY + shift, 0.01, 0.99))
        covers("mean over 3 seeds", proportion_interval(seeds, groups), ACCURACY)
        if len(found["false differences"]) < 600:
            other = correctness(groups, random)
            found["false differences"].append(sign_flip_test(other.astype(float) - correct, groups) < 0.05)
            only = int((other & ~correct).sum()), int((correct & ~other).sum())
            found["naive McNemar"].append(sum(only) > 0 and binomtest(only[0], sum(only)).pvalue < 0.05)
    return {name: float(np.mean(each)) for name, each in found.items()}


def main() -> None:
    parser = table_parser(__doc__)
    parser.add_argument("--replicates", type=int, default=2000)
    options = parser.parse_args()
    rows = []
    for leaves in (20, 33, 60):
        for skewed in (False, True):
            found = simulate(leaves, skewed, options.replicates)
            shown = [f"{found[name]:.3f}" for name in COLUMNS[1:]]
            rows.append([f"{leaves}, {'skewed' if skewed else 'even'}", *shown])
    keep_table("coverage", COLUMNS, rows, options.record)


if __name__ == "__main__":
    main()
