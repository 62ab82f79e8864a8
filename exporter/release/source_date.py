"""Choose the one date in a bundle. It is not the machine's, so that another day gives the same bytes."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from exporter.errors import UsageError

VARIABLE = "SOURCE_DATE_EPOCH"
"""The variable that holds seconds since 1970: https://reproducible-builds.org/specs/source-date-epoch/"""
FIRST = datetime(1980, 1, 1, tzinfo=UTC)
"""The earliest date that a zip archive can hold: the default date of a bundle."""
LAST = datetime(2107, 12, 31, tzinfo=UTC)


def source_date_clock() -> datetime:
    """Return the date of `SOURCE_DATE_EPOCH`, else 1 January 1980.

    Raises:
        UsageError: The variable holds no such date.
    """
    text = os.environ.get(VARIABLE, "")
    if not text:
        return FIRST
    try:
        date = datetime.fromtimestamp(int(text), UTC)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"{VARIABLE} is {text!r}, expected whole seconds since 1970.") from None
    if not FIRST <= date <= LAST:
        raise UsageError(f"{VARIABLE} is {date:%Y-%m-%d}; a zip archive holds dates from 1980 to 2107.")
    return date
