"""What the page shows of outliers, copies and rulings."""

import pandas as pd
import pytest

from leaf.finished_run import Run
from leaf.report import cleaning
from leaf.report.gallery import Album


@pytest.fixture
def run(tables):
    return Run(**tables())


@pytest.fixture
def album(run):
    return Album(run.images, run.index, run.classes)


def test_conflicting_groups_come_first(run, album):
    flags = [row["conflicting"] for row in cleaning.copies(run, album)["rows"]]
    assert flags[0]
    assert flags == sorted(flags, reverse=True)


def test_groups_beyond_the_cap_are_counted_not_shown(run, album):
    pairs = pd.DataFrame({"image": range(0, 80, 2), "other": range(1, 80, 2), "kind": "exact", "mse": 0.0})
    run.decisions["reason"] = ""
    many = Run(**{**vars(run), "pairs": pairs})
    found = cleaning.copies(many, album)
    assert (len(found["rows"]), found["note"]) == (12, "12 of 40 groups are shown.")


def test_a_large_group_shows_eight_and_counts_the_rest(run, album):
    pairs = pd.DataFrame({"image": 0, "other": range(1, 31), "kind": "exact", "mse": 0.0})
    run.decisions["reason"] = ""
    row = cleaning.copies(Run(**{**vars(run), "pairs": pairs}), album)["rows"][0]
    assert (len(row["photos"]), row["more"]) == (8, 23)


def test_outliers_are_not_shown_as_copies_again(run, album):
    outliers = set(run.decisions.loc[run.decisions["reason"] == "outlier", "image"])
    names = {entry["photo"].name for row in cleaning.copies(run, album)["rows"] for entry in row["photos"]}
    assert not names & {str(image) for image in outliers}


def test_each_reference_has_its_ranking_and_jump(run, album):
    references = cleaning.outliers(run, album)["references"]
    assert [reference["cut"] for reference in references] == [9, 9]
    assert all(reference["jump"].startswith("0 to ") for reference in references)


def test_near_pairs_are_sorted_by_distance(run, album):
    distances = [float(row["distance"]) for row in cleaning.near(run, album)["close"]["rows"]]
    assert distances == sorted(distances)
    assert len(distances) == 5


def test_a_changed_label_is_told(run, album):
    fates = {row["fate"] for row in cleaning.rulings(run, album)["rows"]}
    assert any(fate.startswith("now ") for fate in fates)


def test_flags_are_counted():
    index = pd.DataFrame({"flags": ["", "dark blurred", "dark", None]})
    assert cleaning.flagged(index) == {"blurred": 1, "dark": 2}
