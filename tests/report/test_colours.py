"""Contrast as WCAG 2.2 AA asks, for every pair of colours that the page uses, light and dark."""

import pytest

from leaf.report.colours import DARK, LIGHT, MARKS, TEXTS, contrast, variables

THEMES = {"light": LIGHT, "dark": DARK}


def test_contrast_of_black_and_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_contrast_matches_a_published_value():
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # WebAIM's contrast checker


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("words", "ground"), TEXTS)
def test_text_is_readable(theme, words, ground):
    assert contrast(THEMES[theme][words], THEMES[theme][ground]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_figures_stand_out(theme, mark):
    assert contrast(THEMES[theme][mark], THEMES[theme]["paper"]) >= 3


def test_both_themes_define_the_same_colours():
    assert LIGHT.keys() == DARK.keys()


def test_dark_colours_hold_on_screens_that_ask_for_them_only():
    assert "@media screen and (prefers-color-scheme:dark)" in variables()
