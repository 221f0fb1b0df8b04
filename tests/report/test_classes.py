"""The report of more than two classes."""

import re

import numpy as np
import pytest

from leaf.finished_run import Run
from leaf.report.charts import Interval, class_bars, confusion, confusion_grid, intervals
from leaf.report.render import render


@pytest.fixture(scope="module")
def nine(builder, drawn):
    """Return the page of a run with nine classes."""
    tables = builder.tables(*drawn)
    names = [f"Crop___kind {number} <b>" for number in range(9)]
    for name in ("index", "decisions", "predictions", "synthetic"):
        table = tables[name]
        tables[name] = table.assign(label=np.arange(len(table)) % 9)
    tables["predictions"]["predicted"] = np.arange(len(tables["predictions"])) % 7
    matrix = np.bincount(9 * tables["predictions"]["label"] + tables["predictions"]["predicted"], minlength=81).reshape(
        9, 9
    )
    recall = {"recall": 0.5, "recall_low": 0.3, "recall_high": 0.7, "images": 10}
    for block in tables["scores"]["splits"].values():
        if block:
            block.pop("roc", None)
            block.pop("precision_recall", None)
            block["confusion"] = matrix.tolist()
            block["classes"] = [{"name": name, **recall} for name in names]
            block["worst_pairs"] = [{"label": names[7], "predicted": names[0], "images": 12, "share": 0.4}]
    tables["training"] = {**tables["training"], "classes": names}
    return render(Run(**tables))


def test_every_class_has_a_bar_a_recall_and_samples(nine):
    assert nine.count("Crop: kind 8 &lt;b&gt;") > 3
    assert "Crop: kind 8 <b>" not in nine
    assert "Samples of each class" in nine
    assert "Recall of each class" in nine


def test_the_most_frequent_errors_are_in_words(nine):
    assert "12\xa0Crop: kind 7 &lt;b&gt; predicted as Crop: kind 0 &lt;b&gt;" in nine


def test_roc_curve_and_threshold_are_shown_for_two_classes_only(nine):
    assert "<h3>ROC</h3>" not in nine
    assert "An image is predicted as" not in nine


@pytest.mark.parametrize("width", [340, 880])
def test_a_matrix_of_thirty_eight_classes_fits_its_width(width):
    matrix = np.diag(np.arange(38)) + np.eye(38, k=1, dtype=int)
    drawn = str(confusion_grid(matrix.tolist(), [f"A long name of a class, {n}" for n in range(38)], "told", width))
    right = [float(x) + float(w) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)]
    assert len(right) == 38 * 38
    assert max(right) <= width


@pytest.mark.parametrize("width", [340, 880])
def test_a_long_class_name_is_shown_in_full(width):
    name = "Tomato: Tomato Yellow Leaf Curl Virus of the second field"
    rows = [Interval(f"{name} · 1,234", 0.5, 0.4, 0.6)]
    grid = confusion_grid([[1] * 3] * 3, [name, "a", "b"], "words", width)
    for drawn in (intervals(rows, "words", width), class_bars([name], [3], [2], "words", width), grid):
        shown = " ".join(re.findall(r"<text[^>]*>([^<]*)</text>", str(drawn)))
        assert name in shown


def test_a_long_name_in_the_matrix_of_two_classes_is_shown_in_full():
    shown = " ".join(
        re.findall(r">([^<]*)</text>", str(confusion([[1, 2], [3, 4]], ["healthy", "Leaf Curl Virus"], "")))
    )
    assert shown.count("Leaf Curl Virus") == 3
