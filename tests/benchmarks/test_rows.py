"""Every named experiment runs, and the table of the documentation is made of what ran."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
# Published weights are not to be had in a test.
TINY = {
    "epochs": 1,
    "frozen_epochs": 0,
    "image_size": 32,
    "weights": "random",
    "batch_size": 16,
    "micro_batch": 0,
    "views": 1,
    "drawn.images": 100,
    "drawn.size": 32,
    "validation_size": 0.2,
}


def names() -> list[str]:
    return list(yaml.safe_load((ROOT / "experiments.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """100 drawn leaves."""
    from leaf.drawing import draw_dataset, scaled, write_npz

    file = tmp_path_factory.mktemp("leaves") / "leaves.npz"
    images, labels = draw_dataset(scaled(100), 80, 1)
    write_npz(file, images, ["unhealthy" if label else "healthy" for label in labels])
    return file


def ran(rows, leaves, folder, **settings):
    """The results of `python benchmarks/rows.py` for these rows at a tiny size."""
    command = [sys.executable, ROOT / "benchmarks/rows.py", *rows, "--dataset", leaves, "--work", folder / "work"]
    for key, value in {**TINY, **settings}.items():
        command += ["--set", f"{key}={value}"]
    command += ["--results", folder / "rows.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "rows.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(1800)
def test_every_row_trains_and_is_scored(leaves, tmp_path):
    """ConvNeXtLarge's rows run with the tiny network of its family; its own counts are tests/networks/'s."""
    large = [name for name in names() if name.startswith("report_") and name != "report_mobilenet_v2"]
    others = [name for name in names() if name not in [*large, "xception"]]
    results = ran(others, leaves, tmp_path) + ran(large, leaves, tmp_path, backbone="convnext_tiny", test_size=0.2)
    results += ran(["xception"], leaves, tmp_path, image_size=80)  # it takes no smaller image
    assert {result["row"] for result in results} == set(names())
    assert all(0 <= result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"] <= 1 for result in results)
    assert {result["row"] for result in results if result["dataset"] == "drawn leaves"} == {"autoencoder", "gan"}


@pytest.mark.parametrize("row", ["plain", "cnn_small", "mobilenet_v2", "autoencoder"])
def test_a_row_of_each_family_runs_through_dvc(project, row):
    project.run("leaf", "run", row, "--temp", "-S", "epochs=1", "-S", "weights=random")
    changed = project.run("dvc", "metrics", "diff", "--all", "main", row).stdout
    assert re.search(r"train\.json\s+epochs\s+2\s+1\s", changed)
    assert re.search(r"evaluate\.json\s+test\.accuracy\s+0\.\d+\s+0\.\d+", changed)
