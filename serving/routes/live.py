"""The live page: one HTML document without external resources, which polls `/predict_bid`.

What does not belong here: numbers; the page shows what the API answers.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from flask import Blueprint, Response

blueprint = Blueprint("live", __name__)

_PAGE = (Path(__file__).parent.parent / "live.html").read_text(encoding="utf-8")


def _hashes(tag: str) -> str:
    """The page's own inline blocks as Content-Security-Policy sources: nothing else may run."""
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", _PAGE, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    return " ".join(f"'sha256-{digest}'" for digest in digests)


_POLICY = (
    f"default-src 'none'; script-src {_hashes('script')}; style-src {_hashes('style')}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/live")
def live_page() -> Response:
    """The live page."""
    return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})
