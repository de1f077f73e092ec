"""Output for people: progress lines, warnings, tables, the state of the components, and what the API serves.

What does not belong here: finding any of it out.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from btc_core.names import QUANTITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.settings import Settings
    from stack.status import Status

console = Console(highlight=False)
STYLES = {"healthy": "green", "degraded": "bold yellow", "starting": "yellow", "restarting": "yellow", "stopped": "dim"}
_NEXT_TRAINING = "Each training, which runs every night, tries trees again."
_FIRST_TRAINING = (
    "A training registers one: it runs every night, and "
    "`btc run dagster job launch -w workspace.yaml -j train_models` starts it now."
)
_lock = Lock()
"""Components report their progress from several threads."""


def say(text: str) -> None:
    """Print one line."""
    with _lock:
        console.print(text, markup=False, soft_wrap=True)


def progress(component: str, what: str) -> None:
    """Print that a component has changed its state."""
    say(f"  {component:<15} {what}")


def warn(text: str) -> None:
    """Print a warning in a box."""
    console.print(Panel(text, style="bold yellow", expand=False))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; long text in the last column is wrapped."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in headings[:-1]:
        shown.add_column(name, no_wrap=True)
    shown.add_column(headings[-1], overflow="fold")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    console.print(shown)


def components(statuses: Sequence[Status], settings: Settings) -> None:
    """Print the components and the reasons why any of them is not healthy."""
    urls = ", ".join(settings.exchange.only(name).ws_url for name in settings.exchange.names)
    title = "SIMULATED market, not a real exchange" if settings.simulated else f"live, {urls}"
    shown = Table(
        title=title,
        title_style="bold yellow" if settings.simulated else "bold green",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,  # so that the table fits into 80 columns
        pad_edge=False,
    )
    for name in ("component", "state"):
        shown.add_column(name, no_wrap=True)
    shown.add_column(
        "address", overflow="fold"
    )  # in a narrow terminal a long address takes two lines, and nothing is cut off
    for name in ("pid", "memory", "up"):
        shown.add_column(name, justify="right", no_wrap=True)
    for status in statuses:
        shown.add_row(
            status.name,
            f"[{STYLES.get(status.state, 'bold red')}]{status.state}[/]",
            status.url,
            "external" if status.given else str(status.pid or ""),
            f"{status.memory_mb} MB" if status.memory_mb else "",
            _duration(status.alive_s) if status.pid else "",
        )
    shown.add_section()
    shown.add_row("all", "", "", "", f"{sum(status.memory_mb for status in statuses)} MB", "")
    console.print(shown)
    if any(status.given for status in statuses):
        say("The settings name external servers; the stack neither starts nor stops them.")
    later = ", ".join(status.name for status in statuses if status.after_forecasts)
    if later:
        say(f"These start after the first forecast, because no forecast needs them: {later}.")
    for status in statuses:
        if status.reason:
            say(f"{status.name} is {status.state}: {status.reason}")


def _models(models: dict[str, dict[str, Any]]) -> str:
    named = [f"{name} by {model.get('kind')} version {model.get('version')}" for name, model in models.items()]
    return ", ".join(named) or "no model"


def missing(answer: dict[str, Any]) -> str:
    """What an answer of `/readyz` waits for while the system starts, and what is wrong."""
    waits_for = ", ".join(str(each) for each in answer.get("waits_for", []))
    found = [f"it waits for {waits_for}"] if waits_for else []
    return "; ".join([*found, *(str(reason) for reason in answer.get("reasons", []))]) or "no reason given"


def readiness(answer: dict[str, Any], settings: Settings, cards: Sequence[dict[str, Any]] = ()) -> None:
    """Print what an answer of the API's `/readyz` means, and why baselines serve; the last line is the address of the live page.

    `cards` are the answers of `/v1/model` for the markets that are served.
    """
    api = settings.api.url
    simulated = " (SIMULATED market)" if settings.simulated else ""
    if answer.get("status") != "ready":
        say(f"No forecast is served yet{simulated}: {missing(answer)}. Follow it with `btc status` and {api}/readyz.")
        say(f"Live page: {api}/live")
        return
    # A model may be loaded between both answers, and then the reasons must be those of the models that are named.
    newer = {card["symbol"]: {str(each): card.get(each) or {} for each in QUANTITIES} for card in cards}
    models = _models(newer[cards[0]["symbol"]] if len(cards) == 1 else answer.get("models", {}))
    markets = answer.get("markets", [])
    if len(markets) > 1:
        say(f"Serving {len(markets)} markets{simulated}; the features are {answer.get('feature_age_s')} s old.")
        for market in markets:
            loaded = newer.get(market["symbol"], market["models"])
            state = _models(loaded) if market["status"] == "ready" else "; ".join(market["reasons"])
            say(f"  {market['symbol']}: {state}")
    else:
        say(f"Serving{simulated}: {models}; the features are {answer.get('feature_age_s')} s old.")
    for sentence in baseline_reasons(cards):
        say(sentence)
    say(f"Try it: curl {api}/predict_bid")
    say(f"Live page: {api}/live")


def baseline_reasons(cards: Sequence[dict[str, Any]]) -> list[str]:
    """For each baseline that serves, why it does, in the words of `/v1/model`, and what would change it."""
    found = []
    for card in cards:
        market = f" of {card['symbol']}" if len(cards) > 1 else ""
        for quantity in QUANTITIES:
            model = card.get(quantity)
            if model and model["is_baseline"]:
                is_registered = str(model["version"]).isdigit()
                found.append(
                    f"A baseline forecasts the {quantity}{market}. {model['serves_because']} "
                    f"{_NEXT_TRAINING if is_registered else _FIRST_TRAINING}"
                )
    return found


def _duration(seconds: int) -> str:
    minutes, rest_s = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, rest_h = divmod(hours, 24)
    if days:
        return f"{days}d{rest_h:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest_s:02}s"
