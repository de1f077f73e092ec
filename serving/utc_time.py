"""The type of times in answers. It is apart from the answers, because the process of the alerts needs it and nothing else of them."""

from __future__ import annotations

from typing import Annotated

import msgspec

UtcTime = Annotated[
    str, msgspec.Meta(extra_json_schema={"format": "date-time", "examples": ["2026-01-31T12:00:00.000000Z"]})
]
"""A time as the API writes it."""
