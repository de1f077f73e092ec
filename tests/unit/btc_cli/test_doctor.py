"""What `btc doctor` says of things that need no server."""

from __future__ import annotations

from datetime import date

from btc_core.days.stored_checks import calendar_problem
from btc_core.features.releases import load_calendars


def test_the_doctor_says_which_calendar_of_releases_has_ended() -> None:
    calendars = load_calendars()
    last = min(calendar.until for calendar in calendars.values())
    assert calendar_problem(calendars.values(), last) == ""
    problem = calendar_problem(calendars.values(), date(last.year + 1, 1, 1))
    assert f"Consumer Price Index ended on {last}" in problem
    assert "Open Market" not in problem
    assert "us_releases.toml" in problem
