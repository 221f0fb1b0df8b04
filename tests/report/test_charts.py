"""Test the SVG building blocks of charts."""

import math
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leaf.report.charts import Frame, lr_range, number, path, tag, ticks


def test_children_and_attributes_are_escaped():
    assert str(tag("text", "<b>", class_='"x"')) == '<text class="&#34;x&#34;">&lt;b&gt;</text>'


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_ticks_are_few_and_inside_the_range(low, span, count):
    marks = ticks(low, low + span, count)
    slack = span * 1e-6 + abs(low) * 1e-9
    assert all(low - slack <= mark <= low + span + slack for mark in marks)
    assert len(marks) <= count + 1


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.5, "0.5"), (12345.0, "12,345"), (2e-5, "2e-5"), (1.3e-5, "1.3e-5"), (0.91234, "0.912")],
)
def test_numbers_are_formatted_briefly(value, words):
    assert number(value) == words


def test_a_line_breaks_at_a_missing_value():
    assert 'd="M0 0M2 2"' in path([(0, 0), (1, math.nan), (2, 2)], "curve")


def test_y_values_increase_upward():
    frame = Frame(0, 0, 10, 10, (0, 1), (0, 1))
    assert frame.y(1) < frame.y(0)


def test_a_range_of_one_value_is_centered():
    assert Frame(0, 0, 10, 10, (3, 3), (0, 1)).x(3) == 5


def test_the_range_test_figure_names_base_and_max():
    figure = lr_range([1e-4, 1e-3, 1e-2], [0.7, 0.5, 0.9], [0.7, 0.6, 0.65], 1e-4, 1e-3)
    words = " ".join(ElementTree.fromstring(figure).itertext())
    assert "base 1.0e-04" in words
    assert "max 1.0e-03" in words
