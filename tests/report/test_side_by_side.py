"""Test the page that compares several runs."""

import re

import pytest
from markupsafe import escape

from leaf.evaluate.model_comparison import Comparison
from leaf.report.render import unbroken
from leaf.report.side_by_side import RunSummary, render_side_by_side


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


def test_a_different_parameter_is_listed_once(runs):
    runs[1].params["backbone"] = "cnn_small"
    assert len(re.findall(r"(?i)<th scope=\"row\">(?:<code>)?backbone", render_side_by_side(runs, []))) == 1


def test_names_are_escaped(runs):
    page = render_side_by_side(runs, [])
    assert "<second>" not in page
    assert "&lt;second&gt;" in page


def test_failed_comparison_shows_the_error_message(runs):
    assert "other images were used" in render_side_by_side(runs, [], "other images were used")


def test_the_sentence_of_each_comparison_is_shown(runs):
    one = Comparison(99, (0.8, 0.9), 1, 2, 0.02, 60, 0.01, 0.01, a="first", b="<second>")
    assert f"<li>{escape(unbroken(one.sentence))}</li>" in render_side_by_side(runs, [one])


def test_the_best_value_of_a_score_is_marked(runs):
    splits = [run.scores["splits"]["test"] for run in runs]
    splits[0]["log_loss"], splits[1]["log_loss"] = 0.3, 0.2
    row = re.search(r"Log loss.*?</tr>", render_side_by_side(runs, []), re.S).group()
    assert re.findall(r'class="strong">([^<]*)<', row) == ["0.200"]


def test_runs_without_curves_have_a_page(runs):
    bare = [RunSummary(run.name, run.params, run.scores, run.history, {"probe": {}}) for run in runs]
    assert "There are no training curves" in render_side_by_side(bare, [])


def test_the_curves_of_a_probe_are_not_described(runs):
    probe, trained = runs[0], runs[1]
    probe = RunSummary(probe.name, probe.params, probe.scores, probe.history, {"probe": {}})
    assert (
        f"{probe.name}: " not in re.search(r"Curves by epoch[^\"<]*", render_side_by_side([probe, trained], [])).group()
    )


def test_runs_of_version_0_1_0_have_a_page(runs):
    for run in runs:
        del run.scores["baseline"]["tuned_color"]
    page = render_side_by_side(runs, [])
    assert "Largest class" in page
    assert "Tuned color baseline" not in page


def test_equal_runs_give_byte_identical_pages(runs):
    assert render_side_by_side(runs, []) == render_side_by_side(runs, [])
