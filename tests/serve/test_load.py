"""Test `leaf serve` under load."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "predict.py"


@pytest.mark.slow
@pytest.mark.full
def test_latency_with_8_clients_is_below_1_5_times_8_inferences():
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--size", "bench", "--no-record"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]  # exits with 1 if a response is lost or mixed up
    ratio = float(re.search(r"^serve: ([\d.]+) ", done.stdout, re.M)[1])
    assert ratio < 1.5, done.stdout  # median latency divided by 8 × the inference time of one image
