"""Labels that look wrong: confident learning (Northcutt 2021), by cleanlab."""

import numpy as np


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images whose label is likely wrong, the most likely first: places int64 (K,), and scores float64 (K,).

    `labels` 0/1 (N,) of both classes, `probabilities` of 1 (N,) by a network that did not learn from these images. A
    score is the probability of the label that the image bears: low is suspicious.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    both = np.stack([1 - probabilities, probabilities], axis=1)
    found = find_label_issues(labels, both, return_indices_ranked_by="self_confidence", n_jobs=1)
    return np.asarray(found, np.int64), get_label_quality_scores(labels, both)[found]
