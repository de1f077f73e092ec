"""The forecasts of an hour and their leaves, from the tables and as they were kept when the hour was closed.

`forecast_leaves/DAY/HH-MARKET.bin` on the object store has 40 bytes for each forecast of a closed hour, in the order of the
tree: its leaf hash, and the first eight bytes of SHA-256 of the hashes of its two rows. With it a forecast can be proven
though another row of the hour has been changed, and late and changed rows can be told from the others.
What does not belong here: roots (`forecast_roots`).
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from btc_core import horizons
from btc_core.clock import NS_PER_DAY, NS_PER_S, column_ns, from_ns
from btc_core.days.forecast_inputs import read_states
from btc_core.days.forecast_leaves import UNKNOWN, leaf_of, row_hashes
from btc_core.days.lake import LEAVES_FOLDER
from btc_core.days.merkle import HASH_BYTES, leaf_hash
from btc_core.errors import StoreError
from btc_core.names import market_text
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import BID_PREDICTION, SILVER_FEATURES, VOLATILITY_PREDICTION
from btc_core.tables.sql import of_symbol, within
from btc_core.utc_day import day_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.days.history import History
    from btc_core.stores.s3 import ObjectStore
    from btc_core.tables.form import Table

HOUR_NS = 3_600 * NS_PER_S
LATE_DAYS = 8
"""How long after its row a forecast may be made and belong to a root: the log keeps rows for a week."""
_RECORD_BYTES = 8
_SIGMA = re.compile(r"sigma_(\d+)m_bps")
PLACE = ("kafka_partition", "kafka_offset", "frame_item")
"""The columns with the place of a row in the log."""


class Place(NamedTuple):
    """The place of a row in the log."""

    partition: int
    offset: int
    item: int

    def __str__(self) -> str:
        return f"{self.partition}:{self.offset}:{self.item}"


class KeptLeaf(NamedTuple):
    """A forecast in the tree of its hour."""

    leaf: bytes
    """Its leaf hash."""
    record: bytes
    """The beginning of the hash of its two rows."""


class Forecasts(msgspec.Struct, frozen=True):
    """Stored forecasts: rows of the two prediction tables that belong together."""

    bids: pa.Table
    volatilities: pa.Table
    places: list[Place]
    """The place in the log of the row of each."""

    def take(self, chosen: Sequence[int] | np.ndarray) -> Forecasts:
        """Some of the forecasts, by their indices."""
        at = pa.array(chosen, pa.int64())
        return Forecasts(self.bids.take(at), self.volatilities.take(at), [self.places[place] for place in chosen])


class HourRows(msgspec.Struct, frozen=True):
    """The forecasts of an hour, in the order of the log; the lists have one entry for each."""

    bids: pa.Table
    volatilities: pa.Table
    places: list[str]
    """Partition, offset and item of the row, joined by colons."""
    feature_rows: list[bytes]
    """The hashes of the feature rows; `UNKNOWN` if a row is not stored."""
    bundles: list[tuple[bytes, ...]]
    """The hashes of the bundles of both models; `UNKNOWN` if they are not stored."""


def hour_text(begin_ns: int) -> str:
    """The begin of an hour as text.

    >>> hour_text(0)
    '1970-01-01T00:00:00Z'
    """
    return f"{from_ns(begin_ns):%Y-%m-%dT%H:%M:%SZ}"


def read_hour(history: History, symbol: str, begin_ns: int) -> HourRows:
    """The stored forecasts that were made in an hour, with what their leaves are made of."""
    made = read_forecasts(history, symbol, begin_ns)
    return HourRows(
        made.bids,
        made.volatilities,
        [str(place) for place in made.places],
        _feature_rows(history, symbol, made.bids, made.places),
        bundles_of(history, symbol, made.bids),
    )


def read_forecasts(history: History, symbol: str, begin_ns: int) -> Forecasts:
    """The stored forecasts that were made in an hour. A forecast without one of its two rows is left out."""
    bids = _made_in(history, BID_PREDICTION, symbol, begin_ns)
    volatilities = _made_in(history, VOLATILITY_PREDICTION, symbol, begin_ns)
    keys, others = places_of(bids), places_of(volatilities)
    there = {key: place for place, key in enumerate(others)}
    paired = [place for place, key in enumerate(keys) if key in there]
    bids = bids.take(pa.array(paired, pa.int64()))
    volatilities = volatilities.take(pa.array([there[keys[place]] for place in paired], pa.int64()))
    return Forecasts(bids, volatilities, [keys[place] for place in paired])


def read_places(history: History, symbol: str, begin_ns: int) -> list[Place]:
    """The places of the rows of the bids that were forecast in an hour."""
    return places_of(_made_in(history, BID_PREDICTION, symbol, begin_ns, (*PLACE, "made_at")))


def leaves_of(hour: HourRows) -> list[KeptLeaf]:
    """The leaves of the forecasts of an hour."""
    bid_rows, volatility_rows = (
        row_hashes(BID_PREDICTION, hour.bids),
        row_hashes(VOLATILITY_PREDICTION, hour.volatilities),
    )
    return [
        KeptLeaf(leaf_hash(leaf_of(bid, volatility, row, bundles)), record_of(bid, volatility))
        for bid, volatility, row, bundles in zip(
            bid_rows, volatility_rows, hour.feature_rows, hour.bundles, strict=True
        )
    ]


def record_of(bid_row: bytes, volatility_row: bytes) -> bytes:
    """The beginning of the hash of the two rows of a forecast, from their hashes."""
    return sha256(bid_row + volatility_row).digest()[:_RECORD_BYTES]


def leaves_key(symbol: str, begin_ns: int) -> str:
    """The key of the leaves of an hour."""
    return f"{LEAVES_FOLDER}/{day_of(begin_ns)}/{from_ns(begin_ns):%H}-{market_text(symbol)}.bin"


def keep_leaves(store: ObjectStore, symbol: str, begin_ns: int, leaves: list[KeptLeaf]) -> None:
    """Store the leaves of an hour that is being closed; raises `StoreError`."""
    store.put(leaves_key(symbol, begin_ns), b"".join(each.leaf + each.record for each in leaves))


def kept_leaves(store: ObjectStore, symbol: str, begin_ns: int) -> list[KeptLeaf]:
    """The leaves of a closed hour; raises `StoreError` if they are missing or damaged."""
    records = kept_bytes(store, symbol, begin_ns)
    body, width = records.tobytes(), records.shape[1]
    return [
        KeptLeaf(body[at : at + HASH_BYTES], body[at + HASH_BYTES : at + width]) for at in range(0, len(body), width)
    ]


def kept_bytes(store: ObjectStore, symbol: str, begin_ns: int) -> np.ndarray:
    """The leaves of a closed hour as uint8 (leaves, 40), the hash and then the record; raises `StoreError`."""
    key = leaves_key(symbol, begin_ns)
    body = store.get(key)
    width = HASH_BYTES + _RECORD_BYTES
    if body is None or len(body) % width:
        raise StoreError(f"{store.uri(key)} {'is missing' if body is None else 'is damaged'}")
    return np.frombuffer(body, np.uint8).reshape(-1, width)


def bundles_of(history: History, symbol: str, bids: pa.Table) -> list[tuple[bytes, ...]]:
    """The hashes of the bundles that made forecasts."""
    if not len(bids):
        return []
    events_ns = column_ns(bids["ts_event"])
    states = read_states(history, symbol, int(events_ns.min()), int(events_ns.max()) + 1)
    return [states.bundles(made_ns) or (UNKNOWN, UNKNOWN) for made_ns in column_ns(bids["made_at"]).tolist()]


def _made_in(history: History, table: Table, symbol: str, begin_ns: int, names: Sequence[str] = ()) -> pa.Table:
    """The forecasts that were made in an hour, all columns or `names`. Tables are ordered by the time of the row, so that of the rows is found first."""
    end_ns = begin_ns + HOUR_NS
    found = history.db.execute(
        f"SELECT cast(min(ts_event) AS LONG), cast(max(ts_event) AS LONG) FROM {table.name} WHERE {of_symbol(symbol)} "  # noqa: S608 - names of the catalogue
        f"AND {within('ts_event', begin_ns - LATE_DAYS * NS_PER_DAY, end_ns + HOUR_NS)} "
        f"AND {within('made_at', begin_ns, end_ns)}"
    )
    first_ns, last_ns = found[0] if found and found[0][0] is not None else (begin_ns - HOUR_NS, end_ns)
    chunks = list(history.chunks(table, symbol, int(first_ns), int(last_ns) + 1, names))
    rows = pa.concat_tables(chunks) if chunks else arrow_schema(table).empty_table()
    made_ns = column_ns(rows["made_at"])
    rows = rows.filter(pa.array((made_ns >= begin_ns) & (made_ns < end_ns)))
    return rows.sort_by([(name, "ascending") for name in PLACE])


def _feature_rows(history: History, symbol: str, bids: pa.Table, keys: list[Place]) -> list[bytes]:
    if not keys:
        return []
    events_ns = column_ns(bids["ts_event"])
    wanted = set(keys)
    hashes: dict[Place, bytes] = {}
    for rows in history.chunks(SILVER_FEATURES, symbol, int(events_ns.min()), int(events_ns.max()) + 1):
        found = places_of(rows)
        chosen = [place for place, key in enumerate(found) if key in wanted]
        hashed = row_hashes(SILVER_FEATURES, rows.take(pa.array(chosen, pa.int64())))
        hashes |= zip((found[place] for place in chosen), hashed, strict=True)
    return [hashes.get(key, UNKNOWN) for key in keys]


def horizons_of(volatility: pa.Table) -> tuple[int, ...]:
    """The horizons in minutes of a forecast, whose row of `gold_volatility_prediction` is the only one of a table."""
    named = ((_SIGMA.fullmatch(name), name) for name in volatility.column_names)
    return tuple(sorted(int(found[1]) for found, name in named if found and volatility[name].null_count == 0))


def other_horizons_text(made_for: tuple[int, ...]) -> str:
    """What to do about a forecast with other horizons than this process."""
    its = f"the horizons {horizons.text_of(made_for)} min" if made_for else "other horizons"
    return (
        f"The forecast has {its}, and {horizons.VARIABLE} is {horizons.text_of(horizons.HORIZONS_MIN)}. Run the command with the "
        f"horizons of the forecast in {horizons.VARIABLE}, and with the present ones in {horizons.FORMER_VARIABLE}."
    )


def places_of(rows: pa.Table) -> list[Place]:
    """The place of each row."""
    return [Place(*each) for each in zip(*(rows[name].to_pylist() for name in PLACE), strict=True)]
