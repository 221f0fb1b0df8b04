"""Tables of kept images, as split reads them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest


def kept_images(first: int, second: int, group_size: int = 1) -> pd.DataFrame:
    """`first` images of class 0, then `second` of class 1, in runs of `group_size` that share a group."""
    numbers = np.arange(first + second)
    groups = np.where(numbers < first, numbers // group_size, first + (numbers - first) // group_size)
    return pd.DataFrame(
        {
            "image": numbers,
            "label": (numbers >= first).astype(int),
            "kept": 1,
            "group": groups,
            "origin": groups.astype(str),
            "split": "",
        }
    )


@pytest.fixture
def make_images() -> Callable[..., pd.DataFrame]:
    return kept_images
