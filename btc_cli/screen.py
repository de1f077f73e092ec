"""What a person sees: the table of components, progress, and what serves.

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from btc_core.settings import Settings
    from stack.status import Status

console = Console(highlight=False)
STYLES = {"healthy": "green", "starting": "yellow", "restarting": "yellow", "stopped": "dim"}
_lock = Lock()


def say(text: str) -> None:
    """One line."""
    with _lock:
        console.print(text, markup=False, soft_wrap=True)


def progress(component: str, what: str) -> None:
    """A component changed its state."""
    say(f"  {component:<15} {what}")


def loud(text: str) -> None:
    """Something nobody must miss."""
    console.print(Panel(text, style="bold yellow", expand=False))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A plain table; a last column may be long."""
    shown = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in headings[:-1]:
        shown.add_column(name, no_wrap=True)
    shown.add_column(headings[-1], overflow="fold")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    console.print(shown)


def components(found: Sequence[Status], settings: Settings) -> None:
    """The table of components."""
    title = "SIMULATED market, not a real exchange" if settings.simulated else f"live, {settings.exchange.ws_url}"
    shown = Table(
        title=title,
        title_style="bold yellow" if settings.simulated else "bold green",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for name in ("component", "state", "where"):
        shown.add_column(name, no_wrap=True)
    for name in ("pid", "memory", "up"):
        shown.add_column(name, justify="right", no_wrap=True)
    for each in found:
        shown.add_row(
            each.name,
            f"[{STYLES.get(each.state, 'bold red')}]{each.state}[/]",
            each.url,
            str(each.pid or ""),
            f"{each.memory_mb} MB" if each.memory_mb else "",
            _duration(each.alive_s) if each.pid else "",
        )
    shown.add_section()
    shown.add_row("all", "", "", "", f"{sum(each.memory_mb for each in found)} MB", "")
    console.print(shown)
    for each in found:
        if each.reason:
            say(f"{each.name} is {each.state}: {each.reason}")


def readiness(answer: dict[str, Any], settings: Settings) -> None:
    """What `/readyz` said."""
    api = f"http://{settings.api.host}:{settings.api.port}"
    simulated = " (SIMULATED market)" if settings.simulated else ""
    if answer.get("status") != "ready":
        reasons = "; ".join(str(reason) for reason in answer.get("reasons", [])) or "no reason given"
        say(f"No forecast yet{simulated}: {reasons}. `btc status` and {api}/readyz say when it comes.")
        return
    models = ", ".join(
        f"{name} by {model.get('kind')} version {model.get('version')}"
        for name, model in answer.get("models", {}).items()
    )
    say(f"Serving{simulated}: {models or 'no model named'}; features are {answer.get('feature_age_s')} s old.")
    say(f"Try it: curl {api}/predict_bid")


def _duration(seconds: int) -> str:
    minutes, rest_s = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest_s:02}s"
