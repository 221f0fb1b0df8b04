"""Test the `balance` stage on tables of `ingest`, `clean` and `split`."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leaf.errors import LeafError
from leaf.store import new_array, read_array, read_json, read_table, write_table
from stages import balance


@pytest.fixture
def project(workspace):
    """Write 100 ingested 8×8 images: 70 in train (46 healthy, 24 unhealthy), the rest held out or removed."""
    with new_array("data/ingested/images.npy", (100, 8, 8, 3), np.uint8) as images:
        images[:] = np.random.default_rng(0).integers(0, 256, images.shape)
    Path("data/ingested/classes.csv").write_text("label,name,images\n0,healthy,1\n1,unhealthy,1\n")
    numbers = np.arange(100)
    table = pd.DataFrame({"image": numbers, "label": (numbers % 3 == 0).astype(int)})
    write_table(table, "data/cleaned/decisions.csv")
    splits = np.repeat(["train", "validation", "test"], [70, 10, 10])
    write_table(pd.DataFrame({"image": numbers[:90], "split": splits}), "data/split/splits.csv")


def test_metrics_count_both_classes_before_and_after_balancing(project):
    balance.main()
    assert read_json("metrics/balance.json") == {
        "before": {"healthy": 46, "unhealthy": 24},
        "synthetic": 22,
        "after": {"healthy": 46, "unhealthy": 46},
    }


def test_only_synthetic_images_are_written_in_the_dtype_of_the_images(project):
    balance.main()
    made = read_array("data/balanced/images.npy")
    assert (made.shape, made.dtype) == ((22, 8, 8, 3), np.uint8)


def test_each_row_reproduces_its_image(project):
    balance.main()
    images, made = read_array("data/ingested/images.npy"), read_array("data/balanced/images.npy")
    table = read_table("data/balanced/index.csv", ["image", "label", "parent", "neighbour", "weight"])
    parent, neighbour = (images[table[name]].astype(float) for name in ("parent", "neighbour"))
    again = parent + table["weight"].to_numpy()[:, None, None, None] * (neighbour - parent)
    np.testing.assert_allclose(made[table["image"]], again, atol=0.5001)


def test_synthetic_images_of_float_images_are_float(project):
    with new_array("data/ingested/images.npy", (100, 8, 8, 3), np.float32) as images:
        images[:] = np.random.default_rng(0).random(images.shape) * 255
    balance.main()
    made = read_array("data/balanced/images.npy")
    assert made.dtype == np.float32
    assert (made != made.round()).any()


@pytest.mark.parametrize("method", ["none", "class_weight"])
def test_no_balancing_writes_empty_tables(project, method, set_params):
    set_params(balance=method)
    balance.main()
    assert read_array("data/balanced/images.npy").shape == (0, 8, 8, 3)
    assert len(read_table("data/balanced/index.csv", ["image", "label", "parent", "neighbour", "weight"])) == 0
    assert read_json("metrics/balance.json")["after"]["unhealthy"] == 24


def test_more_images_than_the_limit_are_rejected_before_any_is_created(project, capsys, set_params):
    set_params(balance_limit_gb=1e-6)
    with pytest.raises(LeafError, match=r"balance_limit_gb: 22 .*1e-06.*balance"):
        balance.main()
    assert "22 synthetic images in train" in capsys.readouterr().out
    assert not Path("data/balanced").exists()


def test_synthetic_images_depend_on_split_seed_but_not_on_seed(project, set_params):
    made = []
    for changes in ({}, {"seed": 7}, {"split_seed": 7}):
        set_params(**changes)
        balance.main()
        made.append(Path("data/balanced/images.npy").read_bytes())
    assert made[0] == made[1] != made[2]


def test_class_too_small_for_smote_is_rejected_before_any_output_is_written(project, set_params):
    set_params(smote_neighbors=24)
    with pytest.raises(LeafError, match="unhealthy has 24"):
        balance.main()
    assert not Path("data/balanced").exists()


def test_parent_outside_train_stops_the_stage(project, monkeypatch):
    planted = pd.DataFrame({"image": [0], "label": [1], "parent": [75], "neighbour": [3], "weight": [0.5]})
    monkeypatch.setattr(balance, "plan_images", lambda *_: planted)
    with pytest.raises(LeafError, match=r"synthetic image 0\b.*parent 75\b"):
        balance.main()
