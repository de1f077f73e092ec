"""The forecasts of a day computed again from its rows: equal to the last bit across a restart of the worker, or named."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_MS, NS_PER_S, column_ns
from btc_core.days.day_forecasts import LEFT_OUT, DayForecasts, StoredForecasts
from btc_core.days.forecast_differences import differences
from btc_core.days.user_model_again import UserModelRun
from btc_core.features.catalogue import FEATURE_NAMES, FEATURE_VERSION, ROW
from btc_core.features.engine import FoldedEvent, Rows
from btc_core.features.live_minutes import LiveMinutes
from btc_core.league import serving
from btc_core.market.events import QUOTE, TRADE
from btc_core.market.messages import FeatureMessage, ForecastRow
from btc_core.models import pretrained
from btc_core.models.bundle import bundle_files, random_walk_model, start_quantiles
from btc_core.models.row_forecasts import MODEL_COLUMNS
from btc_core.models.user_model import no_sigma
from btc_core.names import USER
from btc_core.registry.served_models import digest_of, zipped
from btc_core.settings import LeagueSettings
from btc_core.stores.minute_bars import newest_recorded
from btc_core.tables import rows as table_rows
from btc_core.tables.arrow import arrow_schema
from btc_core.tables.catalogue import BID_PREDICTION, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_STATES
from streaming.forecaster import Forecaster, no_user_sigma, state_row
from streaming.outcomes import OutcomeTracker
from streaming.published_forecasts import place_of
from tests.unit.btc_core.features.test_minute_columns import market
from tests.user_models import served
from tests.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from btc_core.models.bundle import VolatilityModel
    from btc_core.models.row_forecasts import Models
    from btc_core.tables.form import Table

pytestmark = pytest.mark.unit

SYMBOL = "BTC/USD"
HOUR_NS = 1_760_000_400 * NS_PER_S
BARS = market(2 * 1440, HOUR_NS - 2 * NS_PER_DAY)
MODELS = random_walk_model(), pretrained.model_of_bars(pretrained.shipped(), BARS)
FILES = {digest_of(files): files for files in map(bundle_files, MODELS)}
MINUTES, EVERY_MS = 14, 1_700


class Clock:
    """Goes on by a microsecond each time it is read: the parts of a batch are made one after the other."""

    at_ns = HOUR_NS

    def now_ns(self) -> int:
        self.at_ns += 1_000
        return self.at_ns

    def monotonic_s(self) -> float:
        return self.at_ns / NS_PER_S


class Stream:
    """A forecast worker without servers, and what it stores."""

    def __init__(self, models: Models = MODELS, user_sigma: Callable[..., Any] = no_user_sigma) -> None:
        self.models, self.user_sigma = models, user_sigma
        self.clock = Clock()
        self.minutes: list[pa.Table] = []
        self.states: list[dict[str, Any]] = []
        self.made: dict[tuple[str, int, int, int], ForecastRow] = {}
        self.start(BARS)

    def start(self, bars: np.ndarray) -> None:
        """A new process, which reads these bars and stores those that differ from what was recorded."""
        known = {tuple(bar)[:6] for bar in (self._recorded().tolist() if self.minutes else [])}
        changed = bars[[tuple(bar)[:6] not in known for bar in bars.tolist()]]

        def new_minutes(_symbol: str, clock_ns: int) -> LiveMinutes:
            self.minutes.append(table_rows.forecast_minutes(SYMBOL, changed, self.clock.at_ns, "stored"))
            return LiveMinutes(bars[bars["ts_ns"] < clock_ns // NS_PER_MIN * NS_PER_MIN], clock_ns)

        start = [start_quantiles(model) for model in self.models]
        self.worker = Forecaster(
            lambda _symbol: self.models,
            lambda _symbol: OutcomeTracker(*start),
            new_minutes,
            lambda row: self.made.get(place_of(row)),
            self.clock,
            self.user_sigma,
        )

    def _recorded(self) -> np.ndarray:
        return newest_recorded(pa.concat_tables(self.minutes))

    def handle(self, rows: Sequence[FeatureMessage]) -> None:
        self.clock.at_ns = rows[-1].ts_recv_ns + NS_PER_MS
        self.made |= {place_of(each): each for each in self.worker.handle(rows).unpublished}
        self._note()

    def restart(self, seen: Sequence[FeatureMessage], bars: np.ndarray) -> None:
        """Start again with other bars, and read the last rows again."""
        self.clock.at_ns += NS_PER_S
        self.start(bars)
        self.worker.warm(seen)
        self._note()

    def _note(self) -> None:
        for each in self.worker.take_inputs():
            if each.closed is not None:
                self.minutes.append(table_rows.forecast_minutes(SYMBOL, each.closed, each.taken_at_ns, "stream"))
            if each.models is not None:
                self.states.append(state_row(each, tuple(digest_of(bundle_files(model)) for model in self.models)))

    def tables(self) -> dict[str, pa.Table]:
        made = list(self.made.values())
        return {
            FORECAST_MINUTES.name: pa.concat_tables(self.minutes),
            FORECAST_STATES.name: table_rows.from_records(FORECAST_STATES, self.states),
            BID_PREDICTION.name: table_rows.gold_bid_price_prediction(made),
            VOLATILITY_PREDICTION.name: table_rows.gold_volatility_prediction(made),
        }


class TableHistory:
    """Rows in memory in the place of QuestDB; also the object store with the bundles."""

    def __init__(self, tables: dict[str, pa.Table], *, has_models: bool = True) -> None:
        self.tables = tables
        self.db = self
        self.has_models = has_models

    def execute(self, _sql: str) -> list[list[Any]]:
        times = column_ns(self.tables[BID_PREDICTION.name]["ts_event"])
        return [[int(times.min()), int(times.max())]]

    def chunks(
        self, table: Table, _symbol: str, begin_ns: int, end_ns: int, names: Sequence[str] = ()
    ) -> Iterator[pa.Table]:
        rows = self.tables[table.name].cast(arrow_schema(table))
        times = column_ns(rows[table.timestamp])
        rows = rows.filter(pa.array((times >= begin_ns) & (times < end_ns)))
        yield rows.select(list(names)) if names else rows

    def get(self, key: str) -> bytes | None:
        return zipped(FILES[key.rpartition("/")[2].removesuffix(".zip")]) if self.has_models else None

    def uri(self, key: str) -> str:
        return f"s3://lake/{key}"


def messages() -> list[FeatureMessage]:
    rng = np.random.default_rng(3)
    made, bid = [], 60_000.0
    for offset in range(MINUTES * 60_000 // EVERY_MS):
        bid *= math.exp(rng.normal(0.0, 2e-4))
        values = np.full(len(FEATURE_NAMES), -14.0 + math.sin(offset))
        for name, value in (("bid", bid), ("mid", bid + 0.05), ("price", bid), ("log_volume_1m", 1.0)):
            values[FEATURE_NAMES.index(name)] = value
        at_ns = HOUR_NS + 60 * NS_PER_S + offset * EVERY_MS * NS_PER_MS
        kind = TRADE if offset % 3 else QUOTE
        made.append(FeatureMessage(SYMBOL, at_ns, at_ns, 0, offset, 0, kind, FEATURE_VERSION, values.tobytes()))
    return made


def replayed(sent: Sequence[FeatureMessage]) -> Iterator[Rows]:
    for first in range(0, len(sent), 37):
        part = sent[first : first + 37]
        values = np.frombuffer(b"".join(row.values for row in part), ROW)
        yield Rows(SYMBOL, [FoldedEvent.of(row) for row in part], values)


def computed(
    tables: dict[str, pa.Table],
    sent: Sequence[FeatureMessage],
    *,
    has_models: bool = True,
    run: UserModelRun | None = None,
) -> DayForecasts:
    history: Any = TableHistory(tables, has_models=has_models)
    stored = StoredForecasts(history, SYMBOL, [HOUR_NS])
    assert stored.wanted == len(tables[BID_PREDICTION.name])
    again = DayForecasts(history, history, SYMBOL, [HOUR_NS], run)
    for batch in replayed(sent):
        again.take(batch, list(stored.take(batch.ids)))
    assert stored.compared == stored.wanted
    return again


@pytest.fixture(scope="module")
def day() -> tuple[dict[str, pa.Table], list[FeatureMessage]]:
    """A stream whose worker was restarted with bars that had been corrected."""
    sent, stream = messages(), Stream()
    half = len(sent) // 2
    for first in range(0, half, 5):
        stream.handle(sent[first : min(first + 5, half)])
    corrected = newest_recorded(pa.concat_tables(stream.minutes))
    corrected = corrected[~np.isnan(corrected["close"])].copy()
    corrected["close"][-40:-30] *= 1.001
    stream.restart(sent[half - 150 : half], corrected)
    for first in range(half, len(sent), 7):
        stream.handle(sent[first : first + 7])
    return stream.tables(), sent


def test_every_forecast_is_equal_to_the_last_bit_across_a_restart_with_corrected_bars(
    day: tuple[dict[str, pa.Table], list[FeatureMessage]],
) -> None:
    tables, sent = day
    assert len(tables[FORECAST_STATES.name]) > 2, "outcomes and the restart changed the state"
    assert set(tables[VOLATILITY_PREDICTION.name]["model_kind"].to_pylist()) == {"xgboost"}
    step = computed(tables, sent).step()
    assert step.fits, step.text
    assert step.text == (
        f"{len(sent)} forecasts, computed again from these rows by the models that made them, are equal to the last bit."
    )


def test_the_minutes_that_were_read_again_matter(day: tuple[dict[str, pa.Table], list[FeatureMessage]]) -> None:
    tables, sent = day
    minutes = tables[FORECAST_MINUTES.name]
    taken_ns = column_ns(minutes["taken_at"])
    first_only = minutes.filter(
        pa.array((minutes["source"].to_numpy(zero_copy_only=False) != "stored") | (taken_ns == taken_ns.min()))
    )
    step = computed(tables | {FORECAST_MINUTES.name: first_only}, sent).step()
    assert not step.fits
    assert "the worker was killed" in step.text


def test_what_differs_and_what_cannot_be_computed_is_said(
    day: tuple[dict[str, pa.Table], list[FeatureMessage]],
) -> None:
    tables, sent = day

    def with_column(name: str, column: str, values: list[Any]) -> dict[str, pa.Table]:
        table = tables[name]
        place = table.schema.get_field_index(column)
        return tables | {
            name: table.set_column(place, table.schema.field(place), pa.array(values, table.schema.field(place).type))
        }

    sigmas = tables[VOLATILITY_PREDICTION.name]["sigma_3m_bps"].to_pylist()
    forged = with_column(VOLATILITY_PREDICTION.name, "sigma_3m_bps", [sigmas[0] * 1.25, *sigmas[1:]])
    step = computed(forged, sent).step()
    assert not step.fits
    assert step.text.startswith(
        f"1 of {len(sent)} forecasts that were computed again differ from the stored ones, sigma_3m_bps by up to 0.2 of itself (0:0:0)."
    )
    nearly = with_column(VOLATILITY_PREDICTION.name, "sigma_3m_bps", [float(np.nextafter(sigmas[0], 1e9)), *sigmas[1:]])
    step = computed(nearly, sent).step()
    assert step.fits
    assert "as on another processor (sigma_3m_bps)" in step.text
    versions = ["other", *[FEATURE_VERSION] * (len(sent) - 1)]
    step = computed(with_column(BID_PREDICTION.name, "feature_version", versions), sent).step()
    assert step.fits
    assert step.text.endswith(" 1 were made from another feature set; this program cannot compute them.")
    step = computed(tables, sent, has_models=False).step()
    assert not step.fits
    assert f"{len(sent)} because a model cannot be used: s3://lake/served_models/" in step.text
    states = tables | {FORECAST_STATES.name: tables[FORECAST_STATES.name].slice(0, 0)}
    assert f"{len(sent)} because the models and the state in force are not stored" in computed(states, sent).step().text


def test_nulls_equal_nans_and_texts_differ_by_infinity() -> None:
    one = pa.table({"x": pa.array([None, 1.0, 2.0, None]), "kind": ["a", "b", "c", None]})
    other = pa.table({"x": pa.array([math.nan, 1.0, math.nan, None]), "kind": ["a", "x", "c", None]})
    found = differences(one, other, LEFT_OUT)
    assert found.rows.tolist() == [False, True, True, False]
    assert (found.largest, found.column) == (math.inf, "x")


OF_USER = MODELS[0], served(MODELS[1])
FILES |= {digest_of(bundle_files(OF_USER[1])): bundle_files(OF_USER[1])}


@pytest.fixture(scope="module")
def users_day() -> tuple[dict[str, pa.Table], list[FeatureMessage]]:
    """A stream in which a user's model serves, and its stand-in forecasts every third batch."""
    sent, batches = messages(), 0
    with serving.started(OF_USER[1], LeagueSettings()) as process:

        def sigma_bps(asked: Sequence[FeatureMessage], model: VolatilityModel, values: Any, columns: Any) -> Any:
            nonlocal batches
            batches += 1
            if batches % 3 == 0:
                return no_sigma(len(asked))
            event_ns = np.array([row.ts_event_ns for row in asked])
            rows = serving.rows_of(model, values[:, MODEL_COLUMNS], columns, event_ns)
            return process.predict_alone(serving.SYMBOL, rows, PATIENCE_S, PATIENCE_S)

        stream = Stream(OF_USER, sigma_bps)
        for first in range(0, len(sent), 5):
            stream.handle(sent[first : first + 5])
    return stream.tables(), sent


