"""The HTTP client of this process for servers that are asked now and then.

What does not belong here: what is asked, and how long an answer may take.
"""

from __future__ import annotations

import functools

import httpx

ONE_ANSWER = httpx.Limits(max_keepalive_connections=0)
"""No connection stays open after an answer."""


@functools.cache
def shared_client() -> httpx.Client:
    """The client; making one reads the certificates of all authorities, which takes 20 ms. It keeps no connection open."""
    return httpx.Client(limits=ONE_ANSWER)
