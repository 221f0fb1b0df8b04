"""All color pairs on the pages meet the contrast requirements of WCAG 2.2 AA in light and dark mode.

Text requires 4.5:1 (criterion 1.4.3), marks in figures 3:1 (1.4.11). People with common types of color blindness can
distinguish the colors of the two classes, teal and orange, and no figure distinguishes classes by color alone.
"""

import re

import pytest

from leaf.report.render import TEMPLATES

SHEET = (TEMPLATES / "page.css").read_text(encoding="utf-8")
LIGHT, DARK = (dict(re.findall(r"--(\w+):(#\w{6})", block)) for block in re.findall(r":root\{(.*--.*?)\}", SHEET))
THEMES = {"light": LIGHT, "dark": DARK}
TEXTS = [
    *((words, "paper") for words in ("ink", "muted", "first", "second", "link")),
    ("ink", "shade"),
    ("link", "card"),
]
MARKS = ["first", "second", "gone", *(f"series{number}" for number in range(1, 7))]


def contrast(one, other):
    """Return the WCAG 2.2 contrast ratio, 1 to 21, of two colors `#rrggbb`."""
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(color):
    channels = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_contrast_of_black_and_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_contrast_matches_a_published_value():
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # value from WebAIM's contrast checker


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize(("words", "ground"), TEXTS)
def test_text_is_readable(theme, words, ground):
    assert contrast(THEMES[theme][words], THEMES[theme][ground]) >= 4.5


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("mark", MARKS)
def test_figure_marks_have_enough_contrast(theme, mark):
    assert contrast(THEMES[theme][mark], THEMES[theme]["paper"]) >= 3


def test_both_themes_define_every_color_in_the_style_sheet():
    assert LIGHT.keys() == DARK.keys() == set(re.findall(r"var\(--(\w+)\)", SHEET))


def test_dark_colors_apply_to_screens_only():
    assert re.search(r"@media screen and \(prefers-color-scheme:dark\)\{:root\{--", SHEET)
