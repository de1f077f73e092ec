"""Compression of larger answers and of the files of the pages, for clients that accept gzip.

What does not belong here: the event stream, which is never compressed, and Arrow and Parquet, which have a compression of
their own.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from typing import TYPE_CHECKING

from flask import request

if TYPE_CHECKING:
    from flask import Response

MIN_BYTES = 2_000
"""Shorter answers fit into one or two packets in any case, and compressing them would only take time."""
LEVEL = 5
"""The level of compression, from 1 to 9. Level 9 makes the largest file of the pages 1 % smaller and takes twice the time."""
TYPES = frozenset({"application/json", "text/html", "text/css", "text/javascript", "image/svg+xml"})
FILES_KEPT = 64
"""How many compressed answers with an entity tag are kept. These are the files of the pages, which seldom change."""


def compress(response: Response) -> Response:
    """Compress the body of an answer if this is worth it and the client accepts it."""
    if response.mimetype not in TYPES or response.is_streamed or response.direct_passthrough:
        return response
    body = response.get_data()
    if len(body) < MIN_BYTES or "Content-Encoding" in response.headers:
        return response
    response.vary.add("Accept-Encoding")
    if not request.accept_encodings["gzip"]:
        return response
    tag, _is_weak = response.get_etag()
    response.set_data(_kept(body) if tag else _gzipped(body))
    response.headers["Content-Encoding"] = "gzip"
    if tag:  # a strong tag would say that both forms have the same bytes
        response.set_etag(tag, weak=True)
    return response


def _gzipped(body: bytes) -> bytes:
    return gzip.compress(body, LEVEL, mtime=0)


_kept = lru_cache(FILES_KEPT)(_gzipped)
