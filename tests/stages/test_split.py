"""Test the `split` stage on tables of `ingest` and `clean`."""

from pathlib import Path

import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.split.pins import pin_split as pin
from leaf.store import read_json, read_table, write_table
from stages import split


@pytest.fixture
def project(workspace):
    """Write 200 ingested images in groups of two. `clean` removed every tenth image."""
    numbers = pd.Series(range(200))
    names = numbers.astype(str) + ".jpg"
    index = pd.DataFrame({"image": numbers, "source": names, "split": "", "file_hash": "file " + numbers.astype(str)})
    write_table(index, "data/ingested/index.csv")
    Path("data/pinned.csv").write_text("file_hash,split\n")
    Path("data/ingested/classes.csv").write_text("label,name,images\n0,healthy,1\n1,unhealthy,1\n")
    decisions = {"image": numbers, "label": (numbers >= 120).astype(int), "kept": (numbers % 10 != 0).astype(int)}
    write_table(pd.DataFrame(decisions | {"group": numbers // 2 * 2}), "data/cleaned/decisions.csv")


def test_only_kept_images_are_split(project):
    split.main()
    splits = read_table("data/split/splits.csv")
    assert splits["image"].tolist() == [number for number in range(200) if number % 10 != 0]


def test_metrics_are_counted_from_the_table(project, set_params):
    set_params(validation_size=30, test_size=40)
    split.main()
    assert read_json("metrics/split.json") == {"train": 110, "validation": 30, "test": 40, "shared_groups": 0}


def test_same_seed_writes_the_same_bytes(project):
    split.main()
    first = Path("data/split/splits.csv").read_bytes()
    split.main()
    assert Path("data/split/splits.csv").read_bytes() == first


def test_leak_stops_the_stage_and_leaves_no_table(project, monkeypatch):
    """Replace the split with one that puts images 2 and 3 of group 2 in different splits."""

    def leaky(images, *_):
        table = images[["image"]].assign(split="train")
        return table.assign(split=table["split"].where(table["image"] != 3, "test"))

    monkeypatch.setattr(split, "split_images", leaky)
    with pytest.raises(LeafError, match=r"group 2 .*test.*train"):
        split.main()
    assert not Path("data/split/splits.csv").exists()


def test_grouping_none_splits_groups_and_warns(project, capsys, set_params):
    set_params(grouping="none")
    split.main()
    shared = read_json("metrics/split.json")["shared_groups"]
    assert shared > 20
    assert (
        f"grouping is none, so scores can be optimistic; groups shared between splits: {shared}"
        in capsys.readouterr().out
    )


def test_folds_test_every_kept_image_once(project, set_params):
    tested = []
    for fold in range(4):
        set_params(folds=4, fold=fold)
        split.main()
        splits = read_table("data/split/splits.csv")
        tested += splits.loc[splits["split"].eq("test"), "image"].tolist()
        assert read_json("metrics/split.json")["shared_groups"] == 0
    assert sorted(tested) == [number for number in range(200) if number % 10 != 0]


def test_removed_image_with_a_split_stops_the_stage(project, monkeypatch):
    everything = pd.DataFrame({"image": range(200), "split": "train"})
    monkeypatch.setattr(split, "split_images", lambda *_: everything)
    with pytest.raises(LeafError, match=r"image 0\b"):
        split.main()


def test_pinned_splits_do_not_depend_on_the_seed(project, capsys, set_params):
    split.main()
    before = Path("data/split/splits.csv").read_bytes()
    assert "data/pinned.csv: 200 images pinned (200 new): " in pin()
    assert "200 images pinned (0 new)" in pin()
    for changes in ({}, {"split_seed": 7, "test_size": 0.1}):
        set_params(**changes)
        split.main()
        assert Path("data/split/splits.csv").read_bytes() == before
    assert "pinned images: 200 of 200 found in the data set" in capsys.readouterr().out


def test_pins_are_not_used_in_folds_and_a_fold_is_not_pinned(project, capsys, set_params):
    split.main()
    pin()
    set_params(folds=4)
    split.main()
    assert "pinned images: not used with folds" in capsys.readouterr().out
    with pytest.raises(LeafError, match=r"^pin: .*folds to 0"):
        pin()


def test_pins_saved_by_a_spreadsheet_are_read(project):
    Path("data/pinned.csv").write_text("file_hash;split;\n;;\nfile 1;Test;\nfile 3;train;\n\n", encoding="utf-16")
    split.main()
    splits = read_table("data/split/splits.csv").set_index("image")["split"]
    assert splits[[1, 3]].tolist() == ["test", "train"]


def test_conflicting_pins_are_reported_with_their_files(project):
    Path("data/pinned.csv").write_text("file_hash,split\nfile 2,test\nfile 3,train\n")
    with pytest.raises(LeafError, match=r"2\.jpg \(test\) and 3\.jpg \(train\)"):
        split.main()
