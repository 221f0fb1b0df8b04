"""Test the output formats of `leaf predict`: text, CSV and JSON."""

import csv
import io
import json

import pytest

from leaf.serve.classifier import UNKNOWN, Prediction
from leaf.serve.predict import as_csv, as_json, as_text

CLASSES = ["healthy", "unhealthy"]
ROWS = [
    Prediction('a, "b".jpg', "healthy", "undecided", 1 / 3, 0.4, True, {"healthy": 2 / 3, "unhealthy": 1 / 3}),
    Prediction("c.jpg", "unhealthy", UNKNOWN, 0.9, 0.4, False, {"healthy": 0.1, "unhealthy": 0.9}),
]


def test_csv_round_trips():
    table = list(csv.DictReader(io.StringIO("\n".join(as_csv(ROWS, CLASSES)))))
    assert [(row["image"], row["answer"], float(row["probability"]), row["known"]) for row in table] == [
        ('a, "b".jpg', "undecided", 1 / 3, "1"),
        ("c.jpg", UNKNOWN, 0.9, "0"),
    ]


def test_json_is_an_array_with_all_fields():
    assert json.loads("\n".join(as_json(ROWS)))[1] == {
        "image": "c.jpg",
        "label": "unhealthy",
        "answer": "not like the training images",
        "probability": 0.9,
        "threshold": 0.4,
        "known": False,
        "probabilities": {"healthy": 0.1, "unhealthy": 0.9},
    }


def test_csv_has_a_probability_column_per_class():
    row = Prediction("d.jpg", "rust", "rust", 0.5, None, True, {"healthy": 0.2, "rust": 0.5, "scab": 0.3})
    (read,) = csv.DictReader(io.StringIO("\n".join(as_csv([row], list(row.probabilities)))))
    assert (read["threshold"], read["probability of scab"]) == ("", "0.3")


@pytest.mark.parametrize("name", ["=cmd|calc.jpg", "+1.jpg", "-1.jpg", "@a.jpg"])
def test_file_name_is_not_a_formula_in_a_spreadsheet(name):
    row = Prediction(name, "healthy", "healthy", 0.1, 0.4, True, {"healthy": 0.9, "unhealthy": 0.1})
    assert list(as_csv([row], CLASSES))[1].startswith(f"'{name}")


def test_text_shows_argmax_for_more_than_two_classes():
    row = Prediction("d.jpg", "rust", "rust", 0.5, None, True, {"healthy": 0.2, "rust": 0.5, "scab": 0.3})
    assert list(as_text([row], ["d.jpg"], ["healthy", "rust", "scab"]))[1].split()[1:4] == [
        "rust",
        "0.5000",
        "argmax",
    ]


def test_json_without_predictions_is_an_empty_array():
    assert json.loads("".join(as_json([]))) == []


def test_text_shows_the_answer_next_to_the_label():
    line = list(as_text(ROWS, ["c.jpg"], ["healthy", "unhealthy"]))[2]
    assert line.split(maxsplit=4) == ["c.jpg", "unhealthy", "0.9000", "0.4000", UNKNOWN]


def test_text_columns_are_aligned():
    header, *lines = as_text(ROWS, [row.image for row in ROWS], ["healthy", "unhealthy"])
    assert {line.index(row.label) for line, row in zip(lines, ROWS, strict=True)} == {header.index("label")}


def test_control_characters_in_a_name_are_removed():
    row = Prediction("\x1b[2J\n.jpg", "healthy", "healthy", 0.1, 0.4, True)
    assert "\x1b" not in list(as_text([row], [row.image], ["healthy"]))[1]


def test_prediction_is_immutable():
    with pytest.raises(AttributeError):
        ROWS[0].label = "unhealthy"  # type: ignore[misc]
