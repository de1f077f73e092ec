"""`btc mcp` answers the official client of the protocol from a running API, and changes nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from btc_core.clock import NS_PER_MIN
from tests.serving_process import (
    Api,
    free_port,
    running,
    write_champions,
    write_features,
    write_forecast,
    write_past_forecasts,
)
from tests.serving_world import GOOD_QUALITY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mcp_types import CallToolResult

    from btc_core.settings import Settings

pytestmark = pytest.mark.service

SYMBOL = "BTC/USD"
READ_TOKEN = "read-token-of-tests"
DEGRADED = msgspec.structs.replace(GOOD_QUALITY, word="degraded", reasons=("gaps_open",), open_gaps=2)


@pytest.fixture(scope="module")
def api(servers: Callable[..., Settings], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    settings, folder = servers("questdb", "valkey"), tmp_path_factory.mktemp("api")
    write_champions(settings, folder / "models")
    write_features(settings)
    newest = write_forecast(settings, quality=DEGRADED)
    past = [
        msgspec.structs.replace(newest, ts_event_ns=newest.ts_event_ns - back * NS_PER_MIN, offset=back)
        for back in range(5)
    ]
    write_past_forecasts(settings, past)
    tables = {
        "BTC_QUESTDB_HTTP_URL": settings.questdb.http_url,
        "BTC_QUESTDB_USER": settings.questdb.user,
        "BTC_QUESTDB_PASSWORD": settings.questdb.password.get_secret_value(),
    }
    with running(
        settings, folder, BTC_API_MAX_FEATURE_AGE_S="3600", BTC_API_READ_TOKENS=f"assistant={READ_TOKEN}", **tables
    ) as started:
        started.client.headers["Authorization"] = f"Bearer {READ_TOKEN}"
        yield started


def command(port: int) -> list[str]:
    return ["-m", "btc_cli", "mcp", "--url", f"http://127.0.0.1:{port}"]


def ask(port: int, *calls: tuple[str, dict[str, Any]]) -> tuple[dict[str, Any], list[CallToolResult]]:
    """The tools by name, and the results of some calls, in one session over standard input and output."""
    from mcp import Client, StdioServerParameters

    async def session() -> tuple[dict[str, Any], list[CallToolResult]]:
        env = {"PYTHONPATH": str(Path.cwd()), "BTC_MCP_TOKEN": READ_TOKEN}
        started = StdioServerParameters(command=sys.executable, args=command(port), env=env)
        async with Client(started) as client:
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            return tools, [await client.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(asyncio.wait_for(session(), 120.0))


def answer(result: CallToolResult) -> Any:
    assert not result.is_error, result.content
    return result.structured_content


def test_an_assistant_reads_forecasts_skill_models_operations_and_the_runbook(api: Api) -> None:
    tools, results = ask(
        api.port,
        ("current_forecast", {}),
        ("markets", {}),
        ("skill", {"symbol": SYMBOL, "hours": 6}),
        ("past_forecasts", {"symbol": SYMBOL, "limit": 10}),
        ("models", {"symbol": SYMBOL}),
        ("operations", {}),
        ("doctor", {}),
        ("runbook", {"alert": "gapopen"}),
    )
    assert set(tools) == {
        "current_forecast", "markets", "skill", "past_forecasts", "models", "operations", "doctor", "runbook",
    }  # fmt: skip
    assert all(tool.annotations.read_only_hint for tool in tools.values())
    assert all(tool.description.strip().endswith(".") for tool in tools.values())
    forecast, markets, skill, past, models, operations, doctor, section = map(answer, results)
    assert forecast["quality"]["word"] == "degraded"
    assert (
        forecast["quality"]["reasons"][0]["text"]
        == "Trades are missing from the features (open gaps in the trade ids: 2)."
    )
    assert len(forecast["horizons"]) == 5
    assert SYMBOL in [market["symbol"] for market in markets["markets"]]
    assert skill == api.client.get(f"/v1/skill?symbol={SYMBOL}&hours=6").json()
    assert {row["quality"] for row in past["forecasts"]} == {"degraded"}
    assert models["volatility"]["kind"] == "harx"
    assert "alerts" in operations
    problems = {each["subject"]: each["problem"] for each in doctor["findings"]}
    assert problems["questdb"] is problems["valkey"] is None
    assert problems["store"], "no object store runs beside this API"
    assert section["result"].startswith("## GapOpen\n")
    assert "btc logs repair" in section["result"]


def test_what_the_api_refuses_reaches_the_assistant_in_words(api: Api) -> None:
    _, (unknown_market, unknown_alert, bad_hours) = ask(
        api.port,
        ("current_forecast", {"symbol": "DOGE/USD"}),
        ("runbook", {"alert": "NoSuchAlert"}),
        ("skill", {"hours": 0}),
    )
    assert all(result.is_error for result in (unknown_market, unknown_alert, bad_hours))
    assert "DOGE/USD" in unknown_market.content[0].text  # type: ignore[union-attr]
    assert "its sections are StreamSilent" in unknown_alert.content[0].text  # type: ignore[union-attr]
    assert "hours" in bad_hours.content[0].text  # type: ignore[union-attr]


def test_an_api_that_is_away_is_an_error_of_the_tool_and_not_the_end_of_the_server() -> None:
    port = free_port()
    _, (first, second) = ask(port, ("markets", {}), ("runbook", {"alert": "GapOpen"}))
    assert first.is_error
    assert f"127.0.0.1:{port} does not answer" in first.content[0].text  # type: ignore[union-attr]
    assert not second.is_error


def test_without_the_package_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "mcp.py").write_text("raise ImportError(\"No module named 'mcp'\")\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"}
    found = subprocess.run(
        [sys.executable, *command(free_port())],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert found.returncode == 1
    assert 'make add PACKAGES="mcp>=2.3,<3"' in found.stderr
