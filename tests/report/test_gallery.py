"""Test the report sections on outliers, copies and manual decisions."""

import pandas as pd
import pytest

from leaf.finished_run import Run
from leaf.report import gallery
from leaf.report.gallery import Album


@pytest.fixture
def run(tables):
    return Run(**tables())


@pytest.fixture
def album(run):
    return Album(run)


def test_conflicting_sets_come_first(run, album):
    flags = [row["conflicting"] for row in gallery.copies(run, album)["rows"]]
    assert flags[0]
    assert flags == sorted(flags, reverse=True)


def test_a_resolved_conflict_is_shown_with_both_labels(run):
    before = len(run.conflicting_copies())
    first, other = run.conflicting_copies()[0][:2]
    final = int(run.decisions.loc[first, "label"])
    run.decisions.loc[other, "label"] = final
    found = gallery.copies(run, Album(run))
    labels = [each["label"] for row in found["rows"] for each in row["photos"] if each["photo"].name == str(other)]
    assert found["conflicting"] == before - 1
    assert labels == [f"{run.names[final]}, originally {run.names[1 - final]}"]


def test_conflict_is_resolved_by_removing_an_image_manually(run, album):
    before = len(run.conflicting_copies())
    other = run.conflicting_copies()[0][1]
    run.decisions.loc[other, ["kept", "reason"]] = 0, "override"
    assert gallery.copies(run, album)["conflicting"] == before - 1


def test_sets_beyond_the_limit_are_counted(run, album):
    pairs = pd.DataFrame({"image": range(0, 80, 2), "other": range(1, 80, 2), "kind": "exact", "mse": 0.0})
    run.decisions["reason"] = ""
    many = Run(**{**vars(run), "pairs": pairs})
    found = gallery.copies(many, album)
    assert (len(found["rows"]), found["note"]) == (12, "12 of 40 sets are shown.")


def test_a_large_set_shows_eight_images_and_counts_the_rest(run, album):
    pairs = pd.DataFrame({"image": 0, "other": range(1, 31), "kind": "exact", "mse": 0.0})
    run.decisions["reason"] = ""
    row = gallery.copies(Run(**{**vars(run), "pairs": pairs}), album)["rows"][0]
    assert (len(row["photos"]), row["more"]) == (8, 23)


def test_outliers_are_not_shown_as_copies(run, album):
    outliers = set(run.decisions.loc[run.decisions["reason"] == "outlier", "image"])
    names = {entry["photo"].name for row in gallery.copies(run, album)["rows"] for entry in row["photos"]}
    assert not names & {str(image) for image in outliers}


def test_each_reference_has_a_ranking_and_a_jump(run, album):
    references = gallery.outliers(run, album)["rows"]
    assert [reference["words"].partition(" images removed")[0] for reference in references] == ["9", "9"]
    assert all(reference["jump"].startswith("0 to ") for reference in references)


def test_near_duplicates_are_sorted_by_distance(run, album):
    distances = [float(row["distance"]) for row in gallery.near(run, album)["close"]["rows"]]
    assert distances == sorted(distances)
    assert len(distances) == 5


def test_a_changed_label_and_a_removed_image_are_listed_as_decisions(run, album):
    results = {row["result"] for row in gallery.decisions(run, album)["rows"]}
    assert "removed" in results
    assert results & {"relabeled healthy", "relabeled unhealthy"}


def test_flags_are_counted():
    index = pd.DataFrame({"flags": ["", "dark blurred", "dark", None]})
    assert gallery.flagged(index) == {"blurred": 1, "dark": 2}
