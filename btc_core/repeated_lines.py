"""A line of a log that comes again and again is written once, and its number every five minutes.

A worker that waits for a server says the same at each attempt. What does not belong here: the form of a line.
"""

from __future__ import annotations

import logging
import re
import threading
import traceback
from collections import OrderedDict

PERIOD_S = 300.0
MAX_LINES = 256
"""Lines that are known at the same time; the oldest is forgotten first."""
PAUSE = re.compile(r"\bin [\d.]+ s\b")
"""The pause before the next attempt, which grows, in a line that is otherwise the same."""

_Key = tuple[str, int, str, str]


class RepeatedLines(logging.Filter):
    """Counts the lines of a handler that it wrote already. Lines with fields, such as requests, are all written."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__()
        self._handler = handler
        self._lock = threading.Lock()
        self._repeats: OrderedDict[_Key, int] = OrderedDict()
        """How often each line came again since its number was written."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write a line: a new one, or one that was forgotten meanwhile."""
        if hasattr(record, "fields"):
            return True
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # the handler says what is wrong with the call
            return True
        key = record.name, record.levelno, PAUSE.sub("later", text), _place(record)
        with self._lock:
            if key in self._repeats:
                self._repeats[key] += 1
                return False
            self._repeats[key] = 0
            if len(self._repeats) > MAX_LINES:
                self._repeats.popitem(last=False)
        return True

    def tell(self) -> None:
        """Write the number of each line that came again, and forget those that did not."""
        with self._lock:
            told = [(key, number) for key, number in self._repeats.items() if number]
            self._repeats = OrderedDict((key, 0) for key, _ in told)
        for (name, level, text, _), number in told:
            again = logging.LogRecord(name, level, __file__, 0, "%s (%d times more)", (text, number), None)
            self._handler.acquire()
            try:
                self._handler.emit(again)  # `handle` would ask this filter
            finally:
                self._handler.release()

    def tell_each(self, period_s: float) -> None:
        """Write the numbers again and again, from a thread that ends with the process."""

        def run() -> None:
            pause = threading.Event()
            while not pause.wait(period_s):
                self.tell()

        threading.Thread(target=run, name="repeated-lines", daemon=True).start()


def _place(record: logging.LogRecord) -> str:
    """The kind of the exception in a line, and where it was raised; empty without one."""
    if not record.exc_info or record.exc_info[0] is None:
        return ""
    frames = traceback.extract_tb(record.exc_info[2])
    where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"{record.exc_info[0].__name__} {where}"


def write_once(period_s: float = PERIOD_S) -> None:
    """Write repeated lines of all loggers of this process once, with their number every `period_s`."""
    for handler in logging.getLogger().handlers:
        lines = RepeatedLines(handler)
        handler.addFilter(lines)
        lines.tell_each(period_s)
