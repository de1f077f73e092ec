"""Pages that are files of the repository, or sections of them, so that a sentence or a figure stands in one place.

What does not belong here: figures and sentences.
"""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
SECTIONS = ("Measured", "Nothing lost, nothing twice")
"""Of README.md."""
RESULTS = """\
# Measured results

```
make bench                                # every speed below, on your machine
make bench ARGS="--quick"                 # a fifth of the work, without servers
make bench ARGS="--only latency"          # one of them; --help lists their names
make chaos MINUTES=10 SEED=1              # what is lost when everything dies
```
"""


def page(name: str) -> str:
    """A file at the root, its links led from where the page lies."""
    return _linked((ROOT / name).read_text())


def results() -> str:
    """The measured results as README.md has them; a section that is not there is a `KeyError`."""
    parts = re.split(r"^## (.+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return _linked("\n".join([RESULTS, *(f"## {title}\n{sections[title]}" for title in SECTIONS)]))


def _linked(text: str) -> str:
    """Links to files in `docs` and to those of `FILES`, as they are from `docs/reference`.

    >>> _linked("[why](docs/decisions.md), [how](CONTRIBUTING.md#add-a-feature)")
    '[why](../decisions.md), [how](contributing.md#add-a-feature)'
    """
    for name in FILES:
        text = text.replace(f"]({name}", f"]({name.lower()}")
    return text.replace("](docs/", "](../")
