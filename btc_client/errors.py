"""The errors of the client.

```
ClientError
├── ApiError        the API answered with an error; `code` is stable and `detail` says what to do
└── NoConnection    the API did not answer, or broke off every answer
```
"""

from __future__ import annotations

from typing import Any

import msgspec


class ClientError(Exception):
    """The root of the tree."""


class NoConnection(ClientError):
    """The API did not answer, or broke off every answer."""


class ApiError(ClientError):
    """The API answered with an error."""

    def __init__(self, status: int, problem: dict[str, Any], retry_after_s: float | None = None) -> None:
        self.status = status
        self.code: str = str(problem.get("code", "unknown"))
        self.detail: str = str(problem.get("detail", ""))
        self.request_id: str = str(problem.get("request_id", ""))
        self.problem = problem
        """The whole problem document (RFC 9457)."""
        self.retry_after_s = retry_after_s
        """How long the API asks to wait; None if it does not say."""
        super().__init__(f"{status} {self.code}: {self.detail} (request {self.request_id})")


def api_error(status: int, body: bytes, retry_after_s: float | None = None) -> ApiError:
    """The error in an answer. A proxy may have written another body than the API does."""
    try:
        problem = msgspec.json.decode(body)
    except msgspec.DecodeError:
        problem = None
    if not isinstance(problem, dict):
        problem = {"detail": body[:500].decode(errors="replace")}
    return ApiError(status, problem, retry_after_s)
