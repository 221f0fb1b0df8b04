"""Test that simulated label errors are found from held-out probabilities."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.evaluate.label_issues import suspicious, wrong_labels
from leaf.evaluate.linear_head import linear_head
from leaf.store import write_array, write_table

FLIPPED = np.arange(0, 300, 25)


@pytest.fixture(scope="module")
def unseen():
    """Return the labels of 300 points, 12 of them flipped, and held-out probabilities."""
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 600)
    points = random.normal(size=(600, 3)) + 3 * truth[:, None]
    probabilities = linear_head(points[300:], truth[300:]).predict_proba(points[:300])
    labels = truth[:300].copy()
    labels[FLIPPED] = 1 - labels[FLIPPED]
    return labels, probabilities


def test_flipped_labels_come_first(unseen):
    places, scores = suspicious(*unseen)
    assert set(places[: len(FLIPPED)]) == set(FLIPPED)
    assert len(places) <= len(FLIPPED) + 3
    assert (np.diff(scores) >= 0).all()


def test_flipped_labels_of_nine_classes_are_found_with_the_likely_class():
    random = np.random.default_rng(1)
    truth = random.integers(0, 9, 900)
    points = random.normal(size=(900, 9)) + 6 * np.eye(9)[truth]
    probabilities = linear_head(points[450:], truth[450:]).predict_proba(points[:450])
    labels = truth[:450].copy()
    labels[:20] = (labels[:20] + 4) % 9
    places, _ = suspicious(labels, probabilities)
    assert set(places[:18]) <= set(range(20))
    assert (probabilities[:20].argmax(axis=1) == truth[:20]).mean() > 0.9


@pytest.fixture
def scored(tmp_path, monkeypatch, unseen):
    """Write a workspace that contains the predictions of `unseen`."""
    labels, probabilities = unseen
    monkeypatch.chdir(tmp_path)
    numbers = np.arange(300)
    hashes = [f"{number:032x}" for number in numbers]
    write_table(
        pd.DataFrame({"image": numbers, "source": numbers, "hash": hashes, "file_hash": hashes}),
        "data/ingested/index.csv",
    )
    split = np.where(numbers % 2, "test", "validation")
    write_table(
        pd.DataFrame({"image": numbers, "split": split, "label": labels, "predicted": labels}),
        "data/scored/predictions.csv",
    )
    write_array(probabilities.astype(np.float32), "data/scored/probabilities.npy")
    Path("data/ingested/classes.csv").write_text("label,name,images\n0,healthy,1\n1,unhealthy,1\n")
    return hashes


def test_command_lists_image_label_and_likely_class(scored, unseen):
    lines = CliRunner().invoke(app, ["labels", "--most", "3"]).stdout.splitlines()
    assert f"{len(wrong_labels(['workspace']))} of 300 " in lines[0]
    image, _, label, likely, score = lines[2].split()
    assert int(image) in FLIPPED
    assert label == ["healthy", "unhealthy"][unseen[0][int(image)]] != likely
    assert float(score) < 0.1
    assert len(lines) == 6
