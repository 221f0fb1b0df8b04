"""Create tables of kept images, which are the input of the split."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest


def kept_images(*counts: int, group_size: int = 1) -> pd.DataFrame:
    """Return a table with `counts` images per class, in order of class and in groups of `group_size`."""
    labels = np.repeat(np.arange(len(counts)), counts)
    place = np.concatenate([np.arange(count) for count in counts])
    groups = place // group_size + np.repeat(np.cumsum([0, *counts[:-1]]), counts)
    return pd.DataFrame(
        {
            "image": np.arange(len(labels)),
            "label": labels,
            "kept": 1,
            "group": groups,
            "file_hash": [f"file {number}" for number in range(len(labels))],
            "split": "",
        }
    )


@pytest.fixture
def make_images() -> Callable[..., pd.DataFrame]:
    return kept_images
