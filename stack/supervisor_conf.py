"""The text of `supervisord.conf`: how supervisord starts, restarts and stops each component.

What does not belong here: talking to supervisord (`stack/supervisor.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from stack.limits import open_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from stack.component import Component
    from stack.layout import Layout

LOG_BACKUPS = 3
"""Rotated logs that are kept of each component. With the current log and the default size, it takes at most 40 MB, all components 800 MB."""
START_RETRIES = 1_000
"""supervisord waits one second longer before each retry: a minute after half an hour, seven minutes after a day. A server that
cannot start while the disk is full therefore starts by itself once there is room. After six days it stays down as FATAL."""
MIN_FILES = 4_096
"""Open files that supervisord requires. It closes as many in each process that it starts, so it gets no more than this;
`stack/limits.py` raises the limit that the servers inherit."""


def conf_text(layout: Layout, components: Iterable[Component]) -> str:
    """The text of the whole file. It holds secrets, in the environments of the components."""
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "logfile": layout.log("supervisord"),
            "logfile_maxbytes": layout.log_bytes(),
            "logfile_backups": LOG_BACKUPS,
            "pidfile": layout.run_dir / "supervisord.pid",
            "childlogdir": layout.logs_dir,
            "umask": "077",
            "minfds": min(MIN_FILES, open_files()),
        },
        "unix_http_server": {"file": layout.supervisor_socket, "chmod": "0600"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface",
        },
    }
    for component in components:
        if component.given_by:
            continue
        sections[f"program:{component.name}"] = _program(layout, component)
    return "\n".join(
        f"[{title}]\n" + "".join(f"{key}={str(value).replace('%', '%%')}\n" for key, value in values.items())
        for title, values in sections.items()
    )


def _program(layout: Layout, component: Component) -> dict[str, object]:
    values: dict[str, object] = {
        "command": " ".join(_quote(word) for word in component.command),
        "directory": layout.data_dir,
        "autostart": "false",
        "autorestart": "true",
        "startsecs": component.retry_s,
        "startretries": START_RETRIES,
        "stopsignal": component.stop_signal,
        "stopwaitsecs": component.stop_wait_s,
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": layout.log(component.name),
        "stdout_logfile_maxbytes": layout.log_bytes(),
        "stdout_logfile_backups": LOG_BACKUPS,
    }
    if component.env:
        values["environment"] = ",".join(f"{key}={_quote(value)}" for key, value in component.env.items())
    if component.user:
        values["user"] = component.user
    return values


def _quote(word: str) -> str:
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
