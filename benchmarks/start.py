"""The start of a whole system, and what it costs while nobody uses it, with the share of each process.

What does not belong here: the speed and the cost of the workers under load (`servers`, `cost`).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from typing import TYPE_CHECKING

import httpx
import psutil

from benchmarks.registry import Figure, Plan, benchmark
from benchmarks.servers import stack_for_now
from btc_core.errors import NotReady
from stack.layout import python_path

if TYPE_CHECKING:
    from stack.runtime import Stack

SETTLED_S = 420.0
"""Time from the start until an idle system is measured: its first minutes have the first training in them."""
WATCH_S = 120.0
"""How long the idle system is measured. Everything that runs every minute runs twice in it."""
POLL_S = 0.1
MB = 1_000_000


@benchmark("start", needs_servers=True)
def start_and_idle(plan: Plan) -> list[Figure]:
    """Start a system twice, the first time without compiled functions, and measure it once it is idle."""
    with tempfile.TemporaryDirectory(prefix="btc-bench-cache-") as cache, stack_for_now() as stack:
        figures = started(stack, cache, "first start", 60.0, 120.0)
        time.sleep(10.0 if plan.quick else SETTLED_S)
        figures += idle(stack, WATCH_S / 4 if plan.quick else WATCH_S)
        stack.down()
        return figures + started(stack, cache, "second start", 15.0, 15.0)


def started(stack: Stack, cache: str, name: str, forecast_target_s: float, healthy_target_s: float) -> list[Figure]:
    """Seconds from `btc up` to the first forecast of the API, to the last healthy component, and to the end of `btc up`."""
    api = stack.settings.api
    forecast_s: list[float] = []
    begin_s = time.perf_counter()
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if _answers(f"http://{api.host}:{api.port}/v1/forecast"):
                forecast_s.append(time.perf_counter() - begin_s)
                return
            time.sleep(POLL_S)

    watcher = threading.Thread(target=watch)
    watcher.start()
    healthy_s, lines = 0.0, []
    command = [sys.executable, "-m", "btc_cli", "up", "--exchange", "sim", "--data-dir", str(stack.layout.data_dir)]
    env = {**os.environ, "XDG_CACHE_HOME": cache, "PYTHONPATH": python_path()}
    with subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as up:
        for line in up.stdout or ():
            lines.append(line)
            if "healthy after" in line:
                healthy_s = time.perf_counter() - begin_s
    end_s = time.perf_counter() - begin_s
    ended.set()
    watcher.join()
    if up.returncode != 0 or not forecast_s:
        msg = f"`btc up` failed, or no forecast was served:\n{''.join(lines[-20:])}"
        raise NotReady(msg)
    return [
        Figure(f"{name}: forecasts are served", forecast_s[0], "s", forecast_target_s),
        Figure(f"{name}: all components are healthy", healthy_s, "s", healthy_target_s),
        Figure(f"{name}: `btc up` returns", end_s, "s"),
    ]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=1.0).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def idle(stack: Stack, watch_s: float) -> list[Figure]:
    """Processor time and memory (proportional set size) of the whole system and of each component."""
    pids = {each.name: each.pid for each in stack.status() if each.pid}
    before_s = {name: _used_s(pid) for name, pid in pids.items()}
    begin_s = time.perf_counter()
    time.sleep(watch_s)
    took_s = time.perf_counter() - begin_s
    percent = {name: 100.0 * (_used_s(pid) - before_s[name]) / took_s for name, pid in pids.items()}
    memory_mb = {each.name: float(each.memory_mb) for each in stack.status() if each.pid}
    return [
        Figure("idle: processor time of all components", sum(percent.values()), "% of a core", 20.0),
        Figure("idle: memory of all components", sum(memory_mb.values()), "MB", 2_000.0),
        *(Figure(f"idle: processor time of {name}", value, "% of a core") for name, value in _largest_first(percent)),
        *(Figure(f"idle: memory of {name}", value, "MB") for name, value in _largest_first(memory_mb)),
    ]


def _largest_first(values: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(values.items(), key=lambda pair: -pair[1])


def _used_s(pid: int) -> float:
    """Processor time of a process and of its children, those included that have ended, s."""
    process = psutil.Process(pid)
    used_s = 0.0
    for each in (process, *process.children(recursive=True)):
        try:
            times = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        used_s += times.user + times.system + times.children_user + times.children_system
    return used_s
