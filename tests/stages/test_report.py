"""Test the `report` stage, from the outputs of the other stages to reports/."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from leaf.errors import one_line_errors
from leaf.store import read_json, save_cached_value
from stages import report
from tests.report import builder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a folder in which every stage before the report has run."""
    folder = tmp_path_factory.mktemp("project")
    builder.write(folder, builder.tables(*builder.drawn(count=60, side=24)))
    for name in ("dvc.yaml", "params.yaml"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture
def here(project, monkeypatch):
    monkeypatch.chdir(project)
    return project


def run():
    with one_line_errors():
        report.main()


def test_stage_writes_report_summary_and_model_card(here, capsys):
    run()
    assert "reports/report.html" in capsys.readouterr().out
    for name in ("report.html", "summary.html"):
        assert (here / "reports" / name).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "## Limitations" in (here / "reports/model_card.md").read_text(encoding="utf-8")


def test_every_output_of_dvc_yaml_is_written(here):
    run()
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["report"]
    assert set(stage["outs"]) == set(report.PAGES)
    assert all((here / name).is_file() for name in report.PAGES)


def test_second_run_with_the_same_date_gives_the_same_bytes(here, monkeypatch):
    monkeypatch.setattr(report, "facts", lambda _: {"Date": "1 May 2026, 09:00 UTC"})
    run()
    before = (here / "reports/report.html").read_bytes()
    run()
    assert (here / "reports/report.html").read_bytes() == before


def test_page_shows_date_commit_and_training_time(here, monkeypatch, tmp_path):
    monkeypatch.setenv("LEAF_STATE", str(tmp_path))
    monkeypatch.delenv("DVC_EXP_BASELINE_REV", raising=False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["commit", "--quiet", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    save_cached_value("trained", read_json("models/run.json")["model_sha256"], 93.0)
    run()
    page = (here / "reports/report.html").read_text(encoding="utf-8")
    for words in (f"{datetime.now(UTC):%B %Y}", commit[:10], "1.6 minutes"):
        assert words in page


def test_missing_table_causes_a_one_line_error_with_status_2(here, capsys):
    history = here / "models/history.csv"
    history.rename(here / "hidden")
    try:
        with pytest.raises(SystemExit) as refused:
            run()
    finally:
        (here / "hidden").rename(history)
    said = capsys.readouterr().err
    assert (refused.value.code, said.count("\n")) == (2, 1)
    assert said.startswith("error: models/history.csv: no such file")


def test_every_table_of_the_page_is_a_dependency(project):
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]["report"]
    written = {
        str(path.relative_to(project)) for path in project.rglob("*") if path.suffix in (".csv", ".npy", ".json")
    }
    assert written <= set(stage["deps"])
