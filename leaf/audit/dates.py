"""Read dates in the formats that tables and cameras use, and report dates that cannot be read."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from dateutil import parser

_NUMBERS = re.compile(r"(\d{1,2})([-./ ])(\d{1,2})\2(\d{4}|\d{2})(?!\d)")  # two short numbers and a year
_SERIAL = re.compile(r"[2-6]\d{4}(\.\d+)?")  # days since 1899-12-30 in a spreadsheet: 1954 to 2091
_DEFAULTS = datetime(2000, 1, 1), datetime(2001, 2, 2, 1, 1)  # the parser copies missing parts from a default
_ORDERS: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "day, month, year": lambda first, second: (first, second),
    "month, day, year": lambda first, second: (second, first),
}


def iso_dates(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Convert dates to ISO 8601 (2024-03-01 12:30:00), keeping only the parts present (2024-03, 2024).

    Accept ISO, compact (20240301), English month names, spreadsheet serial numbers, and numeric dates with day or month
    first. The day/month order is inferred from all dates together: the only order in which every date is valid, or day
    first for dates with dots.

    Args:
        texts: the dates, "" if missing.

    Returns:
        The ISO dates, "" for a date that cannot be read, and remarks for the user, one line each.
    """
    texts = [re.sub(r"^(\d{4}):(\d\d):(\d\d)", r"\1-\2-\3", text.strip("\0 ")) for text in texts]  # EXIF
    numbers = [found for text in texts if (found := _NUMBERS.match(text))]
    orders = [
        name
        for name, order in _ORDERS.items()
        if all(day <= 31 and month <= 12 for day, month in (order(int(each[1]), int(each[3])) for each in numbers))
    ]
    if len(orders) == 2 and not all(each[2] == "." for each in numbers):
        orders = []
    remarks = []
    if numbers and orders:
        remarks.append(f"Dates such as {numbers[0][0]} are read as {orders[0]}.")
    dates = [_iso(text, orders) for text in texts]
    if unread := [text for text, date in zip(texts, dates, strict=True) if text and not date]:
        why = ", because the order of day and month is not clear" if numbers and not orders else ""
        remarks.append(
            f"{len(unread)} of {sum(map(bool, texts))} dates are not used, such as {unread[0][:40]!r}{why}. Write them "
            "as 2024-03-01."
        )
    return dates, remarks


def _iso(text: str, orders: Sequence[str]) -> str:
    if _SERIAL.fullmatch(text):
        date = datetime(1899, 12, 30) + timedelta(days=float(text))
        return date.isoformat(" ", "seconds").removesuffix(" 00:00:00")
    if (_NUMBERS.match(text) and not orders) or re.fullmatch(r"\d{1,3}|\d{5,7}|\D*", text):
        return ""
    year_first = re.match(r"\d{4}", text) is not None
    day_first = not year_first and orders[:1] == ["day, month, year"]
    try:
        date, other = (
            parser.parse(text, default=default, ignoretz=True, dayfirst=day_first, yearfirst=year_first)
            for default in _DEFAULTS
        )
    except (ValueError, OverflowError):
        return ""
    if date.year != other.year:
        return ""
    length = 4 if date.month != other.month else 7 if date.day != other.day else 10 if date.hour != other.hour else 19
    return date.isoformat(" ", "seconds")[:length]
