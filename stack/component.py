"""What the stack knows about one process: its command, which components it waits for, and how its health is checked.

What does not belong here: any particular server. Those are in `stack/servers`, one module each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from btc_core.errors import StackError
from stack.layout import DURABILITY_MODES

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings
    from stack.layout import Durability, Layout
    from stack.ports import InternalPorts

STOP_WAIT_S = 35
"""For QuestDB and the workers. A worker that stops waits up to 30 s for Kafka to acknowledge what it has published, and QuestDB
finishes the transactions that it applies; on a busy machine that takes longer than the usual 10 s. It is a limit, not a wait."""

Check = Callable[[], None]
"""Returns when the process is healthy; raises any error when it is not healthy yet or any more."""


@dataclass(frozen=True)
class Context:
    """What a component is built from."""

    layout: Layout
    settings: Settings
    ports: InternalPorts
    exchange_args: tuple[str, ...] = ()
    """Additional arguments of the simulator."""
    features_workers: int = 1
    durability: Durability = DURABILITY_MODES[0]
    second_secrets: Mapping[str, str] = field(default_factory=dict)
    """Credentials by variable that a server accepts beside those of the settings, while they are being rotated."""

    def server_dir(self, name: str) -> Path:
        """The directory in which a server keeps its files."""
        return self.layout.data_dir / name


def do_nothing() -> None:
    """The step of a component that needs none."""


@dataclass(frozen=True)
class Component:
    """One supervised process."""

    name: str
    title: str
    """Shown to people: the product and its role in this system."""
    command: tuple[str, ...]
    check: Check | None = None
    """None for a process that answers no requests: it counts as healthy after it has run for `steady_s`."""
    work_check: Check | None = None
    """Raises when a server answers but cannot do all of its work, because it is full or has suspended a table, say."""
    env: Mapping[str, str] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()
    """Names of the components that must be healthy before this one starts."""
    ports: tuple[int, ...] = ()
    """TCP ports it binds on loopback."""
    url: str = ""
    given_by: str = ""
    """The setting with the address of an external server. The stack waits for such a server, and neither starts nor
    stops it. Empty: the stack starts the process."""
    before_start: Callable[[], None] = do_nothing
    """Runs before each start: creates directories, writes configuration, initializes files."""
    when_healthy: Callable[[], None] = do_nothing
    """Runs in each `up` once the process is healthy, before the components that wait for it: creates tables, topics, buckets."""
    take_secrets: Callable[[int], None] | None = None
    """Makes the running server, whose process id it gets, accept the present and the second credentials of the context and no
    others. None: a restart does."""
    after_forecasts: bool = False
    """Whether no forecast needs it, so that `up` starts it after the components that forecasts need."""
    user: str | None = None
    """System user to run as, for a server that refuses to run as root."""
    stop_signal: str = "TERM"
    stop_wait_s: int = 10
    """supervisord kills a process that still runs this long after the stop signal."""
    start_timeout_s: float = 60.0
    """A start is given up when the process has made no progress for this long. On two cores a start takes a tenth of it."""
    steady_s: float = 2.0
    retry_s: int = 3
    """A process that exits sooner after its start counts as a failed start and is retried with growing pauses."""


def in_order(components: Mapping[str, Component], names: tuple[str, ...] | None = None) -> list[Component]:
    """The named components (all when None) and everything they wait for, each after what it waits for.

    Raises `StackError` for an unknown name.
    """
    ordered: dict[str, Component] = {}

    def add(name: str) -> None:
        if name not in components:
            msg = f"there is no component {name}; there are {', '.join(components)}"
            raise StackError(msg)
        if name not in ordered:
            for needed in components[name].waits_for:
                add(needed)
            ordered[name] = components[name]

    for name in components if names is None else names:
        add(name)
    return list(ordered.values())
