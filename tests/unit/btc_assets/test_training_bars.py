"""How far back the asset asks the exchanges for bars, and what it does when one does not answer."""

from __future__ import annotations

import warnings

import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN
from btc_core.errors import ExchangeError
from btc_core.exchange_settings import ExchangeSettings
from btc_core.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from btc_assets import training_bars
    from btc_assets.training_bars import FetchResult

pytestmark = [
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:dagster"),
]


def test_the_whole_window_is_fetched_first_and_then_only_what_is_new() -> None:
    now = 1_000 * NS_PER_DAY
    assert training_bars.missing_days((0, 0, 0), 121, now) == 121
    assert training_bars.missing_days((10, now - 5 * NS_PER_DAY, now), 121, now) == 121
    assert training_bars.missing_days((10, now - 130 * NS_PER_DAY, now - NS_PER_MIN), 121, now) == 2
    assert training_bars.missing_days((10, now - 130 * NS_PER_DAY, now - 3 * NS_PER_DAY), 121, now) == 5


def test_bars_of_one_exchange_are_fetched_while_another_one_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetched(_db: object, _chosen: object, symbol: str) -> FetchResult:
        if symbol.endswith("@binance-perp") or symbol in down:
            raise ExchangeError(f"no answer about {symbol}")
        return FetchResult(5, 5, (5, 0, 0), "rest")

    down: set[str] = set()
    monkeypatch.setattr(training_bars, "_fetch_newest", fetched)
    chosen = Settings(exchange=ExchangeSettings(markets="kraken:BTC/USD,kraken:ETH/USD,binance-perp:BTC/USDT"))
    markets, problems = training_bars._fetch_all(None, chosen)  # type: ignore[arg-type]
    assert len(markets) == 2
    assert problems == {"binance-perp": "no answer about BTC/USDT@binance-perp"}
    down.add("BTC/USD")
    with pytest.raises(ExchangeError):
        training_bars._fetch_all(None, chosen)  # type: ignore[arg-type]
    with pytest.raises(ExchangeError, match="BTC/USD"):
        training_bars._fetch_all(None, Settings())  # type: ignore[arg-type]


def test_older_bars_are_made_from_trades_where_no_file_of_the_home_exchange_has_them() -> None:
    exchange = ExchangeSettings(markets="kraken:BTC/USD,coinbase:BTC/USD", history_url="http://127.0.0.1:1")
    chosen = Settings(exchange=exchange)
    assert [symbol for symbol in exchange.symbols if training_bars.lacks_bar_file(chosen, symbol)] == [
        "BTC/USD@coinbase"
    ]
