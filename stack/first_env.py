"""`python -m stack.first_env > .env`: an env file with new secrets for a composition that has no checkout beside it.

It is what `btc init` writes, and for the simulated exchange also what `deploy/compose.sim.env` adds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from stack.layout import ROOT, Layout

SIMULATED = ROOT / "deploy" / "compose.sim.env"


def main() -> int:
    """Print the env file; 0."""
    parser = argparse.ArgumentParser(prog="python -m stack.first_env", description=__doc__)
    parser.add_argument("--exchange", choices=("live", "sim"), default="live")
    mode = parser.parse_args().exchange
    with tempfile.TemporaryDirectory() as folder:
        layout = Layout(Path(folder))
        layout.create(mode)
        print(layout.env_file.read_text(), end="")
    if mode == "sim":
        print(SIMULATED.read_text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
