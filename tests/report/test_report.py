"""The report is valid, self-contained, escaped, small and reproducible."""

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from leaf.errors import LeafError
from leaf.finished_run import Run, read_run
from leaf.report.render import breakable, render, unbroken

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Outline(HTMLParser):
    """Collect the tags, headings, ids and links of a page."""

    def __init__(self):
        super().__init__()
        self.open, self.headings, self.ids, self.links, self.tags = [], [], [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if tag == "a" else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(html):
    parser = Outline()
    parser.feed(html)
    return parser


@pytest.fixture(params=["finished", "bare"])
def html(request):
    return request.getfixturevalue(request.param)


def test_tags_are_balanced(html):
    assert outline(html).open == []


def test_heading_levels_are_not_skipped(html):
    levels = outline(html).headings
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_every_link_has_a_target_on_the_page(html):
    parsed = outline(html)
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert len(parsed.ids) == len(set(parsed.ids))


def test_the_page_loads_nothing(html):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)|url\((?!data:)|@import|<script""", html)


def test_every_figure_and_image_has_alternative_text(html):
    parsed = outline(html)
    figures = [attributes for tag, attributes in parsed.tags if tag == "svg"]
    images = [attributes for tag, attributes in parsed.tags if tag == "img"]
    assert figures
    assert all(attributes["role"] == "img" and len(attributes["aria-label"]) > 20 for attributes in figures)
    assert all(attributes["alt"] for attributes in images)


def test_no_text_is_nan_inf_or_none(html):
    assert not re.findall(r"\b(?:nan|inf|None)\b", html)


def test_equal_tables_give_byte_identical_pages(tables):
    assert render(Run(**tables())) == render(Run(**tables()))


def test_markup_in_names_is_escaped(tables):
    evil = "<script>alert(1)</script>\"'&{{ 7*7 }}"
    made = tables(sources=[f"healthy/{evil}{place}.jpg" for place in range(178)])
    made["params"] |= {"dataset": evil}
    made["training"]["classes"] = [evil, "<img src=x onerror=alert(2)>"]
    made["scores"]["by_folder"][0]["folder"] = evil
    made["distances"]["reference"] = evil
    page = render(Run(**made))
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.slow
def test_the_page_of_ten_thousand_images_is_below_one_megabyte(builder):
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (10_000, 12, 12, 3), np.uint8)
    images[100:1100] = images[1100:2100]
    images[200:500] = images[0]
    made = builder.tables(images, random.integers(0, 2, len(images)), near=400, aligned=300, overrides=200)
    assert len(render(Run(**made)).encode()) < 1_000_000


def test_thumbnails_are_at_most_96_pixels(builder):
    images, labels = builder.drawn(count=40, side=130)
    page = render(Run(**builder.tables(images, labels, near=2, aligned=1)))
    uris = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    sizes = {Image.open(io.BytesIO(base64.b64decode(uri))).size for uri in uris}
    assert sizes == {(96, 96)}


@pytest.mark.parametrize(
    "words",
    [
        "test images",
        "outliers were removed",
        "conflicting labels",
        "Nearest first",
        "SMOTE",
        "Learning rate",
        "best epoch",
        "Confusion matrix",
        "ROC",
        "Calibration",
        "By source folder",
        "confident mistakes",
        "Least certain",
        "manual decision",
        "What to try next",
        "parameters differ",
        "Versions",
        "Training seed",
        "SHA-256",
    ],
)
def test_the_page_contains(finished, words):
    assert words in finished


@pytest.mark.parametrize(
    "words",
    ["No outliers found", "No copies", "1 epoch", "No test split", "default values"],
)
def test_the_page_of_a_minimal_run_reports_what_is_missing(bare, words):
    assert words in bare


@pytest.mark.parametrize(
    ("lacking", "options", "words"),
    [
        ("", {"test": False}, "No test split"),
        ("", {"epochs": 1}, "1 epoch"),
        ("", {"smote": False}, "Class balance at each step"),
        ("copies", {"near": 0}, "No copies"),
        ("outliers", {}, "No outliers found"),
    ],
)
def test_a_run_without_one_part_has_a_valid_page(builder, drawn, lacking, options, words):
    images, labels = drawn
    _, which, counts = np.unique(images.reshape(len(images), -1), axis=0, return_inverse=True, return_counts=True)
    times = counts[which.ravel()]
    kept = {"copies": (times == 1) | (times >= 8), "outliers": times < 8, "": times > 0}[lacking]
    page = render(Run(**builder.tables(images[kept], labels[kept], **options)))
    assert words in page
    parsed = outline(page)
    assert parsed.open == []
    assert {link.removeprefix("#") for link in parsed.links} <= set(parsed.ids)
    assert not re.findall(r"\b(?:nan|inf|None)\b", page)


def test_mistake_has_heatmaps_of_the_predicted_and_the_second_class(finished):
    mistakes, _, uncertain = finished.partition("confident mistakes")[2].partition("Least certain images")
    cards = re.findall(r'<li class="card"><div class="strip">.*?</li>', mistakes, re.S)
    assert cards
    for card in cards:
        predicted, second = re.search(r"Predicted (\w+), <strong>\d+%</strong>; second (\w+)", card).groups()
        assert re.findall(r"Heatmap of image \d+ for (\w+)", card) == [predicted, second]
    assert "second" not in uncertain.partition("</ul>")[0]


def test_mistake_count_matches_the_confusion_matrix(tables):
    made = tables(quality=0.2)
    matrix = made["scores"]["splits"]["test"]["confusion"]
    made["gallery"] = made["gallery"].groupby("kind").head(12)
    wrong = matrix[0][1] + matrix[1][0]
    assert wrong > 9
    assert f"9 of {wrong} mistakes are shown." in render(Run(**made))


def test_every_image_shows_the_number_for_leaf_why(tables, finished):
    numbers = {int(number) for number in re.findall(r"image\xa0(\d+)", finished)}
    assert numbers
    assert numbers <= set(tables()["index"]["image"])


def test_synthetic_copies_of_a_parent_are_not_shown_as_blends(tables):
    made = tables()
    made["synthetic"]["weight"] = [0.0, 0.004, 0.999, *[0.5] * (len(made["synthetic"]) - 3)]
    shown = re.findall(r'<li class="card row3">.*?</li>', render(Run(**made)), re.S)
    assert len(shown) == 6
    assert all('<p class="small">0.50</p>' in triple for triple in shown)


def test_the_original_sizes_are_shown(finished):
    assert (
        "The most common size of the originals is 640 × 480 pixels; their sides range from 480 to 4,000. "
        "The network input is 48 × 48." in finished.replace("\xa0", " ")
    )


def test_a_warning_is_shown_for_user_data_without_groups(tables):
    own = {"params": {"dataset": "images"}}
    warning = "No groups were specified"
    assert warning not in render(Run(**tables()))  # no leaf appears twice in the synthetic data set
    assert warning in render(Run(**tables(**own)))
    grouped = tables(**own)
    grouped["index"]["group"] = "plant 1"
    assert warning not in render(Run(**grouped))


@pytest.mark.parametrize(("stopped", "converged"), [("converged", True), ("max_iter", False)])
def test_linear_probe_converged_only_before_the_maximum_number_of_iterations(tables, stopped, converged):
    made = tables()
    made["training"] |= {"probe": {"strength": 1.0, "iterations": 20}, "stopped": stopped}
    page = render(Run(**made))
    assert ("fitted to convergence" in page) is converged
    assert ("had not converged" in page) is not converged


def test_class_names_are_shown_without_underscores(tables):
    made = tables()
    made["training"]["classes"] = ["Apple___Black_rot", "Apple___healthy"]
    page = render(Run(**made))
    assert "Apple: Black rot" in page
    assert "Black_rot" not in page


def test_class_names_that_would_collide_are_shown_unchanged(tables):
    made = tables()
    made["training"]["classes"] = ["leaf_spot", "leaf spot"]
    assert Run(**made).names == ["leaf_spot", "leaf spot"]


def test_hashes_are_collapsed(finished):
    assert "SHA-256" in re.search(r"<details>\s*<summary>SHA-256.*?</details>", finished, re.S).group()
    assert finished.count(hashlib.sha256(b"index").hexdigest()) == 1


@pytest.mark.parametrize(
    "figure", ["p\xa0=\xa00.38", "95\xa0%", "+0.6\xa0points", "-0.8\xa0to\xa0+1.4", "p\xa0<\xa00.001"]
)
def test_numbers_in_a_sentence_do_not_break_across_lines(figure):
    words = "b is better: +0.6 points of accuracy (95 %: -0.8 to +1.4), p = 0.38, p < 0.001 on 1 image."
    assert figure in unbroken(words)
    assert unbroken(words).replace("\xa0", " ") == words


def test_a_name_breaks_after_underscores_only():
    assert breakable("Bean___leaf<b>_0.5") == "Bean___<wbr>leaf&lt;b&gt;_<wbr>0.5"


def test_temperature_scaling_shows_the_calibration_error_before_and_after(tables, finished):
    made = tables()
    made["scores"]["splits"]["test"]["before_calibration"] = {"log_loss": 0.7, "calibration_error": 0.118}
    assert "0.042; before temperature scaling: 0.118." in render(Run(**made))
    assert "before temperature scaling" not in finished


def test_the_changed_parameters_are_listed_with_their_defaults(finished):
    row = re.search(r"<code>dropout</code>.*?</tr>", finished, re.S).group()
    assert "0.2" in row
    assert "0.1" in row


def test_saved_and_reloaded_tables_give_the_same_page(builder, tables, tmp_path):
    made = tables()
    builder.write(tmp_path, made)
    run = read_run(tmp_path, made["params"])
    again = render(Run(**{**made, "files": run.files}))
    assert render(run) == again


@pytest.mark.parametrize(
    "name", ["cleaned/distances.csv", "cleaned/pairs.csv", "balanced/index.csv", "scored/gallery.csv"]
)
def test_a_missing_optional_table_removes_its_section(builder, tables, tmp_path, name):
    made = tables()
    builder.write(tmp_path, made)
    (tmp_path / "data" / name).unlink()
    assert "<h1>" in render(read_run(tmp_path, made["params"]))


def test_a_missing_required_table_gives_a_one_line_error(builder, tables, tmp_path):
    made = tables()
    builder.write(tmp_path, made)
    (tmp_path / "data/cleaned/decisions.csv").unlink()
    with pytest.raises(LeafError, match=r"decisions\.csv"):
        read_run(tmp_path, made["params"])


def test_a_class_without_test_images_leaves_the_roc_curve_empty(tables):
    made = tables()
    block = made["scores"]["splits"]["test"]
    block |= {"roc_auc": None, "balanced_accuracy": None, "confusion": [[0, 0], [2, 9]]}
    block["roc"] = {"fpr": [None, None], "tpr": [0.0, 1.0]}
    block["classes"][0] |= dict.fromkeys(("recall", "recall_low", "recall_high", "precision")) | {"images": 0}
    assert "<h3>ROC</h3>" in render(Run(**made))
