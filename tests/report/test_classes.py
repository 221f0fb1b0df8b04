"""Test the report on a data set with more than two classes."""

import re

import numpy as np
import pytest

from leaf.finished_run import Run
from leaf.report.render import render


@pytest.fixture(scope="module")
def nine(builder, drawn):
    """Return the report of a run with nine classes."""
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


def test_every_class_has_its_count_recall_and_samples(nine):
    assert nine.count("Crop: kind 8 &lt;b&gt;") > 3
    assert "Crop: kind 8 <b>" not in nine
    assert "Samples of each class" in nine
    assert "Recall of each class" in nine


def test_most_frequent_errors_are_listed(nine):
    assert "12\xa0Crop: kind 7 &lt;b&gt; predicted as Crop: kind 0 &lt;b&gt;" in nine


def test_roc_curve_and_threshold_are_shown_for_two_classes_only(nine):
    assert "<h3>ROC</h3>" not in nine
    assert "An image is predicted as" not in nine


def test_confusion_matrix_numbers_its_columns_like_its_rows(nine):
    matrix = nine[nine.index('class="confusion"') :].partition("</table>")[0]
    assert re.findall(r'<th scope="col" title="[^"]*">(\d)<', matrix) == [str(number) for number in range(1, 10)]
    assert re.findall(r'<th scope="row">(\d) Crop', matrix) == [str(number) for number in range(1, 10)]
    assert matrix.count("<td>") == 81
