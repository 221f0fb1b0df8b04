"""How predictions are written."""

import csv
import io
import json

import pytest

from leaf.cli.predict import as_csv, as_json, as_text
from leaf.serving.classifier import Prediction

ROWS = [Prediction('a, "b".jpg', "healthy", 1 / 3, 0.4, True), Prediction("c.jpg", "unhealthy", 0.9, 0.4, False)]


def test_csv_reads_back_to_the_same_figures():
    table = list(csv.DictReader(io.StringIO("\n".join(as_csv(ROWS)))))
    assert [(row["image"], float(row["probability"]), row["known"]) for row in table] == [
        ('a, "b".jpg', 1 / 3, "1"),
        ("c.jpg", 0.9, "0"),
    ]


def test_json_is_one_array_of_all_fields():
    assert json.loads("\n".join(as_json(ROWS)))[1] == {
        "image": "c.jpg",
        "label": "unhealthy",
        "probability": 0.9,
        "threshold": 0.4,
        "known": False,
    }


def test_json_of_nothing_is_an_empty_array():
    assert json.loads("".join(as_json([]))) == []


def test_in_the_table_the_label_of_an_unknown_image_is_in_question():
    line = list(as_text(ROWS, ["c.jpg"], ["healthy", "unhealthy"]))[2]
    assert line.split() == ["c.jpg", "unhealthy?", "0.9000", "0.4000", "no"]


def test_columns_stand_below_one_another():
    header, *lines = as_text(ROWS, [row.image for row in ROWS], ["healthy", "unhealthy"])
    assert {line.index(row.label) for line, row in zip(lines, ROWS, strict=True)} == {header.index("label")}


def test_a_name_cannot_move_the_cursor():
    row = Prediction("\x1b[2J\n.jpg", "healthy", 0.1, 0.4, True)
    assert "\x1b" not in list(as_text([row], [row.image], ["healthy"]))[1]


def test_a_prediction_cannot_be_changed():
    with pytest.raises(AttributeError):
        ROWS[0].label = "unhealthy"  # type: ignore[misc]
