"""Everything that a stranger needs to verify one forecast: its rows, its proof, its inputs and the frames behind them.

What does not belong here: where the evidence comes from (`forecast_search` for servers, `forecast_file` for a file), and
judging it (`forecast_check`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from btc_core.days.fold_states import WARM_NS, FoldState
from btc_core.days.forecast_hours import HOUR_NS
from btc_core.days.forecast_roots import ClosedPeriod
from btc_core.exchanges.recorded_blocks import Block


class ProvenHour(msgspec.Struct, frozen=True):
    """A closed hour with the proof that its header is its first leaf."""

    hour: ClosedPeriod
    header_siblings: tuple[str, ...]


class Inclusion(msgspec.Struct, frozen=True):
    """Where a forecast is in the tree of its hour."""

    leaf: str
    """Its leaf hash."""
    index: int
    """Its place among the leaves; the header is at 0."""
    siblings: tuple[str, ...]
    """The proof, from the bottom to the top (`merkle.proof_of`)."""


class DayInclusion(msgspec.Struct, frozen=True):
    """A closed day, and where the hour of the forecast is in its tree."""

    day: ClosedPeriod
    index: int
    siblings: tuple[str, ...]
    header_siblings: tuple[str, ...]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What connects a forecast with published roots."""

    hours: tuple[ProvenHour, ...] = ()
    """The closed hours from the one of the oldest frame to that of the forecast, oldest first; without that while it is open."""
    inclusion: Inclusion | None = None
    """None if the hour is open, or if the forecast is not in its root."""
    day: DayInclusion | None = None
    """None while the day is open."""
    late_in: str = ""
    """The hour in whose header the forecast is listed as late; empty if it is in none."""

    def is_closed(self, made_ns: int) -> bool:
        """Whether the hour in which a forecast was made is the last of the hours."""
        return bool(self.hours) and self.hours[-1].hour.begin_ns == made_ns // HOUR_NS * HOUR_NS


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence of one forecast. Tables are Arrow tables of the catalogue."""

    symbol: str
    bid: Any
    """Its row of `gold_bid_price_prediction`."""
    volatility: Any
    """Its row of `gold_volatility_prediction`."""
    horizons_min: tuple[int, ...]
    """The horizons of the forecast."""
    state: Any
    """The row of `gold_forecast_states` that was in force; no row if none is stored."""
    minutes: Any
    """The rows of `gold_forecast_minutes` that it could depend on."""
    bundles: dict[str, dict[str, bytes]]
    """The files of the models by hash."""
    proof: Proof
    leader: str
    """The market that the others follow."""
    simulated: bool
    source: str
    """Where the frames come from, for people."""
    stored_leaf: str = ""
    """The leaf of its rows as they are stored, while its hour is open; empty if its feature row is not stored."""
    start: bytes = b""
    """The state of the features at the end of the first hour of the proof, which the messages continue; empty if they begin
    `WARM_NS` before the row of the forecast."""
    blocks: Callable[[], Iterator[Block]]
    """The messages of its partition behind `start`, or from `WARM_NS` before its row on, in the order of the log."""

    @property
    def named_start(self) -> FoldState | None:
        """How the header of the first hour of the proof describes `start`; None if it names no state of the partition."""
        partition = self.bid["kafka_partition"][0].as_py()
        states = self.proof.hours[0].hour.hour_header.states if self.proof.hours else ()
        return next((each for each in states if each.partition == partition), None)


def hours_around(received_ns: int, made_ns: int) -> tuple[int, int]:
    """The begin of the hour of the oldest frame, and the end of the hour in which the forecast was made."""
    return (received_ns - WARM_NS) // HOUR_NS * HOUR_NS, made_ns // HOUR_NS * HOUR_NS + HOUR_NS
