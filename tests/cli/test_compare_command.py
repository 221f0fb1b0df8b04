"""Test `leaf compare` with git revisions whose predictions are tracked by DVC."""

import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dvc.repo import Repo

from leaf.errors import LeafError
from leaf.evaluate.model_comparison import compare_revisions, describe
from leaf.store import write_table

pytestmark = pytest.mark.slow

LABELS = np.arange(200) % 2
TABLES = (
    "data/scored/predictions.csv",
    "data/cleaned/decisions.csv",
    "data/ingested/index.csv",
    "data/ingested/classes.csv",
    "data/split/splits.csv",
)


def write_tables(share_right, seed, images=200):
    numbers = np.arange(images)
    wrong = np.random.default_rng(seed).random(images) >= share_right
    predicted = np.where(wrong, 1 - LABELS[:images], LABELS[:images])
    scored = {"image": numbers, "source": numbers, "split": "test", "label": LABELS[:images], "predicted": predicted}
    write_table(pd.DataFrame(scored), TABLES[0])
    write_table(pd.DataFrame({"image": numbers, "group": numbers // 2 * 2}), TABLES[1])
    hashes = [f"{number:032d}" for number in numbers]  # the hashes would be equal if parsed as numbers
    write_table(pd.DataFrame({"image": numbers, "source": numbers, "hash": hashes, "file_hash": hashes}), TABLES[2])
    write_table(pd.DataFrame({"label": [0, 1], "name": ["fresh", "wilted"], "images": 100}), TABLES[3])
    write_table(pd.DataFrame({"image": numbers, "split": "test"}), TABLES[4])


def call(*command):
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """Return a repository with tagged commits `plain`, `again`, `good` and `other` (fewer images, checked out)."""
    folder = tmp_path_factory.mktemp("repository")
    before = Path.cwd()
    os.chdir(folder)
    try:
        call("git", "init", "-q", "-b", "main")
        call("git", "config", "user.email", "someone@example.org")
        call("git", "config", "user.name", "Someone")
        project = Repo.init()
        Path("params.yaml").write_text("image_size: 96\n")
        for name, (share, seed, images) in {
            "plain": (0.7, 0, 200),
            "again": (0.7, 1, 200),
            "good": (0.95, 2, 200),
            "other": (0.95, 2, 150),
        }.items():
            write_tables(share, seed, images)
            project.add(list(TABLES))
            call("git", "add", "-A")
            call("git", "commit", "-q", "-m", name)
            call("git", "tag", name)
    finally:
        os.chdir(before)
    return folder


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository)


def test_clearly_better_revision_is_reported_as_better():
    assert "good is better than the trained model plain" in describe(compare_revisions(["plain", "good"]))


def test_two_seeds_of_the_same_recipe_are_not_distinguishable():
    assert "again and plain are not distinguishable" in describe(compare_revisions(["plain", "again"]))


def test_groups_are_read_from_the_revision():
    assert compare_revisions(["plain", "again"])[0].groups == 100


def test_recall_of_each_class_is_compared():
    lines = describe(compare_revisions(["plain", "good"])).splitlines()
    assert [line.split(":")[0] for line in lines if "recall" in line] == [
        "  fresh (100 images)",
        "  wilted (100 images)",
    ]


def test_revisions_joined_by_commas_are_seeds_of_the_same_recipe():
    (result,) = compare_revisions(["plain,again", "good"])
    assert result.seeds == (2, 1)
    assert result.verdict == "better"


def test_each_other_revision_is_compared_with_the_first():
    result = compare_revisions(["plain", "again", "good"])
    assert [(one.a, one.b) for one in result] == [("plain", "again"), ("plain", "good")]
    assert result[1].p_holm == pytest.approx(2 * result[1].p)


def test_revisions_are_compared_on_their_common_test_images():
    (result,) = compare_revisions(["plain", "other"])
    assert (result.images, result.scored) == (150, (200, 150))
    assert re.search(r"plain .*\b200\b.* other .*\b150\b", describe([result]))


def test_workspace_can_be_compared():
    (result,) = compare_revisions(["other", "workspace"])
    assert (result.images, result.scored, result.difference) == (150, (0, 0), 0)


@pytest.mark.parametrize(
    "name", ["nowhere", "HEAD:params.yaml", "HEAD:", "HEAD^{tree}", "", "x" * 5000, "a\0b", "bad\udcff"]
)
def test_unknown_revision_is_rejected(name):
    with pytest.raises(LeafError, match="no such revision or experiment"):
        compare_revisions(["plain", name])


DAMAGED = {TABLES[0]: "image,split\n1,test\n", TABLES[1]: "image,group\n1,x\n", TABLES[2]: "", TABLES[3]: "label\n0\n"}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_table_in_the_workspace_is_reported(repository, name):
    path = repository / name
    content = path.read_bytes()
    path.unlink()  # a link to DVC's cache
    path.write_text(DAMAGED[name])
    try:
        with pytest.raises(LeafError, match=name):
            compare_revisions(["other", "workspace"])
    finally:
        path.write_bytes(content)
