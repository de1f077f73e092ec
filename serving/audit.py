"""The audit log: a line of JSON for every admin action, and for every token that was refused.

It is a file of its own if `BTC_API_AUDIT_LOG` names one; otherwise its lines are in the log of the API. What does not belong here:
deciding what is written (`auth`).
"""

from __future__ import annotations

import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from typing import TYPE_CHECKING

from flask import g, request

from btc_core.errors import ConfigError
from serving.logs import JsonLines

if TYPE_CHECKING:
    from io import TextIOWrapper

    from btc_core.api_settings import ApiSettings

OLD_FILES = 10
"""Rotated files that are kept."""
MODE = 0o600
PATH_CHARACTERS = 200
"""How much of a path is written, since clients choose it."""

_logger = logging.getLogger("serving.audit")


class PrivateFile(RotatingFileHandler):
    """A rotated file that only its owner can read."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, MODE)
        os.fchmod(descriptor, MODE)  # of a file that was there before
        return os.fdopen(descriptor, "a", encoding="utf-8")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in the library
        """Write an entry that the file does not take to the log of the API."""
        cause = sys.exc_info()[1]
        logging.getLogger("serving").error("the audit log cannot be written (%s): %s", cause, self.format(record))


def configure(settings: ApiSettings) -> None:
    """Write the audit log to the file that the settings name; raises `ConfigError` if it cannot be written."""
    if not settings.audit_log:
        return
    try:
        handler = PrivateFile(settings.audit_log, maxBytes=settings.audit_log_max_bytes, backupCount=OLD_FILES)
    except OSError as error:
        msg = f"BTC_API_AUDIT_LOG names {settings.audit_log}, which cannot be written: {error.strerror}"
        raise ConfigError(msg) from error
    handler.setFormatter(JsonLines())
    for former in _logger.handlers[:]:
        _logger.removeHandler(former)
        former.close()
    _logger.addHandler(handler)
    _logger.propagate = False


def write(status: int) -> None:
    """Write the entry of the current request, which was answered with `status`."""
    fields = {
        "token": g.get("token_name"),
        "client": request.remote_addr,
        "method": request.method,
        "path": request.path[:PATH_CHARACTERS],
        "status": status,
        "code": g.get("problem_code"),
        "request_id": g.get("request_id"),
    }
    _logger.info("refused" if status in {401, 403} else "action", extra={"fields": fields})
