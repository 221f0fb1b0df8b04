"""Different subjects on the same background, with padding or borders, are neither copies nor outliers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from leaf.clean.clean import Cleaned, clean
from leaf.params import Params
from tests.clean.lookalikes import SETS, jpeg

COUNT, COPIED = 50, 10


@pytest.fixture(scope="module", params=SETS)
def cleaned(request: Any, index: Callable[..., pd.DataFrame], no_overrides: pd.DataFrame) -> Cleaned:
    """Clean COUNT different images, JPEG copies of the first COPIED, and brighter copies of the next COPIED."""
    rng = np.random.default_rng(5)
    images = [SETS[request.param](rng) for _ in range(COUNT)]
    resaved = [jpeg(image, 80) for image in images[:COPIED]]
    brighter = [np.clip(image + 4.0, 0, 255).astype(np.uint8) for image in images[COPIED : 2 * COPIED]]
    images = np.stack([*images, *resaved, *brighter])
    return clean(images, index(images), "auto", no_overrides, Params())


def test_different_subjects_are_kept(cleaned: Cleaned) -> None:
    assert cleaned.decisions["kept"][:COUNT].sum() >= COUNT - 1  # two generated leaves of 24 px may look the same
    assert cleaned.metrics["outliers"] == 0


def test_different_subjects_are_in_different_groups(cleaned: Cleaned) -> None:
    assert cleaned.decisions["group"][:COUNT].nunique() >= COUNT - 2


def test_copies_among_lookalikes_are_removed(cleaned: Cleaned) -> None:
    copies = cleaned.decisions[COUNT:]
    assert copies["reason"].tolist() == ["near_duplicate"] * 2 * COPIED
    assert copies["copy_of"].tolist() == list(range(2 * COPIED))
