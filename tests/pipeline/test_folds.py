"""Test `leaf folds` and `leaf leak` through DVC, with one short training run per fold."""

import json
import re

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folded(project):
    project.folds = project.run("leaf", "folds", "-S", "folds=2", "-S", "epochs=1", "-S", "backbone=cnn_small")
    return project


def test_folds_test_every_kept_image_once(folded):
    kept = json.loads((folded.folder / "metrics/clean.json").read_text())["kept"]
    rows = re.findall(r"^ *(\d+) +(\d+) +0\.\d+ +0\.\d+$", folded.folds.stdout, re.M)
    assert [fold for fold, _ in rows] == ["0", "1"]
    assert sum(int(tested) for _, tested in rows) == kept


def test_folds_leave_the_workspace_unchanged(folded):
    assert folded.run("git", "status", "--porcelain").stdout == ""


def test_finished_folds_are_shown_without_a_run(folded):
    assert folded.run("leaf", "folds", "--show").stdout.strip() in folded.folds.stdout


def test_folds_of_the_same_name_need_force(folded):
    refused = folded.run("leaf", "folds", "-S", "folds=2", status=2)
    assert refused.stderr.startswith("error: default-fold-0: ")
    assert "--force" in refused.stderr


@pytest.mark.full
def test_leak_trains_with_and_without_groups(folded):
    done = folded.run("leaf", "leak", "-S", "folds=2", "-S", "epochs=1", "-S", "backbone=cnn_small")
    assert done.stdout.count("warning: grouping is none") == 2


def test_one_fold_is_rejected(folded):
    assert (
        "folds: 1; valid: 0 (off), or an integer from 2 to 100"
        in folded.run("leaf", "folds", "-S", "folds=1", status=2).stderr
    )
