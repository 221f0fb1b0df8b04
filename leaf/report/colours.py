"""The page's colours, light and dark, as CSS variables; the contrast of each pair that is used is tested.

Every colour of text keeps 4.5:1 against what it stands on and every mark of a figure 3:1 (WCAG 2.2 AA, criteria
1.4.3 and 1.4.11). The two classes are teal and orange, which differ for every common kind of colour blindness, and
no figure tells them apart by colour alone.
"""

LIGHT = {
    "paper": "#fbfaf6",
    "card": "#ffffff",
    "ink": "#1b211e",
    "muted": "#57605b",
    "rule": "#dedbd1",
    "grid": "#e9e6dd",
    "first": "#0e7c72",
    "second": "#b4530a",
    "link": "#1b5f8f",
    "gone": "#767c78",
    "shade": "#f1eee6",
    "series1": "#1b5f8f",
    "series2": "#b4530a",
    "series3": "#0e7c72",
    "series4": "#8d3f86",
    "series5": "#6b6a12",
    "series6": "#a8324a",
}
DARK = {
    "paper": "#121614",
    "card": "#1a1f1c",
    "ink": "#e9ece8",
    "muted": "#a5afa9",
    "rule": "#343b37",
    "grid": "#262c29",
    "first": "#43bfae",
    "second": "#f0a35c",
    "link": "#85bfe6",
    "gone": "#8b948f",
    "shade": "#1f2522",
    "series1": "#85bfe6",
    "series2": "#f0a35c",
    "series3": "#43bfae",
    "series4": "#d79ad1",
    "series5": "#cbc95a",
    "series6": "#f08fa1",
}
TEXTS = [
    *((words, "paper") for words in ("ink", "muted", "first", "second", "link")),
    ("ink", "shade"),
    ("link", "card"),
]
"""Every (text, ground) that the style sheet uses."""
MARKS = ("first", "second", "gone", "series1", "series2", "series3", "series4", "series5", "series6")


def contrast(one: str, other: str) -> float:
    """The contrast ratio, 1 to 21, of two colours `#rrggbb` (WCAG 2.2, relative luminance)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def variables() -> str:
    """The CSS that defines the colours: light, dark where the reader's system asks for it, always light in print."""
    light, dark = _block(LIGHT), _block(DARK)
    return (
        f":root{{color-scheme:light dark;{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        f"@media print{{:root{{color-scheme:light}}}}\n"
    )


def _block(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


def _luminance(colour: str) -> float:
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
