"""Fakes of everything outside of the API: the clock, Redis, QuestDB, the registry and Dagster.

`build()` makes a world that is independent of all others. What does not belong here: tests.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from btc_core.api_settings import ApiSettings
from btc_core.clock import NS_PER_S
from btc_core.errors import NotReady, StoreError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION
from btc_core.league.standings import EntryRows, Outcomes
from btc_core.market.messages import ForecastRow, Quality
from btc_core.models.bundle import VolatilityModel, random_walk_model
from btc_core.models.harx import INPUTS, fit_harx
from btc_core.models.manifest import new_manifest
from btc_core.names import VOLATILITY, VOLATILITY_MODEL, ModelKey
from btc_core.registry.champions import ModelHolder
from btc_core.settings import Settings
from btc_core.stores.redis_rows import ColumnsRow, FeatureRow
from serving.app import create_app, new_broadcaster
from serving.auth import RotatingTokens
from serving.data_exports import DataExports
from serving.deps import Deps, TrainingRun
from serving.stored_rows import Scores

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

    from btc_core.league.states import EntryState
    from serving.event_stream import EventBroadcaster
    from serving.past_answers import MinuteBar, PastForecast
    from serving.proof_answers import ForecastProof, PastMoment, Root
    from serving.stored_rows import LossBlock

NOW_NS = 1_800_000_000 * NS_PER_S
TOKEN = "a-token-of-tests"
GOOD_QUALITY = Quality("good", (), 0, False, 0.0, 2.0, None, 30.0, 0.05, 0.001, 0.0, None, 300, 0.9, 0.91, "high")


class FakeClock:
    now = NOW_NS

    def now_ns(self) -> int:
        return self.now

    def monotonic_s(self) -> float:
        return self.now / NS_PER_S


class FakeNewestRows:
    feature_row: FeatureRow | None = None
    forecast_row: ForecastRow | None = None
    columns_row: ColumnsRow | None = None
    states: list[EntryState] | None = None
    error: Exception | None = None
    reads: int = 0

    def features(self, symbol: str) -> FeatureRow | None:
        return self._read(self.feature_row, symbol)

    def forecast(self, symbol: str) -> ForecastRow | None:
        return self._read(self.forecast_row, symbol)

    def columns(self, symbol: str) -> ColumnsRow | None:
        return self._read(self.columns_row, symbol)

    def league_states(self) -> list[EntryState] | None:
        return self.states

    def _read(self, value: Any, _symbol: str) -> Any:
        self.reads += 1
        if self.error is not None:
            raise self.error
        return value


class FakeSource:
    symbols: tuple[str, ...] = ("BTC/USD", "ETH/USD")
    volatility: VolatilityModel | None = None
    bid: Any = None
    error: Exception | None = None
    too_few_bars: tuple[str, ...] = ()

    def _model(self, key: ModelKey) -> Any:
        return self.volatility if key.quantity == VOLATILITY else self.bid

    def champion_version(self, key: ModelKey) -> str | None:
        model = self._model(key)
        return model.version if model is not None else None

    def load(self, key: ModelKey) -> Any:
        if self.error is not None:
            raise self.error
        if key.symbol in self.too_few_bars:
            raise NotReady(f"too few bars for {key.name}")
        model = self._model(key)
        if model is None:
            raise StoreError("MLflow has no champion and the cache is empty")
        return model


class FakeStoredRows:
    scored = Scores(0, {})
    past: list[PastForecast]
    minutes: list[MinuteBar]
    blocks: list[LossBlock]
    closes: list[tuple[int, float]]
    error: Exception | None = None
    asked: list[tuple[Any, ...]]
    asked_for_intervals = False

    def __init__(self) -> None:
        self.past, self.minutes, self.asked = [], [], []
        self.blocks, self.closes = [], []
        self.first: int | None = None
        self.outcomes = Outcomes.none()
        self.entries: dict[str, EntryRows] = {}

    def forecasts(self, *asked: Any, with_intervals: bool) -> list[PastForecast]:
        self.asked.append(asked)
        self.asked_for_intervals = with_intervals
        if self.error is not None:
            raise self.error
        return self.past

    def scores(self, *asked: Any) -> Scores:
        self.asked.append(asked)
        return self.scored

    def loss_blocks(self, *_asked: Any) -> list[LossBlock]:
        return self.blocks

    def league(self, *asked: Any) -> tuple[Outcomes, dict[str, EntryRows]]:
        self.asked.append(asked)
        return self.outcomes, self.entries

    def closes_of_hour(self, *asked: Any) -> list[tuple[int, float]]:
        self.asked.append(asked)
        return self.closes

    def first_ns(self, *asked: Any) -> int | None:
        self.asked.append(asked)
        return self.first

    def bars(self, *asked: Any) -> list[MinuteBar]:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.minutes


class FakeProofs:
    """Roots and proofs that a test sets, and what was asked for."""

    error: Exception | None = None
    found: ForecastProof | None = None
    moment: PastMoment | None = None

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.of_time: list[Root] = []

    def roots(self, *asked: Any) -> list[Root]:
        self.asked.append(asked)
        if self.error is not None:
            raise self.error
        return self.of_time

    def proof(self, *asked: Any) -> ForecastProof:
        self.asked.append(asked)
        if self.error is not None or self.found is None:
            raise self.error or AssertionError
        return self.found

    def past(self, *asked: Any, with_book: bool) -> PastMoment:
        self.asked.append((*asked, with_book))
        if self.error is not None or self.moment is None:
            raise self.error or AssertionError
        return self.moment


class FakeTrainer:
    error: Exception | None = None
    is_running: bool = False

    def launch(self) -> TrainingRun:
        if self.error is not None:
            raise self.error
        was_running, self.is_running = self.is_running, True
        return TrainingRun(
            run_id="run-1", url="http://127.0.0.1:3001/runs/run-1", is_new=not was_running, status="queued"
        )


@dataclasses.dataclass
class World:
    """The fakes outside of an API, the API, and a client of it."""

    clock: FakeClock
    newest: FakeNewestRows
    source: FakeSource
    trainer: FakeTrainer
    stored: FakeStoredRows
    proofs: FakeProofs
    holder: ModelHolder
    deps: Deps
    app: Flask
    broadcaster: EventBroadcaster
    client: FlaskClient

    def load_models(self) -> None:
        self.source.volatility = harx_model()
        self.source.bid = random_walk_model()
        self.holder.reload()


@cache
def harx_model() -> VolatilityModel:
    rng = np.random.default_rng(7)
    inputs = rng.normal(-14.0, 1.0, (300, len(INPUTS)))
    realized = np.exp(rng.normal(-14.0, 0.3, (300, 5))) * np.arange(1, 6)
    return VolatilityModel(new_manifest(VOLATILITY_MODEL, "harx"), fit_harx(inputs, realized, 1.0))


def feature_row(age_s: float = 0.1, **values: float) -> FeatureRow:
    named = dict.fromkeys(FEATURE_NAMES, -14.0) | {"bid": 60_000.0, "ask": 60_001.0} | values
    at_ns = NOW_NS - round(age_s * NS_PER_S)
    return FeatureRow("BTC/USD", at_ns, at_ns, 0, 1, 0, 0, FEATURE_VERSION, [named[name] for name in FEATURE_NAMES])


def forecast_row(age_s: float = 0.1, **changes: Any) -> ForecastRow:
    at_ns = NOW_NS - round(age_s * NS_PER_S)
    row = ForecastRow(
        symbol="BTC/USD",
        ts_event_ns=at_ns,
        ts_recv_ns=at_ns,
        made_at_ns=at_ns + 1_000_000,
        partition=0,
        offset=1,
        item=0,
        bid=60_000.0,
        bid_path_usd=[60_001.0, 60_002.0, 60_003.0, 60_004.0, 60_005.0],
        sigma_path_bps=[2.0, 3.0, 4.0, 5.0, 6.0],
        baseline_sigma_path_bps=[2.5, 3.5, 4.5, 5.5, 6.5],
        bid_model_version="3",
        bid_model_kind="random_walk",
        volatility_model_version="7",
        volatility_model_kind="xgboost",
        feature_version=FEATURE_VERSION,
        quality=GOOD_QUALITY,
    )
    return msgspec.structs.replace(row, **changes)


def build(token: str = TOKEN, exchange: ExchangeSettings | None = None, **api: Any) -> World:
    configured = Settings(
        api=ApiSettings(token=token, **api),
        exchange=exchange or ExchangeSettings(mode="sim", symbols=("BTC/USD", "ETH/USD")),
    )
    clock, newest, stored, source, trainer = (
        FakeClock(),
        FakeNewestRows(),
        FakeStoredRows(),
        FakeSource(),
        FakeTrainer(),
    )
    source.symbols = configured.exchange.symbols
    holder, proofs = ModelHolder(source, reload_s=10.0), FakeProofs()
    deps = Deps(
        settings=configured,
        clock=clock,
        newest_rows=newest,
        stored_rows=stored,
        models=holder,
        trainer=trainer,
        exports=DataExports(configured, clock),
        proofs=proofs,
        tokens=RotatingTokens(configured.api, None),
    )
    app = create_app(deps)
    broadcaster = new_broadcaster(app, deps, lambda _timeout_s: True)
    return World(clock, newest, source, trainer, stored, proofs, holder, deps, app, broadcaster, app.test_client())
