"""`leaf folds` and `leaf leak` through DVC: real small trainings, a fold each."""

import pytest
import yaml

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folded(project):
    project.folds = project.run("leaf", "folds", "-S", "folds=2", "-S", "epochs=1", "-S", "backbone=cnn_small")
    return project


def test_every_kept_image_is_tested_and_the_folds_are_summed_up(folded):
    kept = yaml.safe_load((folded.folder / "metrics/clean.json").read_text())["kept"]
    assert "accuracy over 2 folds: mean 0." in folded.folds.stdout
    assert f"of all {kept} images of " in folded.folds.stdout
    assert "validation minus test: " in folded.folds.stdout


def test_the_workspace_stays_as_it_was(folded):
    assert folded.run("git", "status", "--porcelain").stdout == ""


def test_finished_folds_are_shown_without_a_run(folded):
    assert folded.run("leaf", "folds", "--show").stdout.strip() in folded.folds.stdout


def test_folds_of_the_same_name_are_not_replaced_unasked(folded):
    refused = folded.run("leaf", "folds", "-S", "folds=2", status=2)
    assert refused.stderr.startswith("error: default-fold-0: an experiment of this name exists; --force replaces it")


@pytest.mark.full
def test_a_network_is_trained_both_ways_and_the_leaky_split_says_so(folded):
    done = folded.run("leaf", "leak", "-S", "folds=2", "-S", "epochs=1", "-S", "backbone=cnn_small")
    assert "every image tested once in each of 1 repeats" in done.stdout
    assert done.stdout.count("are shared between splits on purpose; scores are too high") == 2


def test_one_fold_is_refused(folded):
    assert "folds: 1; valid: 0 for off, or 2 to 100" in folded.run("leaf", "folds", "-S", "folds=1", status=2).stderr
