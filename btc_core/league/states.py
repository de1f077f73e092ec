"""What the league's process says about its entries, in Redis: whether each forecasts, and otherwise why not.

What does not belong here: forecasts, which are in a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from btc_core.stores import origin
from btc_core.stores.redis_connection import explained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.stores.redis_connection import Client

KEY = "league:entries"
TTL_S = 180
"""The process writes every minute; without it, the states are unknown after this time."""

State = Literal["running", "failing", "waiting"]


class EntryState(msgspec.Struct, frozen=True):
    """One entry of the league."""

    name: str
    version: str
    """The version of its file."""
    state: State
    """`waiting` for its first training, `running`, or `failing`."""
    reason: str = ""
    """Why it fails or waits, or why it runs without its newest model."""
    failures: int = 0
    """Failures in a row."""


def write_states(client: Client, states: Sequence[EntryState]) -> None:
    """Replace the states; raises `ServiceError`."""
    origin.before_write(origin.NEWEST_ROWS, client.settings.url)
    with explained(client):
        client.set(KEY, msgspec.json.encode(states), ex=TTL_S)


def read_states(client: Client) -> list[EntryState] | None:
    """The states, None if the league's process is not running; raises `ServiceError`."""
    with explained(client):
        found: Any = client.get(KEY)
    return None if found is None else msgspec.json.decode(found, type=list[EntryState])
