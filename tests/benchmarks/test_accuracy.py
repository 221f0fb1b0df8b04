"""Run `python benchmarks/accuracy.py` at a tiny size, over recipes, seeds and folds, on part of a folder."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from leaf.synthesize import draw_dataset, scaled

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/accuracy.py"
TINY = ("epochs=1", "frozen_epochs=0", "image_size=32", "batch_size=16", "views=1", "near_mse=0", "same_photo=false")


@pytest.fixture(scope="module")
def leaves(tmp_path_factory):
    """Return a folder of 100 synthetic leaves in groups of two; 60 files are named apple, the others bean."""
    folder = tmp_path_factory.mktemp("drawn") / "leaves"
    images, labels = draw_dataset(scaled(100), 80, 1)
    rows = []
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        file = f"{'unhealthy' if label else 'healthy'}/{'apple' if number < 60 else 'bean'}_{number:03}.png"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / file)
        rows.append({"file": file, "group": number // 2})
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def run(leaves, folder, *options, status=0):
    """Run the script on the apple leaves and return the process and its results."""
    paths = ("--dataset", f"{leaves}@apple", "--work", folder / "work", "--results", folder / "results.json")
    command = [sys.executable, SCRIPT, *options, *paths, *(part for key in TINY for part in ("--set", key))]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=500)
    assert done.returncode == status, done.stderr[-3000:]
    return done, json.loads((folder / "results.json").read_text()) if status == 0 else None


@pytest.mark.full
@pytest.mark.slow
def test_folds_test_every_image_once_and_a_second_run_replaces_the_first(leaves, tmp_path):
    options = ("--folds", "2", "--seeds", "42", "--recipes", "plain", "default", "--set", "backbone=cnn_small")
    done, [first] = run(leaves, tmp_path, *options)
    _, again = run(leaves, tmp_path, *options)
    assert again == [first]
    kept = sum(1 for line in next(tmp_path.glob("work/data-*")).joinpath("data/split/splits.csv").open()) - 1
    assert 0 < first["images"] == kept <= 60
    assert first["groups"] < first["images"]
    assert {name: len(each["accuracy"]) for name, each in first["recipes"].items()} == {"plain": 1, "default": 1}
    assert first["verdicts"][0].startswith("default ")
    assert first["verdicts"][0] in done.stdout


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.realdata
def test_pretrained_recipe_is_compared_with_logistic_regression(leaves, shared, tmp_path):
    weights = shared / "mobilenet_v2_imagenet_no_top.h5"
    options = ("--seeds", "42", "--recipes", "report_mobilenet_v2", "transfer", "--weights", weights)
    _, [result] = run(leaves, tmp_path, *options, "--set", "freeze_depth=all")
    assert list(result["recipes"]) == ["report_mobilenet_v2", "transfer", "logistic"]
    assert len(result["verdicts"]) == 2
    assert "transfer" in result["verdicts"][1]
    assert "logistic" in result["verdicts"][1]


def test_missing_weights_are_rejected_before_the_first_run(leaves, tmp_path):
    done, _ = run(leaves, tmp_path, "--recipes", "plain", "transfer", status=2)
    assert "--weights: required by transfer" in done.stderr
    assert not (tmp_path / "work").exists()
