"""Reads the roots of hours and days, the proof of one forecast, and past forecasts, from QuestDB and the object store.

What does not belong here: the verification itself, which a client does with `btc verify` (`btc_core.days.forecast_check`).
"""

from __future__ import annotations

import threading
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from btc_core.clock import column_ns
from btc_core.days.forecast_hours import places_of
from btc_core.days.forecast_past import past_forecast, version_label
from btc_core.days.forecast_roots import closed_periods
from btc_core.days.forecast_search import forecast_at, proof_of_forecast
from btc_core.days.history import History
from btc_core.days.past_book import book_at
from btc_core.errors import InvalidInput, SchemaError, StoreError
from btc_core.models.scores import finite_or_none
from btc_core.names import VOLATILITY, ModelKey
from btc_core.registry.bundles import load_version
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from serving.answers import iso
from serving.endpoints import bad_parameter
from serving.problem_details import Problem
from serving.proof_answers import (
    BookLevels,
    DayProof,
    ForecastProof,
    HourProof,
    PastMoment,
    PastPath,
    ProofStatus,
    Root,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from btc_core.days.forecast_evidence import Proof
    from btc_core.days.forecast_past import PastForecast as FoundForecast
    from btc_core.days.forecast_roots import ClosedPeriod
    from btc_core.market.messages import ForecastRow
    from btc_core.settings import Settings

TIMEOUT_S = 10.0
"""Longest time for one read of QuestDB."""
MAX_READS = 2
"""Reads at the same time. A proof reads the leaves of 25 hours, which are up to a megabyte each, within half a second."""


class ForecastProofs:
    """Reads proofs. Every method raises `ServiceError` if a server does not answer, and a 503 while others are read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._slots = threading.BoundedSemaphore(MAX_READS)

    def roots(self, symbol: str, from_ns: int, to_ns: int) -> list[Root]:
        """The roots of hours and days that begin in a time."""
        with (
            self._slot(),
            QuestDB(self._settings.questdb, TIMEOUT_S) as db,
            closing(History(db, lambda: ObjectStore(self._settings.store))) as history,
        ):
            return [_root(each) for each in closed_periods(history, symbol, from_ns, to_ns)]

    def proof(self, symbol: str, at_ns: int) -> ForecastProof:
        """The proof of the forecast that was in force at a time; raises a 404 if there was none."""
        with self._reading() as (history, store):
            try:
                forecast = forecast_at(history, symbol, at_ns)
            except InvalidInput as error:
                raise Problem(HTTPStatus.NOT_FOUND, "no_forecast", str(error)) from None
            proof = proof_of_forecast(history, store, symbol, forecast)
        return self._answer(symbol, forecast[0], proof)

    def past(
        self, symbol: str, at_ns: int, without: tuple[str, ...], version: str, *, with_book: bool = False
    ) -> PastMoment:
        """The forecast that was in force at a time; also without some inputs, by a version of the volatility model, and its book.

        Raises a 404 if there was none or its book is not known, a 422 for a name that is no input, and a 404 for an unknown version.
        """
        with self._reading() as (history, store):
            try:
                found = past_forecast(history, store, symbol, at_ns)
            except InvalidInput as error:
                raise Problem(HTTPStatus.NOT_FOUND, "no_forecast", str(error)) from None
            book = self._book(store, symbol, found) if with_book else None
        forecasts = [_path("as it was", found.forecast)]
        if without:
            try:
                whose = "stand-in, " if found.user_model else ""
                forecasts.append(_path(f"{whose}without {', '.join(without)}", found.without(without)))
            except InvalidInput as error:
                raise bad_parameter("without", str(error)) from None
        if version:
            try:
                model = load_version(self._settings, ModelKey(symbol, VOLATILITY), version)
            except (SchemaError, StoreError) as error:
                raise Problem(HTTPStatus.NOT_FOUND, "no_model", str(error), more={"parameter": "model"}) from None
            forecasts.append(_path(version_label(model, version), found.with_model(model)))
        parts = found.explanation
        return PastMoment(
            symbol=symbol,
            made_at=iso(found.forecast.made_at_ns),
            ts_event=iso(found.forecast.ts_event_ns),
            equals_stored=found.equals_stored,
            features={name: finite_or_none(value) for name, value in found.features.items()},
            forecasts=tuple(forecasts),
            log_variance=finite_or_none(parts.log_variance),
            harx=finite_or_none(parts.harx),
            net=finite_or_none(parts.net),
            trees=parts.trees,
            book=book,
            simulated=self._settings.simulated,
            user_model=found.user_model or None,
        )

    def _book(self, store: ObjectStore, symbol: str, found: FoundForecast) -> BookLevels:
        row = found.rows.ids[-1]
        try:
            book = book_at(self._settings, store, symbol, row.partition, row.ts_recv_ns)
        except InvalidInput as error:
            raise Problem(HTTPStatus.NOT_FOUND, "no_book", str(error)) from None
        return BookLevels(iso(book.received_ns), book.bids, book.asks)

    def _answer(self, symbol: str, bid: pa.Table, proof: Proof) -> ForecastProof:
        hour = day = None
        if proof.inclusion is not None:
            own = proof.hours[-1]
            found = proof.inclusion
            hour = HourProof(_root(own.hour), found.leaf, found.index, found.siblings, own.header_siblings)
        if proof.day is not None:
            day = DayProof(_root(proof.day.day), proof.day.index, proof.day.siblings, proof.day.header_siblings)
        unproven: ProofStatus = "late" if proof.late_in else "unproven" if proof.hours else "open"
        return ForecastProof(
            symbol=symbol,
            made_at=iso(int(column_ns(bid["made_at"])[0])),
            ts_event=iso(int(column_ns(bid["ts_event"])[0])),
            place=str(places_of(bid)[0]),
            status="proven" if hour is not None else unproven,
            late_in=proof.late_in or None,
            hour=hour,
            day=day,
            simulated=self._settings.simulated,
        )

    @contextmanager
    def _reading(self) -> Iterator[tuple[History, ObjectStore]]:
        with (
            self._slot(),
            QuestDB(self._settings.questdb, TIMEOUT_S) as db,
            ObjectStore(self._settings.store) as store,
        ):
            yield History(db, lambda: store), store

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(blocking=False):
            raise Problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "too_many_proofs",
                f"{MAX_READS} proofs are being read already; ask again in a second",
                headers={"Retry-After": "1"},
            )
        try:
            yield
        finally:
            self._slots.release()


def _root(period: ClosedPeriod) -> Root:
    return Root(
        period="day" if period.period == "day" else "hour",
        begin=iso(period.begin_ns),
        root=period.root,
        leaves=period.leaves,
        header=period.header,
        closed_at=iso(period.closed_at_ns),
    )


def _path(name: str, forecast: ForecastRow) -> PastPath:
    return PastPath(
        name,
        tuple(finite_or_none(usd) for usd in forecast.bid_path_usd),
        tuple(finite_or_none(bps) for bps in forecast.sigma_path_bps),
        forecast.volatility_model_kind,
        forecast.volatility_model_version,
    )
