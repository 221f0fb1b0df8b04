"""Every named experiment runs, and the table of the documentation is made of what ran."""

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
    "test_size": 0.2,  # the report's rows have none
}


def backbones() -> dict[str, str]:
    """The network of each row."""
    return {name: row.set.get("backbone", "convnext_atto") for name, row in ROWS.items()}


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """100 drawn leaves."""
    from leaf.synthesize import draw_dataset, scaled, write_npz

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


def choices(row: str) -> set[tuple]:
    """What a row says beside its network: each key, with the value where that is a name, a switch or nothing at all."""
    values = {key: value for key, value in ROWS[row].set.items() if key not in ("backbone", "weights_sha256")}
    return {
        (key, value if isinstance(value, str | bool | None) or not value else "a number")
        for key, value in values.items()
    }


# Trained every night: each takes as long to build as all the others together, or is the code of another one with more
# layers or another score. tests/models/ builds and saves them in every run.
NIGHTLY = {"convnext_large": {"backbone": "convnext_tiny"}, "xception": {"image_size": 80}}
NIGHTLY |= {name: {} for name in ("resnet50", "efficientnet_v2_b0", "mobilenet", "cnn_medium", "cnn_large")}
NIGHTLY |= {name: {} for name in ("autoencoder_redness", "gan", "gan_redness")}
# convnext_atto is trained through DVC, below.
FIRSTS = {name: row for row, name in reversed(backbones().items()) if name not in {*NIGHTLY, "convnext_atto"}}


@pytest.mark.timeout(1800)
def test_a_row_of_each_kind_of_network_trains_and_is_scored(leaves, tmp_path):
    """The first row that has the network; a detector's on drawn leaves, too."""
    results = ran(FIRSTS.values(), leaves, tmp_path)
    assert {result["row"] for result in results} == set(FIRSTS.values())
    assert all(0 <= result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"] <= 1 for result in results)
    assert {result["row"] for result in results if result["dataset"] == "drawn leaves"} == {"autoencoder"}


def trainings() -> list[dict[str, object]]:
    """What the other rows say, in few trainings: a row joins the first in which nobody set these keys."""
    said = set().union(*map(choices, FIRSTS.values()))
    found: list[tuple[set[str], dict[str, object]]] = []
    for row in (row for row in ROWS if row not in FIRSTS.values()):
        new = {key for key, _ in choices(row) - said}
        said |= choices(row)
        if new:
            free = [each for each in found if not new & each[0]] or [(set(), {})]
            found += free if free[0] not in found else []
            free[0][0].update(new)
            free[0][1].update({key: ROWS[row].set[key] for key in new})
    return [values for _, values in found]


@pytest.mark.full
def test_each_choice_of_the_rows_trains_and_is_scored(leaves, tmp_path, monkeypatch):
    """With the smallest network."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from runs import figures, run_all

    settings = [
        values | TINY | {"backbone": "cnn_small", "freeze_depth": 2, "dataset": str(leaves)} for values in trainings()
    ]
    folders = run_all(settings, tmp_path / "work", jobs=1)
    assert len(set(folders)) == len(settings) > 1
    for folder in folders:
        assert 0 <= figures(folder)["test"]["accuracy"] <= 1


@pytest.mark.full
@pytest.mark.parametrize("backbone", NIGHTLY)
def test_a_row_of_each_other_network_trains_it(leaves, tmp_path, backbone):
    """In ConvNeXtLarge's place stands the smallest published size of its family."""
    row = next(row for row, each in backbones().items() if each == backbone)
    for result in ran([row], leaves, tmp_path, **NIGHTLY[backbone]):
        assert 0 <= result["accuracy"] <= 1


def test_no_row_freezes_more_than_there_is():
    for row, backbone in backbones().items():
        depth = ROWS[row].set.get("freeze_depth", 0)
        assert depth == "all" or depth <= find(backbone).operations


@pytest.mark.parametrize("row", ["plain", pytest.param("autoencoder", marks=pytest.mark.full)])
def test_a_row_of_each_kind_of_network_runs_through_dvc(project, row):
    settings = ["-S", "epochs=1", "-S", f"backbone={backbones()[row]}"]
    project.run("leaf", "run", row, "--temp", *settings)
    changed = project.run("dvc", "metrics", "diff", "--all", "main", row).stdout
    assert re.search(r"train\.json\s+epochs\s+2\s+1\s", changed)
    assert re.search(r"evaluate\.json\s+test\.accuracy\s+0\.\d+\s+0\.\d+", changed)
