"""Test which images runs are compared on. The command itself is tested in test_compare_command.py."""

from pathlib import Path

import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.evaluate.model_comparison import ScoredRevision, compare_revisions, shared_images
from leaf.store import write_table


def run(name="a", label="0101", groups=(0, 1, 2, 3, 4, 5), splits="test test test test train train"):
    """Return a run with images A to F and predictions for its test images. `label` has one digit per test image."""
    keys = pd.Index([*"ABCDEF"])
    everything = pd.DataFrame({"group": groups, "split": splits.replace("-", "").split(" ")}, keys)
    scored = keys[everything["split"].eq("test")]
    table = pd.DataFrame({"source": "x.jpg", "label": [*label], "predicted": "0"}, scored)
    return ScoredRevision(name, table, everything)


def test_runs_with_equal_test_splits_are_compared_on_all_test_images():
    keys, groups = shared_images([run(), run("b")], "test")
    assert keys.tolist() == [*"ABCD"]
    assert len(set(groups)) == 4


def test_only_common_test_images_are_compared():
    other = run("b", label="0011", splits="train train test test test test")
    assert shared_images([run(label="0100"), other], "test")[0].tolist() == ["C", "D"]


def test_image_is_excluded_if_one_run_trained_on_its_group():
    split_group = run("b", groups=(0, 1, 2, 3, 3, 5))  # D is a test image, and E is a training image of the same leaf
    assert shared_images([run(), split_group], "test")[0].tolist() == [*"ABC"]


def test_removed_copy_merges_groups_of_two_runs():
    one = run(groups=(0, 1, 2, 3, 4, 4), splits="test test test test - train")
    other = run("b", groups=(0, 0, 2, 3, 0, 5), splits="test test test test - train")
    assert shared_images([one, other], "test")[0].tolist() == ["C", "D"]


def test_runs_without_a_common_test_image_are_rejected():
    other = run("b", label="01", splits="train train train train test test")
    with pytest.raises(LeafError, match=r"a and b: no test image"):
        shared_images([run(), other], "test")


def test_different_labels_are_rejected():
    with pytest.raises(LeafError, match="2 of 4 test images"):
        shared_images([run(), run("b", label="1001")], "test")


def test_same_labels_excludes_relabeled_images():
    keys, _ = shared_images([run(), run("b", label="1001")], "test", same_labels=True)
    assert len(keys) == 2


def test_groups_of_both_runs_are_merged():
    _, groups = shared_images([run(groups=(0, 0, 2, 3, 4, 5)), run("b", groups=(0, 1, 1, 3, 4, 5))], "test")
    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_single_revision_is_rejected():
    with pytest.raises(LeafError, match=r"compare: .*two"):
        compare_revisions(["workspace"])


def test_repeated_revision_is_rejected():
    with pytest.raises(LeafError, match=r"compare: .*workspace workspace"):
        compare_revisions(["workspace", "workspace"])


def test_workspace_without_predictions_is_rejected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeafError, match=r"workspace: .*data/scored/predictions\.csv"):
        compare_revisions(["workspace", "HEAD"])


def test_error_for_a_run_without_a_test_split_names_the_split_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"image": [0], "split": ["validation"], "label": [0], "probability": [0.1], "predicted": [0]})
    write_table(table, Path("data/scored/predictions.csv"))
    with pytest.raises(LeafError, match=r"workspace: no predictions on test.*--split"):
        compare_revisions(["workspace", "HEAD"])
