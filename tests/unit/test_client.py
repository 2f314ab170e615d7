"""How long a server asks to wait; downloads themselves are tested with collect_source."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llamaflow.client import seconds


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), (" 0 ", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), ("²", None), ("", None), (None, None)]
)
def test_retry_after(header: str | None, expected: float | None) -> None:
    assert seconds(header) == expected


def test_retry_after_a_date() -> None:
    wait = seconds(format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True))
    assert wait is not None
    assert 85 < wait <= 90
