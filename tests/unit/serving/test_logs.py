"""How the API writes its log: to a pipe, as under the supervisor."""

from __future__ import annotations

import json
import logging
import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from serving.logs import BatchingHandler, JsonLines

if TYPE_CHECKING:
    from collections.abc import Iterator


class Piped:
    """A logger and the end of the pipe where its lines come out."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        self.handler = BatchingHandler(os.fdopen(writer, "w"), JsonLines(), batch_s=1.0)
        self.log = logging.Logger("piped", logging.INFO)  # noqa: LOG001 - known to nobody else
        self.log.addHandler(self.handler)

    def one_read(self) -> list[str]:
        """Messages of all lines that one read gives; waits for the first."""
        return [json.loads(line)["message"] for line in os.read(self.reader, 65_536).splitlines()]

    def has_something(self) -> bool:
        return bool(select.select([self.reader], [], [], 0)[0])


@pytest.fixture
def piped() -> Iterator[Piped]:
    made = Piped()
    yield made
    made.handler.close()
    with suppress(BrokenPipeError):  # of the test that closed the other end
        made.handler.stream.close()


def test_lines_of_requests_come_together_and_in_order(piped: Piped) -> None:
    for number in range(3):
        piped.log.info("%d", number)
    assert piped.one_read() == ["0", "1", "2"]
    piped.log.info("later")
    assert piped.one_read() == ["later"]


def test_a_warning_is_written_at_once_behind_what_waits(piped: Piped) -> None:
    piped.log.info("before")
    piped.log.warning("now")
    assert piped.has_something()
    assert piped.one_read() == ["before", "now"]


def test_lines_are_not_lost_at_the_end_of_the_process(piped: Piped) -> None:
    piped.log.info("last")
    piped.handler.flush()  # what `logging.shutdown` calls
    assert piped.has_something()
    assert piped.one_read() == ["last"]


def test_nobody_reading_the_log_stops_no_answer(piped: Piped) -> None:
    os.close(piped.reader)
    piped.log.warning("to nobody")
    piped.log.warning("still to nobody")
    piped.reader = os.open(os.devnull, os.O_RDONLY)
