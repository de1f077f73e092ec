"""The running process compared with its OpenAPI document: schemathesis sends what the document allows and what it forbids.

Redis, QuestDB and the process are real and have rows, so no answer should be a 5xx.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pandas as pd
import pytest

from btc_core.clock import NS_PER_MIN, NS_PER_S, now_ns
from btc_core.names import LATE_FORECAST_S
from btc_core.stores.questdb import QuestDB
from btc_core.tables.catalogue import PREDICTION_OUTCOMES
from tests.serving_process import (
    TOKEN,
    Api,
    running,
    slow_dagster,
    tables_and_objects,
    write_champions,
    write_features,
    write_forecast,
    write_past_forecasts,
)
from tests.serving_world import GOOD_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from btc_core.settings import Settings

ROWS = 200
CONFIG = """
[[operations]]
include-method = "POST"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/data/{table}"
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path = "/v1/proofs"
checks.positive_data_acceptance.enabled = false
"""
"""No schema can describe which numbers give a finite forecast; the answer to others is a 422 `no_finite_forecast`. Nor can
one describe that `from` is before `to`, and which columns a table has."""


@pytest.fixture(scope="module")
def settings(servers: Callable[..., Settings]) -> Settings:
    return servers("valkey", "questdb", "store")


@pytest.fixture(scope="module")
def api(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder: Path = tmp_path_factory.mktemp("api")
    write_champions(settings, folder / "models")
    newest = write_forecast(settings)
    write_features(settings)
    first_ns = now_ns() - ROWS * NS_PER_MIN
    rows = [
        type(newest)(**{
            **{name: getattr(newest, name) for name in newest.__struct_fields__},
            "ts_event_ns": first_ns + index * NS_PER_MIN, "offset": index, "bid": 60_000.0 + index,
            "quality": (GOOD_QUALITY, DEGRADED_QUALITY, None)[index % 3],
        })
        for index in range(ROWS)
    ]  # fmt: skip
    late_ns = newest.ts_recv_ns + (LATE_FORECAST_S + 1) * NS_PER_S
    rows += [
        msgspec.structs.replace(
            row, ts_event_ns=row.ts_event_ns - NS_PER_S, offset=ROWS + row.offset, bid=1.0, made_at_ns=late_ns
        )
        for row in rows
    ]
    late_outcomes = outcomes(first_ns).assign(late=True, qlike_model_5m=99.0, bid_inside_90=False)
    write_past_forecasts(settings, rows)
    with QuestDB(settings.questdb) as db:
        db.execute(f"TRUNCATE TABLE {PREDICTION_OUTCOMES.name}")
        db.write(PREDICTION_OUTCOMES.name, outcomes(first_ns))
        db.write(
            PREDICTION_OUTCOMES.name, late_outcomes.assign(ts_event=late_outcomes["ts_event"] - pd.Timedelta(seconds=1))
        )
    # One hour, so that the rows stay fresh until the last test.
    with (
        slow_dagster() as dagster,
        running(
            settings, folder, BTC_API_MAX_FEATURE_AGE_S="3600", BTC_DAGSTER_URL=dagster, **tables_and_objects(settings)
        ) as api,
    ):
        yield api


DEGRADED_QUALITY = msgspec.structs.replace(
    GOOD_QUALITY, word="degraded", reasons=("gaps_open", "quote_old"), open_gaps=2, quote_age_s=12.0
)


def outcomes(first_ns: int) -> pd.DataFrame:
    """One outcome for each minute. The losses of the model are 0.3 and 4 bps², those of the baselines 0.4 and 9, and every
    other interval held the outcome."""
    minutes = np.arange(ROWS)
    values: dict[str, Any] = {}
    for column in PREDICTION_OUTCOMES.columns:
        match column.type:
            case "TIMESTAMP_NS":
                stamps = (first_ns // NS_PER_MIN + minutes) * NS_PER_MIN
                values[column.name] = pd.to_datetime(stamps)
            case "DOUBLE":
                values[column.name] = np.full(ROWS, 0.4)
            case "BOOLEAN":
                values[column.name] = minutes % 2 == 0
            case _:
                values[column.name] = ["BTC/USD" if column.name == "symbol" else "x"] * ROWS
    values |= {
        "late": np.full(ROWS, False),
        "volatility_target": ["ticks"] * ROWS,
        "qlike_model_5m": np.full(ROWS, 0.3),
        "bid_return_5m_bps": np.full(ROWS, 3.0),
        "bid_forecast_5m_bps": np.full(ROWS, 1.0),
        "bid_ar_5m_bps": np.full(ROWS, 0.0),
        "realized_5m_bps": 10.0 + minutes,
        **{f"{quantity}_inside_99": (minutes % 2 == 0).astype(float) for quantity in ("bid", "volatility")},
    }
    frame = pd.DataFrame(values)
    symbols = [column.name for column in PREDICTION_OUTCOMES.columns if column.type == "SYMBOL"]
    return frame.astype(dict.fromkeys(symbols, "category"))


def test_outcomes_are_joined_to_forecasts_and_scored(api: Api) -> None:
    page = api.client.get("/v1/forecasts?limit=100").json()
    assert page["outcomes_reason"] is None
    judged = [row["outcome"] for row in page["forecasts"] if row["outcome"]]
    assert len(judged) > 50
    assert [one["realized_sigma_path_bps"][4] for one in judged] == sorted(
        one["realized_sigma_path_bps"][4] for one in judged
    )
    assert judged[0]["bid_return_path_bps"] == [0.4, 0.4, 0.4, 0.4, 3.0]
    assert (judged[0]["qlike_5m"], judged[0]["harx_qlike_5m"]) == (0.3, 0.4)
    made_at = {row["forecast_made_at"] for row in judged}
    assert made_at == {row["ts_event"] for row in judged}, (
        "the outcome names the forecast that it scores, not the record"
    )
    assert judged[0]["forecast_bid_path_usd"] == pytest.approx([0.4 * math.exp(0.4e-4)] * 4 + [0.4 * math.exp(1e-4)])
    assert judged[0]["forecast_volatility_model"] == {"kind": "x", "version": "x"}
    assert {(one["count"], one["bid_outside_90"]) for one in judged} == {(1, 0), (1, 1)}
    coarse = api.client.get("/v1/forecasts?limit=5&step_s=600").json()["forecasts"]
    assert {one["outcome"]["bid_outside_90"] for one in coarse[1:-1]} == {5}
    skill = api.client.get("/v1/skill?hours=1").json()
    assert {(row["quantity"], row["baseline"]): row["ratio"] for row in skill["rows"]} == {
        **{("volatility", name): pytest.approx(0.75) for name in ("harx", "har", "ewma", "naive")},
        ("bid", "random_walk"): pytest.approx(4 / 9),
        ("bid", "ar"): pytest.approx(4 / 9),
    }
    assert skill["rows"][0]["gain_pct"] == pytest.approx(25.0)
    assert [row["gain_error_pct"] for row in skill["rows"]] == [pytest.approx(0.0, abs=1e-6)] * 6
    assert skill["over_time"][0]["points"][-1]["gain_pct"] == pytest.approx(25.0)
    assert all(45 < row["covered_pct"] < 55 for row in skill["coverage"])
    assert all(50 < row["forecasts"] <= 60 for row in skill["coverage"]), (
        "one for each minute, less the time until the process was ready"
    )
    assert api.client.get("/v1/skill?hours=24").json()["rows"][0]["forecasts"] == ROWS


def test_past_forecasts_have_the_quality_of_their_time_and_older_ones_have_none(api: Api) -> None:
    page = api.client.get("/v1/forecasts?limit=100").json()["forecasts"]
    judged = {(row["quality"], tuple(row["quality_reasons"])) for row in page}
    assert judged == {("degraded", ("gaps_open", "quote_old")), ("good", ()), (None, ())}


def test_past_forecasts_have_their_intervals_if_asked(api: Api) -> None:
    assert api.client.get("/v1/forecasts?limit=3").json()["forecasts"][0]["intervals"] == []
    first = api.client.get("/v1/forecasts?limit=3&intervals=true").json()["forecasts"][0]
    assert [(each["level_pct"], len(each["low_path_usd"])) for each in first["intervals"]] == [
        (99, 5),
        (90, 5),
        (80, 5),
        (50, 5),
    ]
    widest, narrowest = first["intervals"][0], first["intervals"][-1]
    assert widest["low_path_usd"][4] < narrowest["low_path_usd"][4] < narrowest["high_path_usd"][4]


def test_the_usual_volatility_needs_minute_bars(api: Api) -> None:
    usual = api.client.get("/v1/volatility/usual").json()
    assert (usual["days"], usual["median_bps"]) == (0, None)
    assert usual["reason"]


def test_pages_have_every_row_once_and_in_order(api: Api) -> None:
    url: str | None = f"/v1/forecasts?limit=37&since={_iso_minutes_ago(ROWS + 5)}"
    bids: list[float] = []
    while url:
        page = api.client.get(url).raise_for_status().json()
        bids += [row["bid_usd"] for row in page["forecasts"]]
        url = f"/v1/forecasts?limit=37&since={page['next']}" if page["next"] else None
    assert bids == [60_000.0 + index for index in range(ROWS)]
    row = api.client.get("/v1/forecasts?limit=100").json()["forecasts"][-1]
    assert row["sigma_path_bps"] == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert row["volatility_model"] == {"kind": "xgboost", "version": "7"}
    assert api.client.get("/v1/bars").json()["bars"] == []


def test_no_request_that_the_document_allows_or_forbids_causes_a_failure(api: Api, tmp_path: Path) -> None:
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "--config-file",
                str(config),
                "run",
                f"http://127.0.0.1:{api.port}/openapi.json",
            ),
            # one worker: in CPython 3.11 two threads that parse Python code at once disturb each other (gh-106905)
            *("--phases", "coverage,fuzzing", "--max-examples", "10", "--seed", "1", "--workers", "1"),
            *("--exclude-path", "/v1/stream"),  # without a number of events it does not end
            *("--exclude-path", "/predict_vol"),  # the same view as /predict_volatility
            *("-H", f"Authorization: Bearer {TOKEN}"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    generated = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert generated is not None, done.stdout[-2_000:]
    assert int(generated[1]) > 1_000
    assert httpx.get(f"http://127.0.0.1:{api.port}/healthz").status_code == 200


def _iso_minutes_ago(minutes: int) -> str:
    return str(np.datetime64(now_ns() - minutes * NS_PER_MIN, "ns").astype("datetime64[us]")) + "Z"
