"""Every benchmark runs at its smallest size, so that none rots; figures of that size mean nothing and are not kept."""

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
# Scripts that import TensorFlow share a process: importing it is most of their time.
TOGETHER = ("train_step", "epoch")
KEYS = ["name", "ours", "other", "ratio", "spread", "target", "met", "memory"]
# The rows that each process must print; a peer that is not installed costs its rows, and that is said.
ROWS = {
    ("clean",): ["clean_report"],
    ("clean_scale",): ["clean_scale"],
    ("balance",): ["balance"],
    ("ingest",): ["ingest_folder", "ingest_grown", "ingest_npz"],
    TOGETHER: ["epoch", "train_step_keras"],
    ("gpu_step",): [],
    ("pipeline",): ["pipeline", "pipeline_idle", "pipeline_idle_shape"],
    ("probe",): ["probe", "probe_again"],
    ("predict",): ["page", "predict", "serve"],
    ("slopes",): [],
    ("million",): [],
}
FULL = pytest.mark.full  # the whole pipeline four times
PEERS = {("clean",): ("cleanvision", ["clean_cleanvision", "clean_default"])}
PEERS[TOGETHER] = ("torch", ["train_step_convnext_atto", "train_step_convnext_tiny"])
RUN = """
import runpy, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
sys.argv[1:] = ["--size", "tiny"]
for name in names:
    runpy.run_path(f"{folder}/{name}.py", run_name="__main__")
"""


def run(names):
    """Run scripts one after the other in one process; gives what they print."""
    command = [sys.executable, "-c", RUN, str(SCRIPTS), *names]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def kept():
    """The files that no tiny run may touch, as they are."""
    return {path.name: path.read_bytes() for path in SCRIPTS.glob("*.json")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [pytest.param(names, id="+".join(names), marks=FULL if names == ("probe",) else ()) for names in ROWS]
)
def test_a_script_runs_and_measures_what_it_names(names):
    before = kept()
    printed = run(names)
    measured = sorted(re.findall(r"^(\w+): [\d.]+ \([\d.]+ to [\d.]+\), target", printed, re.M))
    peer, rows = PEERS.get(names, ("", []))
    missing = bool(peer) and importlib.util.find_spec(peer) is None
    assert measured == sorted(ROWS[names] + ([] if missing else rows))
    assert not missing or f"no {peer}" in printed
    assert kept() == before
    if names == ("gpu_step",) and "not run" in printed:  # where there is no card, our side runs all the same
        losses = re.search(r"^gpu_step: ours alone, convnext_atto: losses (.*)$", printed, re.M)[1].split()
        assert len(losses) == 3
        assert float(losses[2]) < float(losses[0])


def test_every_benchmark_of_the_page_is_run_here():
    assert {name for names in ROWS for name in names} == set(scripts())


def scripts():
    """What `make bench` runs."""
    listed = (SCRIPTS / "every.py").read_text(encoding="utf-8")
    return re.findall(r'"(\w+)"', listed[listed.index("SCRIPTS =") : listed.index("def main")])


@pytest.fixture
def measure(monkeypatch, tmp_path):
    """benchmarks/measure.py, with its files elsewhere."""
    spec = importlib.util.spec_from_file_location("measure", SCRIPTS / "measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results.json")
    return module


def test_a_row_has_the_keys_and_replaces_the_one_of_its_name(measure, capsys):
    other = measure.row("other", [1.0], [1.0], ">= 1")
    for row in (other, measure.row("x", [1.0], [5.0], ">= 10"), measure.row("x", [1.0], [20.0], ">= 10")):
        measure.report(row, record=True)
    rows = json.loads(measure.RESULTS.read_text())
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert [(row["name"], row["ratio"], row["met"]) for row in rows] == [("other", 1.0, True), ("x", 20.0, True)]


@pytest.mark.parametrize(
    ("ours", "other", "target", "ratio", "met"),
    [([2.0], [1.0], "<= 1.3", 2.0, False), ([1.2], [1.0], "<= 1.3", 1.2, True), ([2.0], [1.0], ">= 1", 0.5, False)],
)
def test_a_target_is_met_on_its_own_side(measure, ours, other, target, ratio, met):
    row = measure.row("x", ours, other, target)
    assert (row["ratio"], row["met"]) == (ratio, met)
