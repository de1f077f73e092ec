"""Whether a committed offset still belongs to the log, for every way in which a log can change."""

from __future__ import annotations

import pytest

from streaming.log_marks import LogMark, decode_mark, encode_mark, find_break

pytestmark = pytest.mark.unit

VALUES = [b"%d" % number for number in range(1_000)]
MARK = LogMark.behind("log", VALUES[499], 1_000)


def value_at(offset: int) -> bytes | None:
    return VALUES[offset] if offset < len(VALUES) else None


def problem(offset: int, mark: LogMark | None, log: str = "log", low: int = 0, high: int = 1_000) -> str:
    found = find_break(offset, mark, log, (low, high), value_at)
    return found.problem if found is not None else ""


def test_an_offset_in_the_log_that_it_was_committed_in_fits() -> None:
    assert problem(500, MARK) == ""
    assert problem(1_000, LogMark.behind("log", VALUES[999], 0)) == "", "the end of the log"
    assert problem(0, LogMark("log")) == "", "before the first message"
    assert problem(500, MARK, low=500) == "", "the message before it was removed, which loses nothing"
    assert problem(500, None) == "", "an older version committed it, without a mark"


def test_a_log_that_ends_before_the_offset_is_noticed() -> None:
    assert problem(1_200, LogMark.behind("log", b"lost", 0)) == "shorter_log"
    assert problem(1_200, None) == "shorter_log", "an older version committed it, without a mark"


def test_a_log_that_lost_its_end_and_was_written_again_is_noticed() -> None:
    assert problem(500, LogMark.behind("log", b"lost", 0)) == "shorter_log"


def test_another_log_is_noticed_although_it_is_long_enough() -> None:
    assert problem(500, MARK, log="a topic that was created again") == "other_log"


def test_messages_that_were_removed_before_they_were_handled_are_counted() -> None:
    found = find_break(500, MARK, "log", (700, 1_000), value_at)
    assert found is not None
    assert (found.problem, found.expired) == ("expired", 200)


def test_a_mark_is_stored_as_the_text_of_a_committed_offset() -> None:
    assert decode_mark(encode_mark(MARK)) == MARK
    assert len(encode_mark(LogMark("c" * 22 + "/" + "t" * 22, 2**32 - 1, 10**14))) < 4_096, "the limit of the broker"
    assert [decode_mark(text) for text in (None, "", "other text", "{}")] == [None] * 4
