"""`btc service install|status|remove|run`: the stack as a service of systemd, which starts at boot.

What does not belong here: the text of the unit (`stack.systemd`).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli import screen
from btc_cli.options import DataDir, open_stack
from btc_core.errors import StackError
from btc_core.files import atomic_write
from stack.limits import MAX_MAP_COUNT, MEMORY_MAPS
from stack.systemd import SYSTEM_UNITS, Scope, unit_of

if TYPE_CHECKING:
    from types import FrameType

    from stack.layout import Layout
    from stack.systemd import Unit

RETRY_S = 30.0
"""Time until `btc up` is repeated after a component did not start. What runs is left running."""
POLL_S = 2.0
UNIT_MODE = 0o644
SystemWide = Annotated[
    bool,
    typer.Option("--system", help="Use the systemd of the machine, which needs root, instead of that of this account."),
]


def service(context: typer.Context, data_dir: DataDir = None) -> None:
    """Run the stack as a service of systemd, which starts it at boot and again after a failure."""
    if context.invoked_subcommand is None:
        status(data_dir)


def install(data_dir: DataDir = None, *, system: SystemWide = False) -> None:
    """Write the unit, switch it on, and start it.

    The service keeps a stack that runs already.
    """
    unit = _unit(data_dir, system=system)
    if unit.scope == "system" and os.geteuid() != 0:
        msg = f"{SYSTEM_UNITS} belongs to root: repeat the command with sudo, or leave --system out"
        raise StackError(msg)
    with atomic_write(unit.path, UNIT_MODE) as file:
        file.write(unit.text.encode())
    screen.say(f"{unit.path} is written")
    done = _systemctl(unit, "daemon-reload") or _systemctl(unit, "enable", "--now", unit.name)
    if done:
        words = " ".join(_command(unit))
        screen.say(
            f"systemd did not take it ({done}). Where systemd runs: {words} daemon-reload && {words} enable --now {unit.name}"
        )
    else:
        screen.say(
            f"{unit.name} is switched on and starts; follow it with `btc status` and `journalctl{_user_flag(unit)} -u {unit.name}`"
        )
    for hint in hints(unit):
        screen.say(hint)


def status(data_dir: DataDir = None) -> None:
    """Say whether the service is installed, starts at boot and runs.

    The exit code is 1 if it is not installed or does not run.
    """
    found = [unit for unit in (_unit(data_dir, system=flag) for flag in (False, True)) if unit.path.is_file()]
    if not found:
        screen.say("the stack is no service; `btc service install` makes it one")
        raise typer.Exit(1)
    is_active = False
    for unit in found:
        states = [_ask(unit, question) for question in ("is-enabled", "is-active")]
        is_active = is_active or states[1] == "active"
        changed = "" if unit.path.read_text() == unit.text else "; `btc service install` would change it"
        screen.say(f"{unit.path}: {states[0]}, {states[1]}{changed}")
        for hint in hints(unit):
            screen.say(hint)
    if not is_active:
        raise typer.Exit(1)


def remove(data_dir: DataDir = None, *, system: SystemWide = False) -> None:
    """Stop the service and the stack, and remove the unit. The data stays."""
    unit = _unit(data_dir, system=system)
    if not unit.path.is_file():
        raise StackError(f"there is no {unit.path}; `btc service status` shows what is installed")
    problem = _systemctl(unit, "disable", "--now", unit.name)
    unit.path.unlink()
    _systemctl(unit, "daemon-reload")
    screen.say(f"{unit.path} is removed" + (f"; systemd did not stop it ({problem})" if problem else ""))


def run(
    data_dir: DataDir = None,
    *,
    only: Annotated[str, typer.Option(hidden=True, help="Start only these components and those they depend on.")] = "",
) -> None:
    """Start the stack, stay until it ends, and stop it in order at a stop signal. systemd runs this.

    A start that fails is repeated every half minute. The exit code is 0 after `btc down`, and 1 if the supervisor failed.
    """
    stack = open_stack(data_dir)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while _btc(stack.layout, "up", *(("--only", only) if only else ())) != 0:
            time.sleep(RETRY_S)
        while stack.running:
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise typer.Exit(_btc(stack.layout, "down")) from None
    # supervisord removes the file when it ends in order.
    raise typer.Exit(1 if (stack.layout.run_dir / "supervisord.pid").exists() else 0)


def hints(unit: Unit) -> list[str]:
    """What the account or the machine still lacks for the service."""
    found = []
    account = pwd.getpwuid(os.geteuid()).pw_name
    if unit.scope == "user" and not Path("/var/lib/systemd/linger", account).exists():
        found.append(
            f"the services of {account} start with its first login and stop with its last one: to start this one at boot, run "
            f"`sudo loginctl enable-linger {account}`"
        )
    if unit.scope == "user" and int(MAX_MAP_COUNT.read_text()) < MEMORY_MAPS:
        found.append(
            f"the machine allows {int(MAX_MAP_COUNT.read_text()):,} memory maps and QuestDB recommends {MEMORY_MAPS:,}: run "
            f"`echo vm.max_map_count={MEMORY_MAPS} | sudo tee /etc/sysctl.d/60-btc-forecast.conf && sudo sysctl --system`"
        )
    return found


def _unit(data_dir: Path | None, *, system: bool) -> Unit:
    layout = open_stack(data_dir).layout
    scope: Scope = "system" if system else "user"
    owner = pwd.getpwuid(layout.env_file.stat().st_uid).pw_name
    return unit_of(layout, scope, owner, Path.cwd())


def _btc(layout: Layout, *arguments: str) -> int:
    """Run a command of `btc` and return its exit code; a stop signal meanwhile ends it."""
    command = [sys.executable, "-m", "btc_cli", *arguments, "--data-dir", str(layout.data_dir)]
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            raise


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _user_flag(unit: Unit) -> str:
    return " --user" if unit.scope == "user" else ""


def _command(unit: Unit) -> list[str]:
    return ["systemctl", "--user"] if unit.scope == "user" else ["systemctl"]


def _systemctl(unit: Unit, *arguments: str) -> str:
    """Run systemctl and return why it failed; empty if it did not."""
    if shutil.which("systemctl") is None:
        return "there is no systemctl on this machine"
    done = subprocess.run([*_command(unit), *arguments], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _ask(unit: Unit, question: str) -> str:
    """The answer of systemctl to a question, such as active or enabled."""
    if shutil.which("systemctl") is None:
        return "systemd is not on this machine"
    done = subprocess.run([*_command(unit), question, unit.name], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip() or "unknown"
