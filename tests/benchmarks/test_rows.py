"""`python benchmarks/rows.py` trains and scores every row of experiments.yaml."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from leaf.experiments import read_experiments
from leaf.models.backbones import find

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ROWS = read_experiments(ROOT / "experiments.yaml")
TINY = {
    "epochs": 1,
    "frozen_epochs": 0,
    "image_size": 32,
    "weights": "random",  # tests cannot download published weights
    "batch_size": 16,
    "micro_batch": 0,
    "views": 1,
    "drawn.images": 100,
    "drawn.size": 32,
    "validation_size": 0.2,
    "test_size": 0.2,  # the rows of the course report have no test split
}


def backbones() -> dict[str, str]:
    """Return the backbone of each row."""
    return {name: row.set.get("backbone", "convnext_atto") for name, row in ROWS.items()}


def run(rows, synthetic, folder, **settings):
    """Return the results of `python benchmarks/rows.py` for these rows at a tiny size."""
    command = [sys.executable, ROOT / "benchmarks/rows.py", *rows, "--dataset", synthetic, "--work", folder / "work"]
    for key, value in {**TINY, **settings}.items():
        command += ["--set", f"{key}={value}"]
    command += ["--results", folder / "rows.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "rows.json").read_text(encoding="utf-8"))


def settings_of(row: str) -> set[tuple]:
    """Return the (key, value) pairs of a row without its backbone; all numbers except 0 count as equal."""
    values = {key: value for key, value in ROWS[row].set.items() if key not in ("backbone", "weights_sha256")}
    return {
        (key, value if isinstance(value, str | bool | None) or not value else "a number")
        for key, value in values.items()
    }


# Trained only nightly: each takes as long to build as all others together, or differs from another network
# only in the number of layers or in its score. tests/models/ builds and saves them in every run.
NIGHTLY = {"convnext_large": {"backbone": "convnext_tiny"}, "xception": {"image_size": 80}}
NIGHTLY |= {name: {} for name in ("resnet50", "efficientnet_v2_b0", "mobilenet", "cnn_medium", "cnn_large")}
NIGHTLY |= {name: {} for name in ("autoencoder_redness", "gan", "gan_redness")}
# convnext_atto is trained through DVC, below.
FIRSTS = {name: row for row, name in reversed(backbones().items()) if name not in {*NIGHTLY, "convnext_atto"}}


@pytest.mark.timeout(1800)
def test_one_row_per_network_trains_and_is_scored(synthetic, tmp_path):
    """Run the first row of each network; the detector also runs on a second data set, synthetic leaves."""
    results = run(FIRSTS.values(), synthetic, tmp_path)
    assert {result["row"] for result in results} == set(FIRSTS.values())
    assert all(0 <= result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"] <= 1 for result in results)
    assert {result["row"] for result in results if result["dataset"] == "drawn leaves"} == {"autoencoder"}


@pytest.mark.parametrize("row", ["transfer", "probe_convnext"])
def test_row_with_weights_to_download_is_skipped(synthetic, monkeypatch, row):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from rows import settings

    assert settings(ROWS[row], synthetic, {}, {}) is None


def merged_settings() -> list[dict[str, object]]:
    """Merge the settings of the other rows into a few training runs, without setting a key twice."""
    seen = set().union(*map(settings_of, FIRSTS.values()))
    merged: list[tuple[set[str], dict[str, object]]] = []
    for row in (row for row in ROWS if row not in FIRSTS.values()):
        new = {key for key, _ in settings_of(row) - seen}
        seen |= settings_of(row)
        if new:
            free = [each for each in merged if not new & each[0]] or [(set(), {})]
            merged += free if free[0] not in merged else []
            free[0][0].update(new)
            free[0][1].update({key: ROWS[row].set[key] for key in new})
    return [values for _, values in merged]


@pytest.mark.full
def test_each_setting_of_the_rows_trains_and_is_scored(synthetic, tmp_path, monkeypatch):
    """Use the smallest network."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from runs import figures, run_all

    settings = [
        values | TINY | {"backbone": "cnn_small", "freeze_depth": 2, "dataset": str(synthetic)}
        for values in merged_settings()
    ]
    folders = run_all(settings, tmp_path / "work", jobs=1)
    assert len(set(folders)) == len(settings) > 1
    for folder in folders:
        assert 0 <= figures(folder)["test"]["accuracy"] <= 1


@pytest.mark.full
@pytest.mark.parametrize("backbone", NIGHTLY)
def test_one_row_per_nightly_network_trains(synthetic, tmp_path, backbone):
    """Replace ConvNeXtLarge with the smallest published size of its family."""
    row = next(row for row, each in backbones().items() if each == backbone)
    for result in run([row], synthetic, tmp_path, **NIGHTLY[backbone]):
        assert 0 <= result["accuracy"] <= 1


def test_freeze_depth_of_each_row_is_within_its_backbone():
    for row, backbone in backbones().items():
        depth = ROWS[row].set.get("freeze_depth", 0)
        assert depth == "all" or depth <= find(backbone).operations


@pytest.mark.parametrize("row", ["plain", pytest.param("autoencoder", marks=pytest.mark.full)])
def test_row_runs_through_dvc(project, row):
    settings = ["-S", "epochs=1", "-S", f"backbone={backbones()[row]}"]
    project.run("leaf", "run", row, "--temp", *settings)
    changed = project.run("dvc", "metrics", "diff", "--all", "main", row).stdout
    assert re.search(r"train\.json\s+epochs\s+2\s+1\s", changed)
    assert re.search(r"evaluate\.json\s+test\.accuracy\s+0\.\d+\s+0\.\d+", changed)
