"""imbalanced-learn's SMOTE, asked for parents and weights instead of images."""

from typing import Any

import numpy as np
from imblearn.over_sampling import SMOTE

from leaf.resampling.neighbors import PixelNeighbors


class TracedSMOTE(SMOTE):
    """SMOTE (Chawla 2002) that says which two images each synthetic one lies between, and how far along.

    imbalanced-learn exposes neither (its issue 772) and stacks all images into a new float array; here its own
    `_make_samples` draws, and what it drew is kept. The same seed gives the same synthetic images.
    """

    def trace(self, members: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw `samples` synthetic images of a class of `members`, (N, D) uint8 or float32.

        Returns parents and neighbours, int64 rows of `members`, and weights, float64 in [0, 1): a synthetic image is
        parent + weight × (neighbour − parent).
        """
        self._validate_estimator()
        self.nn_k_.fit(members)
        neighbours = self.nn_k_.kneighbors(members, return_distance=False)[:, 1:]
        self._make_samples(members, np.int64, 0, members, neighbours, samples)
        return self._drawn

    def _generate_samples(
        self,
        X: np.ndarray,
        nn_data: np.ndarray,  # noqa: ARG002 (imbalanced-learn's interface)
        nn_num: np.ndarray,
        rows: np.ndarray,
        cols: np.ndarray,
        steps: np.ndarray,
        *_: Any,
    ) -> np.ndarray:
        self._drawn = rows, nn_num[rows, cols], steps[:, 0]
        return X[:0]


def smote(members: np.ndarray, samples: int, neighbors: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`TracedSMOTE.trace` with the `neighbors` nearest members by pixels and the random `seed`."""
    sampler = TracedSMOTE(random_state=seed, k_neighbors=PixelNeighbors(neighbors + 1))
    return sampler.trace(members, samples)
