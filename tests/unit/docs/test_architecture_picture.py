"""The drawn architecture: its boxes are the components of a stack, and it stands alone."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from docs.generate.pictures import CHROMIUM, NO_CHROMIUM
from stack.all_components import all_components
from stack.component import Context
from stack.layout import Layout
from stack.ports import free_ports
from tests.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

PICTURE = ROOT / "docs/assets/architecture.svg"
SVG = "{http://www.w3.org/2000/svg}"
OUTSIDE_ITS_BOX = """() => [...document.querySelectorAll("g")].flatMap((group) => {
  const box = group.querySelector("rect").getBBox();
  return [...group.querySelectorAll("text")].filter((text) => {
    const own = text.getBBox();
    return own.x < box.x || own.x + own.width > box.x + box.width || own.y < box.y || own.y + own.height > box.y + box.height;
  }).map((text) => text.textContent);
})"""
"""The texts that do not fit into their box."""


def test_the_boxes_are_the_components_of_a_stack_with_a_model_of_the_user(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "stack")
    layout.create("sim", free_ports())
    (layout.settings().user_models / "mine.py").write_text("")
    known = all_components(Context(layout, layout.settings(), layout.internal_ports()))
    drawn = [text.text for text in ET.parse(PICTURE).iter(f"{SVG}text") if text.get("class") == "name"]  # noqa: S314 - our own file
    assert sorted(filter(None, drawn)) == sorted(known)


def test_the_picture_has_a_title_and_a_description_and_loads_nothing() -> None:
    root = ET.parse(PICTURE).getroot()  # noqa: S314 - our own file
    assert root.get("role") == "img"
    assert all(root.findtext(f"{SVG}{name}") for name in ("title", "desc"))
    text = PICTURE.read_text()
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"(?:href|src)=|url\((?!#)|@import", text)


def test_the_architecture_shows_it() -> None:
    assert "](docs/assets/architecture.svg)" in (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_every_text_fits_into_its_box(browser: Browser) -> None:
    page = browser.new_page()
    page.goto(PICTURE.as_uri())
    assert page.evaluate("document.querySelectorAll('g text').length") > 30
    assert page.evaluate(OUTSIDE_ITS_BOX) == []
    page.close()
