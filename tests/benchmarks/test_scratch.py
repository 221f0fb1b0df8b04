"""The networks that benchmarks/scratch.py compares with the default one."""

import sys
from pathlib import Path

import pytest

from leaf.models.build import build_model

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "normalizations"), [("convnext_atto", 1), ("atto_bn_stem", 3), ("atto_bn", 19)])
def test_networks_differ_in_their_batch_normalizations(name: str, normalizations: int) -> None:
    import scratch  # noqa: F401 - registers the networks

    model = build_model(name, 32)
    assert sum("BatchNormalization" in type(layer).__name__ for layer in model.layers) == normalizations
