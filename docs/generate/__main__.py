"""Write every generated page to `docs/reference`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from docs.generate import api, commands, features, metrics, notebooks, repository, settings, tables

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = Path(__file__).resolve().parents[1] / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "settings": settings.page,
    "tables": tables.page,
    "features": features.page,
    "metrics": metrics.page,
    "api": api.page,
    "commands": commands.page,
    **{name.removesuffix(".md").lower(): partial(repository.page, name) for name in repository.FILES},
    **{notebooks.page_name(name): partial(notebooks.page, name) for name in notebooks.NAMES},
}


def main() -> None:
    """Replace every generated page by its current text."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / f"{name}.md").write_text(page())


if __name__ == "__main__":
    main()
