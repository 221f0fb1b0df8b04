"""Test the audit's tables: images shared between the user's splits, and label tables that leave out one value."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from leaf.audit.audit import _columns, _shared, correctness, labels_without


def run(**tables):
    return SimpleNamespace(**{name: pd.DataFrame(columns) for name, columns in tables.items()})


def test_shared_photos_crops_and_groups_of_given_splits_are_counted():
    pairs = {"image": [0, 0, 4, 6], "other": [1, 2, 5, 7], "kind": ["exact", "near", "aligned", "aligned"]}
    given = ["train", "train", "test", "", "train", "validation", "test", "test", "train", "test", "", ""]
    groups = [0, 0, 0, 3, 4, 4, 6, 6, 8, 8, 10, 10]
    found = _shared(run(index={"split": given}, pairs=pairs, decisions={"image": range(12), "group": groups}))
    assert found == {"images": 9, "photographs": 1, "crops": 1, "groups": 3, "all_crops": 2}


def test_without_given_splits_nothing_is_shared():
    empty = {"image": [], "other": [], "kind": []}
    found = _shared(run(index={"split": ["", ""]}, pairs=empty, decisions={"image": [0, 1], "group": [0, 0]}))
    assert found == {"images": 0, "photographs": 0, "crops": 0, "groups": 0, "all_crops": 0}


def test_left_out_value_is_the_test_split_and_its_groups_are_excluded_from_training():
    crops = np.repeat(["apple", "bean"], 30)
    chosen = pd.DataFrame({"image": range(60), "source": [f"{n}.jpg" for n in range(60)], "label": np.arange(60) % 2})
    chosen["group"] = np.where(np.arange(60) == 45, 3, np.arange(60))  # one bean shares a group with an apple
    split = np.where(np.arange(60) % 10 == 9, "validation", np.where(np.arange(60) % 5 == 0, "test", "train"))
    finished = SimpleNamespace(
        splits=pd.DataFrame({"image": range(60), "split": split}), classes=["healthy", "unhealthy"]
    )
    judged, table = labels_without(finished, chosen, crops.tolist())["apple"]
    assert judged.tolist() == (crops == "apple").tolist()
    table = table.set_index("file")
    assert "45.jpg" not in table.index
    assert (table["split"][:30] == "test").all()
    assert table["split"][30:].value_counts().to_dict() == {"train": 26, "validation": 3}
    assert table["label"]["31.jpg"] == "unhealthy"


def test_predictions_are_matched_by_source():
    chosen = pd.DataFrame({"source": ["a", "b", "c"]})
    said = pd.DataFrame(
        {"source": ["c", "a", "b"], "split": ["test", "test", "train"], "label": 1, "predicted": [1, 0, 1]}
    )
    assert correctness(said, chosen).tolist()[::2] == [0, 1]
    assert np.isnan(correctness(said, chosen)[1])


def test_dates_are_months_or_days_of_one_month():
    year = pd.DataFrame({"date": ["2021-05-06 12:30:00", "2021-06-01", ""]})
    month = pd.DataFrame({"date": ["2021-05-06 12:30:00", "2021-05-07"]})
    assert _columns(year) == {"date": ["2021-05", "2021-06", ""]}
    assert _columns(month) == {"date": ["2021-05-06", "2021-05-07"]}
