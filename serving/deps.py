"""What the views need from outside, as protocols, so that a test can pass its own.

What does not belong here: the real implementations (`newest_rows`, `stored_rows`, `training`, `btc_core.registry`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, cast

import msgspec
from flask import current_app

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from btc_core.clock import Clock
    from btc_core.league.standings import EntryRows, Outcomes, Standing
    from btc_core.league.states import EntryState
    from btc_core.market.messages import ForecastRow
    from btc_core.names import ModelKey, VolatilityTarget
    from btc_core.registry.champions import ModelHolder
    from btc_core.settings import Settings
    from btc_core.stores.redis_rows import ColumnsRow, FeatureRow
    from serving.answers import LiveForecast
    from serving.auth import Tokens
    from serving.data_exports import DataExports
    from serving.market_answers import UsualVolatility
    from serving.model_answers import GateDecision, RefusedModel
    from serving.past_answers import MinuteBar, PastForecast
    from serving.proof_answers import ForecastProof, PastMoment, Root
    from serving.stored_rows import LossBlock, Scores

EXTENSION = "btc"
"""The Flask extension that holds the dependencies."""


class NewestRows(Protocol):
    """The newest features, forecast and minute columns of each market."""

    def features(self, symbol: str) -> FeatureRow | None:
        """The newest features, None if there are none or they have expired."""
        ...

    def forecast(self, symbol: str) -> ForecastRow | None:
        """The newest forecast of the forecast worker, None if there is none or it has expired."""
        ...

    def columns(self, symbol: str) -> ColumnsRow | None:
        """The newest minute columns of the forecast worker, None if there are none or they have expired."""
        ...

    def league_states(self) -> list[EntryState] | None:
        """What the entries of the league do, None if the league's process does not run."""
        ...


class StoredRows(Protocol):
    """Past forecasts, their scores, and minute bars. Each method raises `ServiceError` if the tables cannot be read."""

    def forecasts(
        self, symbol: str, from_ns: int, to_ns: int, step_s: int, *, with_intervals: bool
    ) -> list[PastForecast]:
        """The first forecast of each step from `from_ns` until before `to_ns`; steps without one are left out."""
        ...

    def scores(self, symbol: str, from_ns: int, to_ns: int) -> Scores:
        """Mean losses of the forecasts from `from_ns` until before `to_ns` that have an outcome."""
        ...

    def loss_blocks(
        self, symbol: str, from_ns: int, to_ns: int, block_s: int, target: VolatilityTarget
    ) -> list[LossBlock]:
        """The losses of these forecasts, of one target of the volatility, in blocks of `block_s` seconds."""
        ...

    def closes_of_hour(self, symbol: str, from_ns: int, to_ns: int, hour: int) -> list[tuple[int, float]]:
        """Opening time and close of the minute bars of one hour (UTC) of each day."""
        ...

    def league(self, symbol: str, from_ns: int, to_ns: int) -> tuple[Outcomes, dict[str, EntryRows]]:
        """The outcomes of a time, and the forecasts of the league's entries."""
        ...

    def bars(self, symbol: str, from_ns: int, to_ns: int) -> list[MinuteBar]:
        """The minutes from `from_ns` until before `to_ns`."""
        ...

    def first_ns(self, rows: Literal["forecasts", "bars"], symbol: str, from_ns: int) -> int | None:
        """The time of the first forecast or minute from `from_ns` on, None if there is none."""
        ...


class Proofs(Protocol):
    """Merkle roots over forecasts, and proofs. Each method raises `ServiceError` if a server does not answer."""

    def roots(self, symbol: str, from_ns: int, to_ns: int) -> list[Root]:
        """The roots of hours and days that begin from `from_ns` until before `to_ns`."""
        ...

    def proof(self, symbol: str, at_ns: int) -> ForecastProof:
        """The proof of the forecast that was in force at a time; raises a 404 if there was none."""
        ...

    def past(
        self, symbol: str, at_ns: int, without: tuple[str, ...], version: str, *, with_book: bool = False
    ) -> PastMoment:
        """The forecast of a past moment, also without some inputs, by another version of the volatility model, and its book."""
        ...


class TrainingRun(msgspec.Struct, frozen=True):
    """A training run and the page where a person can watch it."""

    run_id: str
    url: str
    is_new: bool = True
    """Whether it was started by this request, and not by an earlier one."""
    status: str | None = None
    """What the run does, in lower case; None if Dagster did not say."""


class Trainer(Protocol):
    """Starts training runs."""

    def launch(self) -> TrainingRun:
        """Start a run without waiting for its end; raises `ServiceError` if the orchestrator refuses or does not answer."""
        ...


def _no_decision(_key: ModelKey, _version: str) -> GateDecision | None:
    """What is known without a registry."""
    return None


def _no_refusal(_key: ModelKey) -> RefusedModel | None:
    """What is known without a registry."""
    return None


@dataclass(frozen=True)
class Deps:
    """Everything outside of the API that a view may use."""

    settings: Settings
    clock: Clock
    newest_rows: NewestRows
    stored_rows: StoredRows
    models: ModelHolder
    trainer: Trainer
    exports: DataExports
    proofs: Proofs
    tokens: Callable[[], Tokens]
    """Returns the tokens that are valid now."""
    server_problems: Callable[[], Mapping[str, str | None]] = dict
    """Returns why each server cannot be used: "" if it can, None if it has not answered yet; it does not wait for a server."""
    storage_problems: Callable[[], tuple[str, ...]] = tuple
    """Returns what is wrong with the tables and the disk; it does not wait for a server."""
    gate_decision: Callable[[ModelKey, str], GateDecision | None] = _no_decision
    """Returns what the gate decided about a version of a model; None if nobody knows."""
    known_gate_decision: Callable[[ModelKey, str], GateDecision | None] = _no_decision
    """Returns the same as far as it is known already; it does not wait for the registry."""
    refused_model: Callable[[ModelKey], RefusedModel | None] = _no_refusal
    """Returns the version of a model that the gate has refused; None if there is none or nobody knows."""
    live_forecasts: dict[str, tuple[ForecastRow, LiveForecast]] = field(default_factory=dict)
    """For each market the newest row of the worker and the body made from it. Two threads may make the same body at once,
    which does no harm."""
    usual_volatility: dict[str, UsualVolatility] = field(default_factory=dict)
    """For each market the usual volatility of the hour that was asked for last."""
    standings: dict[tuple[str, int], tuple[int, list[Standing]]] = field(default_factory=dict)
    """For each market and number of days the standings of the league, and the period in which they were computed."""
    newest_forecast_ns: dict[str, int] = field(default_factory=dict)
    """For each market the receipt of the data behind the newest forecast that `/metrics` has seen."""
    forecast_awaited_ns: dict[str, int] = field(default_factory=dict)
    """For each market the time at which `/metrics` or `/readyz` first looked for a forecast."""
    forecast_seen: set[str] = field(default_factory=set)
    """The markets of which `/readyz` has seen a forecast: they do not start any more."""


def deps() -> Deps:
    """The dependencies of the application that handles the current request."""
    return cast("Deps", current_app.extensions[EXTENSION])
