"""`python -m stack.java_caches`: makes those caches that are missing with which QuestDB and Kafka start in half the time.

Java makes such a cache from a run of the program (JEP 483, 514 and 515): it holds the classes as they are after loading and linking,
and which methods were called often. So each server runs for some seconds here, in a stack of its own that is deleted afterwards.
What does not belong here: where a cache is kept, and the command that uses it (`java`).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import BtcError, StackError
from btc_core.waiting import wait_until
from stack.files import one_process_at_a_time
from stack.jars import jars
from stack.java import class_cache
from stack.layout import python_path
from stack.ports import free_ports
from stack.runtime import Stack

if TYPE_CHECKING:
    from stack.component import Component

SERVERS = ("questdb", "kafka")
START_TIMEOUT_S, STOP_TIMEOUT_S, CREATE_TIMEOUT_S = 300.0, 300.0, 300.0
"""Far more than is needed: on two idle cores the three steps take about five, one and ten seconds. While others use the cores, this
process gets little of them, and Java writes what it has seen when it stops."""
POLL_S = 0.3
KEPT = 6
"""Caches that stay: those of this version, and of two others that somebody may run beside it. Each takes 50 to 70 MB."""
NICENESS = 10
"""Nobody waits for a cache, so its making leaves the cores to whoever needs them."""


def missing() -> list[str]:
    """The servers whose cache has not been made yet."""
    caches = {name: class_cache(jars(name)) for name in SERVERS}
    return [name for name, path in caches.items() if path is not None and not path.exists()]


def make_in_background(log_file: Path) -> bool:
    """Begin to make those that are missing, in a process that outlives this one and writes to a log; False if none is missing."""
    if not missing():
        return False
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as output:
        subprocess.run(
            ("setsid", "--fork", sys.executable, "-m", __name__),  # noqa: S607 - a tool of every Linux
            env={**os.environ, "PYTHONPATH": python_path()},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=True,
        )
    return True


def make(name: str) -> None:
    """Make the cache of a server; raises `StackError` if the server does not run or Java cannot make the cache."""
    path = class_cache(jars(name))
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with one_process_at_a_time(path.parent / "java.lock"):
        if path.exists():  # another process has made it meanwhile
            return
        directory = Path(tempfile.mkdtemp(prefix="btc-java-"))
        stack = Stack(directory / "stack")
        try:
            stack.create("sim", free_ports())
            component = stack.components()[name]
            seen, made = directory / "seen", directory / "made"
            _run(component, f"-XX:AOTMode=record -XX:AOTConfiguration={seen}", directory / "log")
            _create(component, f"-XX:AOTMode=create -XX:AOTConfiguration={seen} -XX:AOTCache={made}")
            beside = path.with_suffix(".new")
            shutil.move(made, beside)  # from another file system, perhaps
            beside.rename(path)
            _delete_old(path.parent)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
            shutil.rmtree(stack.layout.run_dir, ignore_errors=True)


def _delete_old(folder: Path) -> None:
    made = sorted(folder.glob("java-*.aot"), key=lambda each: each.stat().st_mtime)
    for each in made[:-KEPT]:
        each.unlink(missing_ok=True)


def _run(component: Component, options: str, log_file: Path) -> None:
    """Start the server, let it do what it does at a first start, and stop it."""
    component.before_start()
    with log_file.open("wb") as output:
        server = subprocess.Popen(component.command, stdout=output, stderr=output, env=_env(component, options))
    try:
        if not wait_until(lambda: server.poll() is not None or _is_healthy(component), START_TIMEOUT_S, POLL_S):
            raise StackError(_failure(component, "did not become healthy", log_file))
        if server.poll() is None:
            component.when_healthy()
        server.terminate()
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise StackError(_failure(component, "did not stop", log_file)) from error
    finally:
        server.kill()
        server.wait()


def _create(component: Component, options: str) -> None:
    """Run the server's command in the mode in which Java writes the cache instead of running the server."""
    done = subprocess.run(
        component.command, env=_env(component, options), capture_output=True, text=True, timeout=CREATE_TIMEOUT_S, check=False
    )  # fmt: skip
    if done.returncode != 0:
        msg = f"Java could not make the class cache of {component.name}:\n{(done.stdout + done.stderr)[-2_000:]}"
        raise StackError(msg)


def _env(component: Component, options: str) -> dict[str, str]:
    given = os.environ.get("JDK_JAVA_OPTIONS", "")
    return {**os.environ, **component.env, "JDK_JAVA_OPTIONS": f"{given} {options}"}


def _is_healthy(component: Component) -> bool:
    assert component.check is not None  # noqa: S101 - servers have one
    try:
        component.check()
    except (BtcError, OSError):
        return False
    return True


def _failure(component: Component, what: str, log_file: Path) -> str:
    return f"{component.name} {what} while its class cache was made:\n{log_file.read_text(errors='replace')[-2_000:]}"


def main() -> None:
    """Make all that are missing."""
    os.nice(NICENESS)
    for name in missing():
        make(name)


if __name__ == "__main__":
    main()