def test_a_day_of_a_user_s_model_is_verified_without_its_code_and_says_so(
    users_day: tuple[dict[str, pa.Table], list[FeatureMessage]], monkeypatch: pytest.MonkeyPatch
) -> None:
    tables, sent = users_day
    kinds = tables[VOLATILITY_PREDICTION.name]["model_kind"].to_pylist()
    assert set(kinds) == {USER, "xgboost"}
    monkeypatch.setattr(serving, "started", None)
    step = computed(tables, sent).step()
    assert step.fits, step.text
    assert step.text == (
        f"{len(sent)} forecasts, computed again from these rows by the models that made them, are equal to the last bit. The σ of "
        f"{kinds.count(USER)} comes from a user's model, whose code was not run: it is taken as it is stored "
        "(--run-user-model runs it)."
    )


def test_the_code_of_a_user_s_model_gives_the_same_bits_again(
    users_day: tuple[dict[str, pa.Table], list[FeatureMessage]],
) -> None:
    tables, sent = users_day
    with UserModelRun(LeagueSettings()) as run:
        step = computed(tables, sent, run=run).step()
    assert step.fits, step.text
    assert "equal to the last bit" in step.text
    assert step.text.endswith("comes from a user's model, which was run again in a process with limits.")


def test_a_changed_sigma_of_a_user_s_model_is_found_where_it_matters(
    users_day: tuple[dict[str, pa.Table], list[FeatureMessage]],
) -> None:
    tables, sent = users_day
    table = tables[VOLATILITY_PREDICTION.name]
    own = table["model_kind"].to_pylist().index(USER)
    place = table.schema.get_field_index("sigma_5m_bps")
    sigmas = table["sigma_5m_bps"].to_pylist()
    sigmas[own] *= 2.0
    forged = tables | {VOLATILITY_PREDICTION.name: table.set_column(place, table.schema.field(place), pa.array(sigmas))}
    step = computed(forged, sent).step()
    assert not step.fits, "the intervals do not belong to this σ"
    with UserModelRun(LeagueSettings()) as run:
        assert not computed(forged, sent, run=run).step().fits


def test_a_row_cannot_claim_a_model_of_the_user_that_its_bundle_does_not_have(
    day: tuple[dict[str, pa.Table], list[FeatureMessage]],
) -> None:
    tables, sent = day
    table = tables[VOLATILITY_PREDICTION.name]
    place = table.schema.get_field_index("model_kind")
    kinds = pa.array([USER] * len(table), table.schema.field(place).type)
    forged = tables | {VOLATILITY_PREDICTION.name: table.set_column(place, table.schema.field(place), kinds)}
    assert not computed(forged, sent).step().fits
