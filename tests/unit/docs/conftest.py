"""The browser of the tests of the documentation.

What does not belong here: what a page should show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docs.generate.pictures import chromium

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser


@pytest.fixture(scope="module")  # until the browser is closed, no other test of the process can run an event loop
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found
