"""Lines of a log that repeat are written once, and their number later."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from btc_core.repeated_lines import MAX_LINES, RepeatedLines
from tests.paths import ROOT
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator


class Log:
    """A logger, what it has written, and its filter."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        handler = logging.StreamHandler(self._text)
        self.lines = RepeatedLines(handler)
        handler.addFilter(self.lines)
        self.logger = logging.getLogger("tests.repeated_lines")
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)
        self.logger.handlers[:] = [handler]

    def new(self) -> list[str]:
        """The lines since the last call."""
        found = self._text.getvalue().splitlines()
        self._text.seek(0)
        self._text.truncate()
        return found


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log()
    yield made
    made.logger.handlers.clear()
    made.logger.propagate = True


def _fail(log: Log, pause_s: float) -> None:
    log.logger.warning("%s; next attempt in %.1f s", "Kafka does not answer", pause_s)


def test_another_exception_behind_the_same_words_is_written(log: Log) -> None:
    for error in (ValueError("first"), ValueError("second"), KeyError("third")):
        try:
            raise error
        except (ValueError, KeyError):
            log.logger.exception("the state could not be collected")
    written = "\n".join(log.new())
    assert "ValueError: first" in written
    assert "ValueError: second" not in written
    assert "KeyError: 'third'" in written


def test_a_wrong_call_of_the_log_raises_nothing_in_the_program(log: Log) -> None:
    wrong = logging.LogRecord("tests", logging.WARNING, __file__, 1, "%d frames", ("many",), None)
    assert log.lines.filter(wrong), "the handler reports what is wrong with the call"


def test_an_outage_is_one_line_and_then_the_number_of_attempts(log: Log) -> None:
    for pause_s in (0.5, 1.0, 2.0, 10.0, 10.0):
        _fail(log, pause_s)
    assert log.new() == ["Kafka does not answer; next attempt in 0.5 s"]
    log.lines.tell()
    assert log.new() == ["Kafka does not answer; next attempt later (4 times more)"]
    _fail(log, 10.0)
    log.lines.tell()
    assert log.new() == ["Kafka does not answer; next attempt later (1 times more)"]


def test_a_line_that_stopped_is_forgotten_and_written_when_it_comes_again(log: Log) -> None:
    _fail(log, 0.5)
    log.lines.tell()
    _fail(log, 0.5)
    assert log.new() == ["Kafka does not answer; next attempt in 0.5 s"] * 2


def test_other_lines_levels_and_requests_are_written(log: Log) -> None:
    log.logger.warning("gap of %d trades", 3)
    log.logger.warning("gap of %d trades", 4)
    log.logger.info("gap of %d trades", 4)
    for _ in range(2):
        log.logger.info("request", extra={"fields": {"path": "/v1/forecast"}})
    assert log.new() == ["gap of 3 trades", "gap of 4 trades", "gap of 4 trades", "request", "request"]


def test_only_so_many_lines_are_known(log: Log) -> None:
    for number in range(MAX_LINES + 1):
        log.logger.info("line %d", number)
    log.new()
    log.logger.info("line 0")
    log.logger.info("line %d", MAX_LINES)
    assert log.new() == ["line 0"]


NO_ANSWER = r"no answer(?: \((\d+) times more\))?"


def test_a_process_writes_the_number_by_itself() -> None:
    """A number may be written between any two warnings, so each of them is a line or is in one of the numbers."""
    program = f"""
import io, logging, re, time
from btc_core.repeated_lines import write_once
written, warned = io.StringIO(), 0
logging.basicConfig(format="%(message)s", stream=written)
write_once(0.2)
while warned < 3 or "more" not in written.getvalue():
    logging.getLogger("worker").warning("no answer")
    warned += 1
    time.sleep(0.01)
while sum(int(number or 1) for number in re.findall({NO_ANSWER!r}, written.getvalue())) < warned:
    time.sleep(0.01)
print(warned)
print(written.getvalue(), end="")
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
    warned, first, *others = done.stdout.splitlines()
    assert first == "no answer"
    numbers = [re.fullmatch(NO_ANSWER, line)[1] for line in (first, *others)]
    assert any(numbers), "lines that came again are not written"
    assert sum(int(number or 1) for number in numbers) == int(warned)
