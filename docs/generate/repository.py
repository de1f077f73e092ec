"""Generate the pages that are files of the repository, so that their text has one home.

Text of these pages does not belong here.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def page(name: str) -> str:
    """Return a file of the repository's root with links that are correct from `docs/reference`."""
    return _relinked((ROOT / name).read_text())


def _relinked(text: str) -> str:
    """Change links to files in `docs` and to those of `FILES`, so that they lead there from `docs/reference`.

    >>> _relinked("[why](docs/decisions.md), [how](CONTRIBUTING.md#add-a-feature)")
    '[why](../decisions.md), [how](contributing.md#add-a-feature)'
    """
    for name in FILES:
        text = text.replace(f"]({name}", f"]({name.lower()}")
    return text.replace("](docs/", "](../")
