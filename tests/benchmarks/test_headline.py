"""`python benchmarks/headline.py` selects a recipe on development images and tests only that one."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from leaf.errors import LeafError

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import headline  # noqa: E402


def measured(dataset, losses, images, **more):
    recipes = {name: {"log_loss": [loss]} for name, loss in losses.items()}
    return {"dataset": dataset, "folds": 3, "set": {}, "images": images, "recipes": recipes, **more}


APPLE, STRAWBERRY = headline.DEVELOPMENT


def test_recipe_with_the_lowest_loss_over_all_development_images_is_selected():
    found = headline.choose(
        [
            measured(APPLE, {"a": 0.1, "b": 0.3, "logistic": 0.01}, 300),
            measured(STRAWBERRY, {"a": 0.5, "b": 0.2, "logistic": 0.01}, 100),
        ]
    )
    assert found == {"recipe": "a", "log_loss": {"a": 0.2, "b": 0.275}}


def test_other_images_and_single_splits_do_not_affect_the_selection():
    every = [measured(APPLE, {"a": 0.1, "b": 0.3}, 10), measured(STRAWBERRY, {"a": 0.1, "b": 0.3}, 10)]
    others = [
        measured("leaves_by_disease", {"b": 0.0}, 9999),
        measured(APPLE, {"b": 0.0}, 9999, folds=0),
        measured(APPLE, {"b": 0.0}, 9999, set={"image_size": 224}),
        measured(APPLE, {"c": 0.0}, 9999),  # not measured on strawberry leaves
    ]
    assert headline.choose([*every, *others])["recipe"] == "a"


def test_different_recipe_is_rejected_with_its_key():
    frozen = {"recipe": "transfer", "parameters": headline.parameters({"freeze_depth": 54}, None)}
    headline.check(frozen, headline.parameters({"freeze_depth": 54, "seed": 7, "classes": "auto"}, None))
    with pytest.raises(LeafError, match=r"transfer: freeze_depth 55.* 54.*frozen"):
        headline.check(frozen, headline.parameters({"freeze_depth": 55}, None))


def test_command_tests_only_the_committed_recipe(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/headline.py", "report", "--dataset", tmp_path, "--set", "epochs=2"]
    command += ["--results", tmp_path / "found.json", "--work", tmp_path / "work"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "epochs 2 instead of 28" in done.stderr
    assert not (tmp_path / "work").exists()


def test_frozen_recipe_is_the_row_of_that_name():
    frozen = json.loads(headline.FROZEN.read_text(encoding="utf-8"))
    row = headline.read_experiments(ROOT / "experiments.yaml")[frozen["recipe"]].set
    found = headline.parameters(row, None)
    headline.check(frozen, {**found, "weights_sha256": frozen["parameters"]["weights_sha256"]})


def test_readme_shows_the_measured_headline():
    [found] = [
        each for each in json.loads(headline.RESULTS.read_text(encoding="utf-8")) if each["set"]["classes"] != "auto"
    ]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    ours, peer = (found["recipes"][name] for name in ("transfer", "logistic"))
    means = [statistics.mean(each["accuracy"]) for each in (ours, peer)]
    accuracy, low, high, beside = (
        f"{100 * float(f'{share:.3f}'):.1f}" for share in (means[0], *ours["interval"], means[1])
    )
    assert f"{accuracy}% accuracy (95% CI {low}–{high}%) on {found['images']} images" in readme
    assert f"reaches {beside}%" in readme
