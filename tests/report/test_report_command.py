"""Test `leaf report REV…` in a repository with two commits and a modified workspace."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest
from typer.testing import CliRunner

from leaf.cli import app
from leaf.errors import LeafError
from leaf.report.side_by_side import read_summary, write_report


@pytest.fixture(scope="module")
def project(builder, drawn, tmp_path_factory):
    """Return a repository with a run at each of two tags and one in the workspace."""
    folder = tmp_path_factory.mktemp("repository")

    def say(*command):
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    say("git", "init", "-q", "-b", "main")
    say("git", "config", "user.email", "a@example.org")
    say("git", "config", "user.name", "a")
    say(sys.executable, "-m", "dvc", "init", "-q")
    for place, name in enumerate(["one", "two", "three"]):
        made = builder.tables(*drawn, seed=7)
        made["training"]["best_epoch"] = place + 1
        builder.write(folder, made)
        classes = pd.DataFrame(enumerate(made["training"]["classes"]), columns=["label", "name"])
        classes.to_csv(folder / "data/ingested/classes.csv", index=False)
        (folder / "params.yaml").write_text(f"image_size: 48\ndropout: 0.{place}\nlearning_rate: {{max: 1e-3}}\n")
        shutil.rmtree(folder / "data/balanced")
        if name != "three":
            say("git", "add", "-A")
            say("git", "commit", "-q", "-m", name)
            say("git", "tag", name)
    return folder


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


@pytest.mark.slow
def test_each_revision_is_read_from_its_own_commit(here):
    found = [read_summary(name).training["best_epoch"] for name in ("one", "two", "workspace")]
    assert found == [1, 2, 3]


@pytest.mark.slow
def test_nested_parameters_become_dotted_keys(here):
    assert read_summary("one").params["learning_rate.max"] == 0.001


@pytest.mark.slow
def test_the_page_shows_the_result_of_leaf_compare(here):
    said = write_report(["one", "two"], "reports/both.html")
    page = (here / "reports/both.html").read_text(encoding="utf-8")
    assert "not distinguishable" in said
    assert "two and one are not distinguishable" in page


@pytest.mark.slow
def test_seeds_joined_by_commas_are_shown_and_compared_together(here):
    said = write_report(["one,two", "workspace"], "reports/both.html")
    assert "workspace and one,two are not distinguishable" in said
    assert "one, two, workspace – leaf report" in (here / "reports/both.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_revision_is_compared_with_the_workspace(here):
    write_report(["one"], "reports/both.html")
    assert "workspace, one – leaf report" in (here / "reports/both.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_runs_with_different_labels_are_shown_with_the_refusal(here):
    table = here / "data/scored/predictions.csv"
    whole = table.read_text(encoding="utf-8")
    predictions = pd.read_csv(table)
    predictions["label"] = 1 - predictions["label"]
    predictions.to_csv(table, index=False)
    try:
        said = write_report(["workspace", "one"], "reports/both.html")
    finally:
        table.write_text(whole, encoding="utf-8")
    assert "images differ" in said
    assert "The runs cannot be compared" in (here / "reports/both.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_an_unknown_revision_gives_a_one_line_error(here):
    with pytest.raises(LeafError, match="nowhere: "):
        write_report(["nowhere", "one"], "reports/both.html")


def test_too_many_revisions_are_rejected():
    with pytest.raises(LeafError, match=r"9 revisions.*at most 6"):
        write_report([str(number) for number in range(9)], "page.html")


def test_repeated_revision_is_rejected():
    with pytest.raises(LeafError, match="one one"):
        write_report(["one", "one"], "page.html")


def test_a_missing_run_gives_a_one_line_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeafError, match=r"workspace: .*params\.yaml"):
        read_summary("workspace")


def test_damaged_json_gives_a_one_line_error(builder, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    builder.write(tmp_path, builder.tables(*drawn))
    (tmp_path / "params.yaml").write_text("{}")
    (tmp_path / "models/run.json").write_text("{")
    with pytest.raises(LeafError, match=r"workspace: models/run\.json"):
        read_summary("workspace")


def test_the_help_shows_an_example():
    assert "leaf report main dropout_02" in CliRunner().invoke(app, ["report", "--help"], env={"COLUMNS": "200"}).output
