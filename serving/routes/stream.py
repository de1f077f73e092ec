"""`/v1/stream`: server-sent events.

What does not belong here: what an event holds (`feed`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import msgspec
from flask import Blueprint, Response, current_app
from msgspec import UNSET, UnsetType

from serving.deps import deps
from serving.endpoints import Symbol, parsed, promises
from serving.symbols import followed

if TYPE_CHECKING:
    from serving.event_stream import Feed

blueprint = Blueprint("stream", __name__, url_prefix="/v1")

FEED = "btc-feed"


class StreamQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `events` the stream goes on until either side ends it."""

    symbol: Symbol = UNSET
    events: Annotated[int, msgspec.Meta(ge=1, description="End after this many pictures.")] | UnsetType = UNSET


@blueprint.get("/stream")
@promises("forecasts", str, query=StreamQuery, problems=(404, 422, 503), media="text/event-stream")
def stream() -> Response:
    """Events `forecast` (or `problem`), `features` and `health`, each with the body of its endpoint, as they change."""
    query = parsed(StreamQuery)
    symbol = followed(query.symbol)
    feed = cast("Feed", current_app.extensions[FEED])
    close = feed.open(symbol, deps().settings.api.max_streams)
    response = Response(feed.events(symbol, query.events or None), content_type="text/event-stream; charset=utf-8")
    response.headers["X-Accel-Buffering"] = "no"
    response.call_on_close(close)
    return response
