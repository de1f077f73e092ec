"""What the stack knows about one process: how it is started, what it waits for, and when it is healthy.

What does not belong here: any particular server. Those are in `stack/servers`, one module each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from btc_core.errors import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from btc_core.settings import Settings
    from stack.layout import Layout
    from stack.ports import InternalPorts

Check = Callable[[], None]
"""Returns when the server answers as it should; raises anything when it does not (yet)."""


@dataclass(frozen=True)
class Context:
    """What a component is built from."""

    layout: Layout
    settings: Settings
    ports: InternalPorts
    exchange_args: tuple[str, ...] = ()
    """More arguments of the simulator."""
    features_workers: int = 1

    def dir(self, name: str) -> Path:
        """The directory of a server's own files."""
        return self.layout.data_dir / name


def nothing() -> None:
    """The hook of a component that needs none."""


@dataclass(frozen=True)
class Component:
    """One supervised process."""

    name: str
    title: str
    """What it is, for people: a name and what it does here."""
    command: tuple[str, ...]
    check: Check | None = None
    """None means: running for `steady_s` is all that can be asked."""
    env: Mapping[str, str] = field(default_factory=dict)
    after: tuple[str, ...] = ()
    """Names of components that must be healthy first."""
    ports: tuple[int, ...] = ()
    """TCP ports it binds on loopback."""
    url: str = ""
    before: Callable[[], None] = nothing
    """Runs before each start: installs, writes configuration, initializes files."""
    prepared: Callable[[], None] = nothing
    """Runs once it is healthy and before anything that waits for it: databases, buckets, topics, tables."""
    user: str | None = None
    """System user to run as, when we are root and the server refuses to be."""
    stop_signal: str = "TERM"
    stop_wait_s: int = 10
    """Then it is killed."""
    start_timeout_s: float = 60.0
    """A healthy machine needs a tenth of this; beyond it something is wrong and the log says what."""
    steady_s: float = 2.0


def in_order(components: Mapping[str, Component], names: tuple[str, ...] | None = None) -> list[Component]:
    """`names` (all when None) with everything they wait for, each after what it waits for.

    Raises `StackError` on a name that does not exist.
    """
    done: dict[str, Component] = {}

    def add(name: str) -> None:
        if name not in components:
            msg = f"there is no component {name}; there are {', '.join(components)}"
            raise StackError(msg)
        if name not in done:
            for before in components[name].after:
                add(before)
            done[name] = components[name]

    for name in components if names is None else names:
        add(name)
    return list(done.values())
