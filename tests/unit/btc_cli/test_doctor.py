"""What `btc doctor` says of things that need no server."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from btc_cli.doctor import check_components
from btc_core.days.stored_checks import calendar_problem
from btc_core.features.releases import load_calendars
from stack.runtime import Stack
from tests.certificates import Authority

if TYPE_CHECKING:
    from pathlib import Path


def test_the_doctor_says_which_calendar_of_releases_has_ended() -> None:
    calendars = load_calendars()
    last = min(calendar.until for calendar in calendars.values())
    assert calendar_problem(calendars.values(), last) == ""
    problem = calendar_problem(calendars.values(), date(last.year + 1, 1, 1))
    assert f"Consumer Price Index ended on {last}" in problem
    assert "Open Market" not in problem
    assert "us_releases.toml" in problem


def test_the_doctor_says_why_the_certificate_of_the_api_cannot_serve(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "sim")
    stack.layout.create("sim")
    old = Authority(tmp_path).certificate("old", "localhost", days_left=-0.5)
    with stack.layout.env_file.open("a") as env_file:
        env_file.write(f"BTC_API_CERT_FILE={old.cert}\nBTC_API_KEY_FILE={old.key}\n")
    problems = {found.subject: found.problem for found in check_components(stack)}
    assert problems["certificate of the API"].endswith("certificate has expired")
