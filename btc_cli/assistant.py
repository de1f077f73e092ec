"""`btc mcp`: lets an assistant read the API, by the Model Context Protocol over standard input and output.

Every tool is one GET of the API through the client, or a section of the runbook. It needs no more than a read token,
so nothing can be changed.
What does not belong here: what the API answers (`serving`).
"""

from __future__ import annotations

import re
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from btc_core.errors import BtcError, ConfigError, InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from mcp.server.mcpserver import MCPServer

    from btc_client import Client

RUNBOOK = Path(__file__).resolve().parents[1] / "docs" / "runbook.md"
TIMEOUT_S, RETRIES = 20.0, 2
"""An assistant waits for each answer, so an API that is away is reported within a minute."""
MAX_PAST = 200
"""Most past forecasts in one answer: each has about a kilobyte, and an assistant reads them all."""
INSTRUCTIONS = (
    "Reads a running btc-forecast: forecasts of the bid and of the volatility of crypto markets for the next minutes; "
    "`horizon_min` says how many. "
    "Before you use a forecast, look at `quality.word`: good, degraded or poor, with its reasons. The bid can hardly be "
    "forecast; say so instead of giving advice. `simulated` true means that the market is not real."
)


class Tools:
    """What an assistant may ask. The docstring of a method is what the assistant reads about it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def current_forecast(self, symbol: str | None = None) -> dict[str, Any]:
        """The newest forecast of a market (default: the first one), with intervals, baselines, and its quality with reasons."""
        found: dict[str, Any] = msgspec.to_builtins(self._client.latest(symbol))
        return found

    def markets(self) -> dict[str, Any]:
        """The markets that are followed, each with its state and its models."""
        found: dict[str, Any] = msgspec.to_builtins(self._client.markets())
        return found

    def skill(self, symbol: str | None = None, hours: int = 24) -> dict[str, Any]:
        """Losses of the live forecasts beside those of the baselines over the last hours, and the coverage of the intervals."""
        return self._client.get("/v1/skill", symbol=symbol, hours=hours)

    def past_forecasts(
        self, symbol: str | None = None, since: str | None = None, step_s: int = 60, limit: int = 30
    ) -> dict[str, Any]:
        """Past forecasts with their outcomes, one for each step of `step_s` seconds, at most 200.

        `since` is ISO 8601 with a time zone; without it the newest come. `next` of the answer is `since` of the next page.
        """
        query = {"symbol": symbol, "since": since, "step_s": step_s, "limit": min(limit, MAX_PAST)}
        return self._client.get("/v1/forecasts", **query)

    def models(self, symbol: str | None = None) -> dict[str, Any]:
        """The models that serve a market: what they were trained on, what they use, and their scores out of sample."""
        found: dict[str, Any] = msgspec.to_builtins(self._client.models(symbol))
        return found

    def operations(self) -> dict[str, Any]:
        """The state of the system: health of each part, workers, lags, gaps in the data, sealed days, disk, and alerts."""
        return self._client.get("/v1/operations")

    def doctor(self) -> dict[str, Any]:
        """What is wrong with the servers and with what they store, each with what to do. Answers are up to half a minute old."""
        return self._client.get("/v1/doctor")

    def runbook(self, alert: str) -> str:
        """The section of the runbook about an alert, such as GapOpen: what it means, how to check it, and what to do."""
        sections = runbook_sections(RUNBOOK)
        found = {name.lower(): text for name, text in sections.items()}.get(alert.strip().lower())
        if found is None:
            msg = f"the runbook has no section {alert[:64]!r}; its sections are {', '.join(sections)}"
            raise InvalidInput(msg)
        return found


def runbook_sections(path: Path) -> dict[str, str]:
    """The sections of the runbook by their heading; raises `ConfigError` if the file is not there."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}. The runbook is part of a checkout, and not of an installed package"
        raise ConfigError(msg) from error
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].strip(): f"## {part.strip()}" for part in parts}


def server_of(tools: Tools) -> MCPServer:
    """The server with all tools, each marked as read-only."""
    from mcp.server.mcpserver import MCPServer  # noqa: PLC0415 - optional
    from mcp_types import ToolAnnotations  # noqa: PLC0415 - optional

    server = MCPServer("btc-forecast", instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in (
        tools.current_forecast,
        tools.markets,
        tools.skill,
        tools.past_forecasts,
        tools.models,
        tools.operations,
        tools.doctor,
        tools.runbook,
    ):
        server.add_tool(_reporting(tool), annotations=ToolAnnotations(read_only_hint=True))
    return server


def _reporting(tool: Callable[..., Any]) -> Callable[..., Any]:
    """The tool, whose errors reach the assistant in words."""
    from mcp.server.mcpserver.exceptions import ToolError  # noqa: PLC0415 - optional

    from btc_client import ClientError  # noqa: PLC0415 - optional

    @wraps(tool)
    def report(*args: Any, **options: Any) -> Any:
        try:
            return tool(*args, **options)
        except (ClientError, BtcError) as error:
            raise ToolError(str(error)) from error

    return report


def mcp(
    url: Annotated[str, typer.Option(help="Address of the API that the assistant may read.")] = "http://127.0.0.1:5050",
    token: Annotated[
        str, typer.Option(envvar="BTC_MCP_TOKEN", help="Read token, if the API has read tokens.", show_default=False)
    ] = "",
    ca_file: Annotated[
        str,
        typer.Option(
            envvar="BTC_MCP_CA_FILE",
            help="PEM file of a private authority of the API's certificate.",
            show_default=False,
        ),
    ] = "",
) -> None:
    """Let an assistant read forecasts, skill, models, operations, the doctor and the runbook (Model Context Protocol).

    An assistant starts this command itself, and talks to it over standard input and output.
    """
    try:
        from mcp.server import mcpserver  # noqa: F401, PLC0415 - optional

        from btc_client import Client  # noqa: PLC0415 - optional
    except ImportError as error:
        msg = f'`btc mcp` needs a package that is not installed ({error}); in a clone, run `make add PACKAGES="mcp>=2.3,<3"`'
        raise ConfigError(msg) from error
    with Client(url, token or None, timeout_s=TIMEOUT_S, retries=RETRIES, ca_file=ca_file or None) as client:
        server_of(Tools(client)).run("stdio")
