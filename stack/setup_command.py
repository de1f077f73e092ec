"""Running a command that prepares a server's files before its first start.

What does not belong here: the servers themselves, which the supervisor starts.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from btc_core.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TIMEOUT_S = 120
SHOWN_CHARACTERS = 2_000
"""How much of the output of a failed command is shown."""


def run_setup(
    command: Sequence[str],
    failure: str,
    user: str | None = None,
    *,
    env: Mapping[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Run a command as `user` (None: as this one), with `env` in addition to this environment.

    Raises `StackError` with `failure` and its output when it fails.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=None if env is None else {**os.environ, **env},
            cwd="/",  # another user may not be allowed into the present directory
            user=user,
            extra_groups=[] if user else None,
        )
    except subprocess.TimeoutExpired as error:
        msg = f"{failure}: it took longer than {timeout_s:g} s and was ended. Try again when the machine is less busy"
        raise StackError(msg) from error
    if done.returncode != 0:
        msg = f"{failure}:\n{(done.stdout + done.stderr)[-SHOWN_CHARACTERS:]}"
        raise StackError(msg)
