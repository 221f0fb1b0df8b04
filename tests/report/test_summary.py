"""Test the one-page summary and the model card."""

import re
from dataclasses import replace

import pytest

from leaf.finished_run import Run
from leaf.report.render import model_card, provenance, render_summary


@pytest.fixture
def run(tables):
    return Run(**tables())


@pytest.mark.parametrize("rendered", [render_summary, model_card])
def test_both_documents_have_result_classes_and_limitations(run, rendered):
    text = rendered(run)
    accuracy = run.scores["splits"]["test"]["accuracy"]
    assert f"Accuracy {accuracy:.1%} (95% CI" in text.replace("\xa0", " ")
    for words in ("healthy", "unhealthy", "other diseases", "uned color baseline"[1:]):
        assert words in text


def test_the_card_lists_every_class_with_its_recall(run):
    rows = [line for line in model_card(run).splitlines() if line.startswith(("| healthy", "| unhealthy"))]
    recalls = [f"{each['recall']:.1%}" for each in run.scores["splits"]["test"]["classes"]]
    assert [recall in row for recall, row in zip(recalls, rows, strict=True)] == [True, True]


def test_without_a_test_split_both_documents_call_the_accuracy_optimistic(bare_tables):
    run = Run(**bare_tables)
    for text in (render_summary(run), model_card(run)):
        assert "There is no test split" in text


def test_markup_in_class_names_is_escaped(tables):
    made = tables()
    made["training"]["classes"] = ["<b>|x", "*y*"]
    run = Run(**made)
    assert "<b>|x" not in render_summary(run)
    row = next(line for line in model_card(run).splitlines() if line.startswith("| \\<b"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def test_the_folder_of_the_data_set_is_not_published(tables):
    run = Run(**tables(params={"dataset": "/home/someone/leaves"}))
    assert "/home/someone" not in model_card(run) + render_summary(run)


@pytest.mark.browser
@pytest.mark.slow
def test_the_summary_prints_on_one_page(one_page, chromium, tmp_path):
    path = tmp_path / "summary.html"
    path.write_text(one_page, encoding="utf-8")
    page = chromium.new_page()
    page.goto(path.as_uri())
    assert page.pdf(format="A4").count(b"/Type /Page\n") == 1


def test_checkpoint_is_reported_with_revision_license_and_hash(run):
    record = {"name": "timm/convnext_nano.in12k", "revision": "0f9c", "sha256": "ab" * 32, "license": "apache-2.0"}
    named = replace(run, training={**run.training, "weights": record}, params={**run.params, "weights": record["name"]})
    text = "timm/convnext_nano.in12k, revision 0f9c, license apache-2.0"
    assert text in model_card(named).replace("\\", "")  # without Markdown escapes
    shown = provenance(named)
    assert ("Weights", text) in shown["network"]
    assert ("weights", "ab" * 32) in shown["hashes"]
