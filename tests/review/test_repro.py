"""What a person ruled on the page goes through `dvc repro`, and a fair comparison follows."""

import subprocess
import sys
from typing import Any

import pandas as pd
import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def ruled(project: Any, chromium: Any) -> pd.DataFrame:
    """By keys: two cases dropped, one relabelled, three put into one group in the grid; the index of the images."""
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
        page.locator("#ask-reason").fill("seen in the picture")
        page.keyboard.press("Enter")
        page.keyboard.press(key if key == "d" else str(2 - page.evaluate("run.label[target]")))
        expect(page.locator("#progress")).not_to_have_text(before)
    page.keyboard.press("g")
    page.locator("#grid [role=option]").first.wait_for()
    for key in (*["ArrowRight"] * 5, "Shift+ArrowRight", "Shift+ArrowRight"):
        page.keyboard.press(key)
    page.keyboard.press("s")
    page.locator("#summary", has_text="2 group").wait_for()
    page.close()
    process.terminate()
    assert process.wait(60) == 0
    return pd.read_csv(
        project.folder / "data/ingested/index.csv", dtype={"hash": str, "file_hash": str}, keep_default_na=False
    )


@pytest.fixture(scope="module")
def repro(project: Any, ruled: pd.DataFrame) -> str:
    """What `dvc repro` printed after the rulings."""
    return project.run("dvc", "repro").stdout


def test_the_rulings_reach_the_decisions_and_leave_a_trace(project: Any, ruled: pd.DataFrame, repro: str) -> None:
    rulings = pd.read_csv(project.folder / "data/overrides.csv", dtype=str, keep_default_na=False)
    assert sorted(rulings["ruling"]) == ["drop", "drop", "group", "group", "relabel"]
    decisions = pd.read_csv(project.folder / "data/cleaned/decisions.csv", keep_default_na=False)
    of = {name: decisions[ruled["file_hash"].isin(rows["hash"])] for name, rows in rulings.groupby("ruling")}
    assert set(of["drop"]["reason"]) == {"override"}
    names = {"healthy": 0, "unhealthy": 1}
    assert set(of["relabel"]["label"]) == {names[rulings.loc[rulings["ruling"].eq("relabel"), "label"].item()]}
    assert set(of["relabel"]["label"]) != set(ruled["label"][of["relabel"].index])
    joined = rulings[rulings["ruling"].eq("group")]
    members = decisions[ruled["file_hash"].isin([*joined["hash"], *joined["other"]])]
    assert members["group"].nunique() == 1
    assert members["ruling"].str.contains("group").all()
    split = pd.read_csv(project.folder / "data/split/splits.csv")
    assert split[split["image"].isin(members["image"])]["split"].nunique() == 1


def test_the_run_that_proposed_the_case_is_named(project: Any, ruled: pd.DataFrame) -> None:
    rulings = pd.read_csv(project.folder / "data/overrides.csv", dtype=str)
    shown = project.run("git", "show", "HEAD:dvc.lock").stdout
    assert rulings["run"].nunique() == 1
    assert len(rulings["run"][0]) == 12
    assert "models/model.keras" in shown


def test_the_comparison_leaves_out_what_was_ruled(project: Any, repro: str) -> None:
    said = project.run("leaf", "compare", "HEAD", "workspace", "--same-labels").stdout
    assert "workspace" in said.splitlines()[0]
