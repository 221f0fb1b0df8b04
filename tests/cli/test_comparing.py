"""Runs side by side: from revisions' tables to a sentence. (`leaf compare` on real revisions: test_compare_command.)"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leaf.cli.compare import ScoredRevision, check_same_images, compare_revisions, joined_groups
from leaf.errors import LeafError
from leaf.store import write_table


def run(name="a", image_size=96, **changes):
    columns = {
        "image": [0, 1, 2, 3],
        "label": [0, 1, 0, 1],
        "predicted": [0, 1, 0, 0],
        "source": ["0", "1", "2", "3"],
        "hash": ["p", "q", "r", "s"],
        "group": [0, 1, 2, 3],
    }
    return ScoredRevision(name, image_size, pd.DataFrame(columns | changes))


def test_the_same_images_are_compared():
    check_same_images(run(), run("b", predicted=[1, 1, 1, 1]), "test")


def test_other_images_are_refused():
    with pytest.raises(LeafError, match="a and b: their test images differ: 4 and 4 images, 3 of them in both"):
        check_same_images(run(), run("b", source=["0", "1", "2", "9"]), "test")


def test_other_pixels_under_the_same_name_are_refused():
    with pytest.raises(LeafError, match="1 of 4 show other pixels"):
        check_same_images(run(), run("b", hash=["p", "q", "r", "other"]), "test")


def test_the_same_photographs_at_another_size_are_compared():
    check_same_images(run(), run("b", image_size=128, hash=["w", "x", "y", "z"]), "test")


def test_other_labels_are_refused():
    with pytest.raises(LeafError, match="2 of 4 have another label"):
        check_same_images(run(), run("b", label=[1, 0, 0, 1]), "test")


def test_groups_of_either_run_are_joined():
    joined = joined_groups([np.array([0, 0, 2, 3, 4]), np.array([0, 1, 1, 3, 4])])
    assert joined[0] == joined[1] == joined[2]
    assert len(set(joined)) == 3


def test_one_revision_is_refused():
    with pytest.raises(LeafError, match="compare: one revision"):
        compare_revisions(["workspace"])


def test_the_same_revision_twice_is_refused():
    with pytest.raises(LeafError, match="compare: a revision is named twice"):
        compare_revisions(["workspace", "workspace"])


def test_a_workspace_without_predictions_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeafError, match=r"workspace: no data/scored/predictions.csv there"):
        compare_revisions(["workspace", "HEAD"])


def test_a_run_without_a_test_split_says_what_to_ask_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table = pd.DataFrame({"image": [0], "split": ["validation"], "label": [0], "probability": [0.1], "predicted": [0]})
    write_table(table, Path("data/scored/predictions.csv"))
    with pytest.raises(LeafError, match=r"workspace: no predictions on test; .*--split"):
        compare_revisions(["workspace", "HEAD"])
