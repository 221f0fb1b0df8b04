"""The audit_summary says what was found and what to do, and asks for nothing where nothing was found."""

import copy

from leaf.report.audit import audit_summary


def test_every_question_has_its_answer_and_what_to_do(audited):
    page, lines = audit_summary(audited)
    assert len(lines) == 7
    assert "7 of 7 questions leave something to do" in page
    assert page.count("<strong>What to do.</strong>") == 7
    assert "88.0%" in page


def test_what_was_cleared_asks_for_nothing(audited):
    found = copy.deepcopy(audited)
    for score in found["shortcuts"].values():
        score["alarm"] = False
    found["network"]["frame_use"] = {"accuracy": 0.03, "low": -0.01, "high": 0.07}
    page, lines = audit_summary(found)
    assert "4 of 7 questions leave something to do" in page
    assert "No: 5 things were asked, none is right more often than chance allows." in lines[0]
    assert "Not that it shows" in lines[2]


def test_a_column_that_cannot_be_asked_is_said_to_be_open(audited):
    page, lines = audit_summary(audited | {"transport": {"crop": {}}})
    assert "Cannot be asked by crop" in lines[3]
    assert "Cannot be known here" in page


def test_dates_that_are_not_used_are_named(audited):
    assert "2 of 9 dates are not used" in audit_summary({**audited, "dates": ["2 of 9 dates are not used"]})[0]
