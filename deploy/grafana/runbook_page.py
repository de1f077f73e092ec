"""The runbook as the page that the API serves at `/runbook`; `make dashboards` writes it.

The page is made here and not by the API, so that the API needs no library for Markdown and no file from `docs`: an image and
an installed package have it among the templates. What does not belong here: the frame of the page (`runbook.html`).
"""

from __future__ import annotations

import re
from pathlib import Path

from markdown import Markdown

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "docs" / "runbook.md"
TARGET = REPOSITORY / "serving" / "templates" / "runbook_text.html"
GENERATED = "{# Written by `make dashboards` from docs/runbook.md. #}\n"

_OTHER_PAGE = re.compile(r"\[([^\]]+)\]\(([\w./-]+\.md)(?:#[\w-]+)?\)")
"""A link to another page of the documentation, which the API does not serve."""


def content() -> str:
    """The text of the runbook as a template: each heading has the anchor that it has in the built documentation."""
    text = _OTHER_PAGE.sub(_named, SOURCE.read_text())
    body = Markdown(extensions=["tables", "fenced_code", "toc", "sane_lists"], output_format="html").convert(text)
    body = body.replace("<table>", '<div class="table"><table>').replace("</table>", "</table></div>")
    return f"{GENERATED}{{% raw %}}{body}{{% endraw %}}\n"


def _named(link: re.Match[str]) -> str:
    """The words of a link with the file that it led to."""
    return f"{link[1]} (`{(SOURCE.parent / link[2]).resolve().relative_to(REPOSITORY)}`)"
