"""Measured results: sections of README.md, so that a figure stands in one place.

What does not belong here: figures.
"""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"
SECTIONS = ("Measured", "Nothing lost, nothing twice")
HEAD = """\
# Measured results

```
make bench                                # every speed below, on your machine; writes benchmarks/results/latest.json
make bench ARGS="--quick"                 # a fifth of the work, without servers
make bench ARGS="--only latency"          # one of them; --help lists their names
make chaos MINUTES=10 SEED=1              # what is lost when everything dies
```
"""


def page() -> str:
    """The sections as README.md has them."""
    return "\n".join([HEAD, *(f"## {title}\n{section(title)}" for title in SECTIONS)])


def section(title: str) -> str:
    """The text under a heading of README.md; a heading that is not there is a `KeyError`."""
    parts = re.split(r"^## (.+)$", README.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[title]
