"""Dates in tables and EXIF data are read in a single day/month order, and unused dates are reported."""

import pytest

from leaf.audit.shortcuts import iso_dates

READ = [
    ("2024-03-01", "2024-03-01"),
    ("2021:05:06 12:30:00", "2021-05-06 12:30:00"),
    ("01.03.2024", "2024-03-01"),
    ("1.3.24 14:05", "2024-03-01 14:05:00"),
    ("20240301", "2024-03-01"),
    ("2024-03-01T12:30:00+02:00", "2024-03-01 12:30:00"),
    ("Mar 1, 2024", "2024-03-01"),
    ("1 March 2024", "2024-03-01"),
    ("March 2024", "2024-03"),
    ("2024", "2024"),
    ("45352", "2024-03-01"),
    ("45352.5", "2024-03-01 12:00:00"),
]


@pytest.mark.parametrize(("text", "expected"), READ)
def test_only_the_parts_present_in_a_date_are_kept(text, expected):
    assert iso_dates([text])[0] == [expected]


@pytest.mark.parametrize("text", ["spring", "17", "12:30", "2024-13-01", "30.02.2024", "1. März 2024", "9" * 400])
def test_unreadable_dates_are_reported(text):
    dates, remarks = iso_dates(["2024-03-01", text])
    assert dates == ["2024-03-01", ""]
    assert remarks[-1].startswith("Dates not used: 1 of 2 ")
    assert text[:40] in remarks[-1]


@pytest.mark.parametrize("text", ["01-03-24", "01/03/2024", "1 3 2024"])
def test_day_and_month_without_a_clear_order_are_reported(text):
    dates, remarks = iso_dates([text])
    assert dates == [""]
    assert "order of day and month is ambiguous" in remarks[0]


@pytest.mark.parametrize(("other", "first"), [("25/12/2023", "2024-03-01"), ("12/25/2023", "2024-01-03")])
def test_day_month_order_is_inferred_from_all_dates(other, first):
    dates, remarks = iso_dates(["01/03/2024", other])
    assert dates == [first, "2023-12-25"]
    assert "01/03/2024" in remarks[0]
