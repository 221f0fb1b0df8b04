"""`leaf audit` on a finished run: the numbers under their fixed keys, and the page."""

import json
import re

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audited(project):
    """A finished run and what the command printed."""
    return project, project.run("leaf", "audit").stdout


def test_the_numbers_stand_under_their_fixed_keys(audited):
    found = json.loads((audited[0].folder / "metrics/audit.json").read_text())
    assert {"majority", "border_pixels", "frame", "colour"} <= found["shortcuts"].keys()
    scores = [*found["shortcuts"].values(), *found["transport"]["background"].values(), *found["new_class"].values()]
    for score in scores:
        for each in [score] if "accuracy" in score else [score[key] for key in score.keys() & {"inside", "outside"}]:
            assert 0 <= each["low"] <= each["accuracy"] <= each["high"] <= 1
    assert found["guessed"] is True
    assert found["network"]["unchanged"]["accuracy"] == pytest.approx(found["model"]["accuracy"], abs=0.02)


def test_each_question_is_answered_in_a_line(audited):
    lines = audited[1].splitlines()
    assert [line[:2] for line in lines[:-1]] == [f"{number}." for number in range(1, 8)]


def test_the_page_holds_every_question_and_asks_nothing_of_the_network(audited):
    page = (audited[0].folder / "reports/audit.html").read_text()
    for line in audited[1].splitlines()[:-1]:
        assert re.escape(line[3 : line.index("?") + 1])[:20] in re.escape(page)
    assert not re.search(r"(src|href)=\"(https?:)?//", page)


def test_an_unknown_column_is_named_with_those_that_there_are(audited):
    done = audited[0].run("leaf", "audit", "--by", "farm", status=2)
    assert done.stderr.splitlines()[-1].startswith("error: --by farm: no such column; valid: ")


@pytest.mark.full
def test_settings_are_run_first_in_a_folder_of_their_own(audited):
    folder = audited[0].folder
    before = (folder / "models/run.json").read_bytes()
    done = audited[0].run("leaf", "audit", "-S", "epochs=1")
    assert "reports/audit.html" in done.stdout
    assert (folder / "models/run.json").read_bytes() == before
    assert "audit-default" in audited[0].run("dvc", "exp", "list", "--name-only").stdout
