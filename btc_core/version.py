"""Which version of this code is running.

What does not belong here: versions of models (`btc_core.registry`) and of feature sets (`btc_core.features.catalogue`).
"""

from __future__ import annotations

import subprocess
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
"""The root of the repository, when this package runs from a checkout."""


def git_commit() -> str:
    """The commit that is checked out, or an empty string where this package was installed without its repository."""
    try:
        done = subprocess.run(
            # --git-dir keeps git from taking a repository around an installed package for ours.
            ["git", "-C", str(CHECKOUT), "--git-dir=.git", "rev-parse", "HEAD"],  # noqa: S607 - git is wherever the user installed it
            capture_output=True, check=True, text=True, timeout=5,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
