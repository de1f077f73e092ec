"""Structured logs of the API: one JSON object a line on standard error.

What does not belong here: what is logged. A record's own fields come in `extra={"fields": {…}}`.
"""

from __future__ import annotations

import logging
import sys

import msgspec

from btc_core.clock import NS_PER_S
from serving.answers import iso


class JsonLines(logging.Formatter):
    """One JSON object a record."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON, its trace in `trace`."""
        line: dict[str, object] = {
            "ts": iso(int(record.created * NS_PER_S)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if isinstance(fields, dict):
            line.update(fields)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure(level: int = logging.INFO) -> None:
    """Send every log record of this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line per request to Dagster, with its address
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line per queued request: under load that is noise
