"""Several runs on one page."""

import re

import pytest

from leaf.report.side_by_side import Difference, RunSummary, render_side_by_side


@pytest.fixture
def runs(tables):
    made = [tables(seed=place, params={"dropout": place / 10}) for place in range(2)]
    return [
        RunSummary(name, one["params"], one["scores"], one["history"], one["training"])
        for name, one in zip(["first", "<second>"], made, strict=True)
    ]


def test_only_parameters_that_differ_are_listed(runs):
    keys = re.findall(r"<code>([^<]*)</code>", render_side_by_side(runs, []))
    assert keys == ["dropout"]


def test_a_parameter_that_differs_is_told_once(runs):
    runs[1].params["backbone"] = "cnn_small"
    assert len(re.findall(r"(?i)<th scope=\"row\">(?:<code>)?backbone", render_side_by_side(runs, []))) == 1


def test_names_are_escaped(runs):
    page = render_side_by_side(runs, [])
    assert "<second>" not in page
    assert "&lt;second&gt;" in page


def test_a_refusal_stands_where_the_verdicts_would(runs):
    assert "other images were used" in render_side_by_side(runs, [], "other images were used")


def test_the_verdicts_stand_as_they_were_said(runs):
    verdict = Difference("first", "<second>", "better by a lot", 0.1, 0.05, 0.15)
    assert "<li>better by a lot</li>" in render_side_by_side(runs, [verdict])


def test_the_best_of_a_score_is_marked(runs):
    splits = [run.scores["splits"]["test"] for run in runs]
    splits[0]["log_loss"], splits[1]["log_loss"] = 0.3, 0.2
    row = re.search(r"Log loss.*?</tr>", render_side_by_side(runs, []), re.S).group()
    assert re.findall(r'class="strong">([^<]*)<', row) == ["0.200"]


def test_runs_without_accuracy_or_curves_still_make_a_page(runs):
    bare = [
        RunSummary(run.name, run.params, {"splits": {"validation": {}}}, run.history[["epoch"]], {}) for run in runs
    ]
    assert "No curve was written" in render_side_by_side(bare, [])


def test_equal_runs_give_equal_bytes(runs):
    assert render_side_by_side(runs, []) == render_side_by_side(runs, [])
