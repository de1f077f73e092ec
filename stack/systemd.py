"""The systemd unit that starts a stack at boot, keeps it running, and stops it in order.

What does not belong here: talking to systemd, and what the unit runs (`btc_cli/service.py`).
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stack.limits import MAX_MAP_COUNT, MEMORY_MAPS, OPEN_FILES

if TYPE_CHECKING:
    from stack.layout import Layout

Scope = Literal["user", "system"]
"""Whether the unit belongs to the systemd of one account or to that of the machine."""

STOP_WAIT_S = 180
"""`btc down` takes up to a minute on a busy machine."""
RESTART_WAIT_S = 30
SYSTEM_UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True)
class Unit:
    """One unit file."""

    scope: Scope
    name: str
    path: Path
    text: str


def unit_of(layout: Layout, scope: Scope, account: str, directory: Path) -> Unit:
    """The unit of a stack: its processes run as `account` in `directory`, in which `var/current` lies."""
    suffix = re.sub(r"[^A-Za-z0-9_.-]", "-", layout.data_dir.name)
    name = f"btc-forecast-{suffix}.service"
    return Unit(scope, name, _folder(scope) / name, _text(layout, scope, account, directory))


def _folder(scope: Scope) -> Path:
    if scope == "system":
        return SYSTEM_UNITS
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"


def _text(layout: Layout, scope: Scope, account: str, directory: Path) -> str:
    command = [sys.executable, "-m", "btc_cli", "service", "run", "--data-dir", str(layout.data_dir)]
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    python_path = os.environ.get("PYTHONPATH")
    raise_maps = f"/bin/sh -c 'test $$(cat {MAX_MAP_COUNT}) -ge {MEMORY_MAPS} || echo {MEMORY_MAPS} > {MAX_MAP_COUNT}'"
    lines = [
        "# Written by `btc service install`.",
        "[Unit]",
        f"Description=btc-forecast in {_escaped(str(layout.data_dir))}",
        *(["Wants=network-online.target", "After=network-online.target"] if scope == "system" else []),
        "# Starting is retried for ever: a full disk or an exchange that is away may last longer than any limit.",
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        *([f"User={account}"] if scope == "system" else []),
        f"WorkingDirectory={_escaped(str(directory))}",
        f"Environment={_quoted(f'PATH={path}')}",
        *([f"Environment={_quoted(f'PYTHONPATH={python_path}')}"] if python_path else []),
        "# `-`: a machine that does not allow it starts all the same, and `btc doctor` says so. `+`: as root.",
        *([f"ExecStartPre=-+{raise_maps}"] if scope == "system" else []),
        f"ExecStart={' '.join(_quoted(word) for word in command)}",
        "Restart=on-failure",
        f"RestartSec={RESTART_WAIT_S}",
        "# Only `btc service run` gets the stop signal, and stops each process after what depends on it.",
        "KillMode=mixed",
        f"TimeoutStopSec={STOP_WAIT_S}",
        f"LimitNOFILE={OPEN_FILES}",
        "",
        "[Install]",
        f"WantedBy={'multi-user.target' if scope == 'system' else 'default.target'}",
    ]
    if scope == "user":
        lines = [line for line in lines if "as root" not in line]
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    """Text in which systemd replaces nothing."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of a command or an assignment as systemd reads it."""
    text = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{text}"' if re.search(r"[\s\"'\\;]", text) else text
