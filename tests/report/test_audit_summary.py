"""The audit page answers each question and suggests an action for every problem found."""

import copy
import re

from leaf.report.audit import audit_summary


def test_every_question_has_an_answer_and_an_action(audited):
    page, lines = audit_summary(audited)
    assert len(lines) == 7
    assert "7 of 7 questions require action" in page
    assert page.count("<strong>Action:</strong>") == 7
    assert "88.0%" in page


def test_questions_without_a_problem_have_no_action(audited):
    found = copy.deepcopy(audited)
    for score in found["shortcuts"].values():
        score["alarm"] = False
    found["network"]["frame_use"] = {"accuracy": 0.03, "low": -0.01, "high": 0.07}
    page, lines = audit_summary(found)
    assert "4 of 7 questions require action" in page
    assert "No: none of 5 features" in lines[0]
    assert "Not measurably" in lines[2]


def test_tables_show_the_largest_class_and_balanced_accuracy(audited):
    page, lines = audit_summary(audited)
    table_rows = "".join(re.findall(r'<table class="figures">.*?</table>', page, re.S)).split("<tr>")
    rows = [row for row in table_rows if 'scope="row">mean color<' in row or 'scope="row">frame colors<' in row]
    assert len(rows) == 2
    assert all("<td>12.0%</td>" in row for row in rows)
    shift = next(row for row in table_rows if row.startswith('<th scope="row">Unhealthy'))
    assert [cell in shift for cell in ("<td>60.0%</td>", "<td>85.0%</td>", "<td>41.0%</td>")] == [True] * 3
    assert "largest class makes up 60.0%" in lines[3]


def test_column_that_cannot_be_tested_is_reported_as_open(audited):
    page, lines = audit_summary(audited | {"transport": {"crop": {}}})
    assert "Cannot be tested by crop" in lines[3]
    assert "Not enough data to answer" in page


def test_unused_dates_are_reported(audited):
    assert "2 of 9 dates were not used" in audit_summary({**audited, "dates": ["2 of 9 dates were not used"]})[0]
