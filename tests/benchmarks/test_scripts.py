"""Run every benchmark at its smallest size. The results are meaningless at that size and are not recorded."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "benchmarks"
sys.path.insert(0, str(SCRIPTS))

import every  # noqa: E402
import measure  # noqa: E402

KEYS = ["name", "ours", "other", "ratio", "spread", "target", "met", "memory"]
# The rows that each script must print. If a peer is not installed, its rows are missing and the script prints why.
ROWS = {
    "clean": ["clean_report"],
    "clean_scale": ["clean_scale"],
    "balance": ["balance"],
    "ingest": ["ingest_folder", "ingest_grown", "ingest_npz"],
    "train_step": ["train_step_keras"],
    "epoch": ["epoch"],
    "gpu_step": [],
    "pipeline": ["pipeline", "pipeline_idle", "pipeline_idle_shape"],
    "probe": ["probe", "probe_again"],
    "predict": ["page", "page_p99", "predict", "serve"],
    "slopes": [],
    "million": [],
}
# Run only nightly.
LONG = ("gpu_step", "train_step", "pipeline", "probe", "predict", "slopes", "million")
PEERS = {"clean": ("cleanvision", ["clean_cleanvision", "clean_default"])}
PEERS["train_step"] = ("torch", ["train_step_convnext_atto", "train_step_convnext_tiny"])
RUN = """
import runpy, sys
folder, options, *names = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv[1:] = options.split()
for name in names:
    try:
        runpy.run_path(f"{folder}/{name}.py", run_name="__main__")
    except SystemExit as ended:
        assert not ended.code, name
"""


def run(names, options):
    """Run the scripts in one process, which imports TensorFlow once, and return their output."""
    command = [sys.executable, "-c", RUN, str(SCRIPTS), options, *names]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def recorded():
    """Return the content of the result files, which a tiny run must not change."""
    return {path.name: path.read_bytes() for path in SCRIPTS.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.full if name in LONG else ()) for name in ROWS])
def test_script_runs_and_prints_its_rows(name):
    before = recorded()
    printed = run([name], "--size tiny")
    measured = sorted(re.findall(r"^(\w+): [\d.]+ \([\d.]+ to [\d.]+\), target", printed, re.M))
    peer, rows = PEERS.get(name, ("", []))
    missing = bool(peer) and importlib.util.find_spec(peer) is None
    assert measured == sorted(ROWS[name] + ([] if missing else rows))
    assert not missing or peer in printed.lower()
    assert recorded() == before
    if (
        name == "gpu_step" and "not run" in printed
    ):  # without a GPU, the script runs leaf's step with each depthwise convolution
        found = re.findall(r"^gpu_step: ours alone, convnext_atto, (\w+): losses (.*)$", printed, re.M)
        losses = {kind: [float(loss) for loss in each.split()] for kind, each in found}
        assert losses.keys() == {"nhwc", "shifted", "nchw"}
        assert losses["nhwc"][2] < losses["nhwc"][0]
        assert all(each == pytest.approx(losses["nhwc"], rel=0.02) for each in losses.values())


def test_every_benchmark_of_make_bench_is_tested():
    assert ROWS.keys() == {*every.SCRIPTS, *every.LARGE}


@pytest.mark.slow
def test_every_script_prints_its_usage():
    names = sorted(path.stem for path in SCRIPTS.glob("*.py") if '__name__ == "__main__"' in path.read_text())
    names.sort(key="gpu_step".__eq__)  # the script selects the Keras backend, so it runs last
    assert run(names, "--help").count("usage: ") == len(names) >= len(ROWS)


@pytest.fixture
def results(monkeypatch, tmp_path):
    """Redirect the results of benchmarks/measure.py to the returned file."""
    monkeypatch.setattr(measure, "RESULTS", tmp_path / "results.json")
    return measure.RESULTS


def test_row_replaces_the_earlier_row_of_its_name(results, capsys):
    other = measure.row("other", [1.0], [1.0], ">= 1")
    for row in (other, measure.row("x", [1.0], [5.0], ">= 10"), measure.row("x", [1.0], [20.0], ">= 10")):
        measure.report(row, record=True)
    rows = json.loads(results.read_text())
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["name"], row["ratio"], row["met"]) for row in rows] == [("other", 1.0, True), ("x", 20.0, True)]


@pytest.mark.parametrize(
    ("ours", "other", "target", "ratio", "met"),
    [([2.0], [1.0], "<= 1.3", 2.0, False), ([1.2], [1.0], "<= 1.3", 1.2, True), ([2.0], [1.0], ">= 1", 0.5, False)],
)
def test_target_is_met_in_its_direction(ours, other, target, ratio, met):
    row = measure.row("x", ours, other, target)
    assert (row["ratio"], row["met"]) == (ratio, met)
