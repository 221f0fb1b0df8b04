"""Test the networks that benchmarks/scratch.py compares with the default network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNTS = """
import json
from leaf.models.build import build_model
import scratch
counts = {}
for name in ("convnext_atto", *scratch.ARCHITECTURES):
    counts[name] = sum("BatchNormalization" in type(layer).__name__ for layer in build_model(name, 32).layers)
print(json.dumps(counts))
"""


@pytest.mark.slow
def test_networks_differ_in_their_batch_normalizations() -> None:
    """Use a separate process, because importing the script registers its networks."""
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'benchmarks')]}\n{COUNTS}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"convnext_atto": 1, "atto_bn_stem": 3, "atto_bn": 19}
