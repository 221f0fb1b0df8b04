"""`dvc repro` applies the decisions made on the page, and comparisons use images with unchanged labels."""

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def index(project: Any, chromium: Any) -> pd.DataFrame:
    """Drop two images, relabel one, and group three in the grid; return the index of the images."""
    command = [sys.executable, "-c", "from leaf.cli import main; main()", "review", "--quiet"]
    process = subprocess.Popen(
        command, cwd=project.folder, env=project.environment(), stdout=subprocess.PIPE, text=True
    )
    page = chromium.new_page()
    page.set_default_timeout(60_000)
    page.goto(process.stdout.readline().strip())
    page.locator("#lines dt").first.wait_for()
    page.locator("#filter").select_option("label")
    for key in ("d", "d", "other"):
        before = page.locator("#progress").inner_text()
        page.keyboard.press("w")
        page.locator("#ask-reason").fill("visible in the image")
        page.keyboard.press("Enter")
        page.keyboard.press(key if key == "d" else str(2 - page.evaluate("run.label[target]")))
        expect(page.locator("#progress")).not_to_have_text(before)
    page.keyboard.press("g")
    page.locator("#grid [role=option]").first.wait_for()
    for key in (*["ArrowRight"] * 5, "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("s")
    page.locator("#summary", has_text="2 grouped").wait_for()
    page.close()
    process.terminate()
    assert process.wait(60) == 0
    return pd.read_csv(
        project.folder / "data/ingested/index.csv", dtype={"hash": str, "file_hash": str}, keep_default_na=False
    )


@pytest.fixture(scope="module")
def repro(project: Any, index: pd.DataFrame) -> str:
    """Return the output of `dvc repro` after the decisions."""
    return project.run("dvc", "repro").stdout


def test_decisions_are_applied_and_recorded(project: Any, index: pd.DataFrame, repro: str) -> None:
    overrides = pd.read_csv(project.folder / "data/overrides.csv", dtype=str, keep_default_na=False)
    assert sorted(overrides["ruling"]) == ["drop", "drop", "group", "group", "relabel"]
    decisions = pd.read_csv(project.folder / "data/cleaned/decisions.csv", keep_default_na=False)
    of = {name: decisions[index["file_hash"].isin(rows["hash"])] for name, rows in overrides.groupby("ruling")}
    assert set(of["drop"]["reason"]) == {"override"}
    names = {"healthy": 0, "unhealthy": 1}
    assert set(of["relabel"]["label"]) == {names[overrides.loc[overrides["ruling"].eq("relabel"), "label"].item()]}
    assert set(of["relabel"]["label"]) != set(index["label"][of["relabel"].index])
    joined = overrides[overrides["ruling"].eq("group")]
    members = decisions[index["file_hash"].isin([*joined["hash"], *joined["other"]])]
    assert members["group"].nunique() == 1
    assert members["ruling"].str.contains("group").all()
    split = pd.read_csv(project.folder / "data/split/splits.csv")
    assert split[split["image"].isin(members["image"])]["split"].nunique() == 1


def test_decisions_name_the_run_that_proposed_the_case(project: Any, index: pd.DataFrame) -> None:
    overrides = pd.read_csv(project.folder / "data/overrides.csv", dtype=str)
    shown = project.run("git", "show", "HEAD:dvc.lock").stdout
    assert overrides["run"].nunique() == 1
    assert len(overrides["run"][0]) == 12
    assert "models/model.keras" in shown


def test_comparison_uses_images_with_unchanged_labels(project: Any, repro: str) -> None:
    said = project.run("leaf", "compare", "HEAD", "workspace", "--same-labels").stdout
    assert "workspace" in said.splitlines()[0]
