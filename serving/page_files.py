"""The files of the pages: read once, and named by their content, so that a browser may keep them for good.

`/static/VERSION/NAME` has a version that changes with any file. A module imports its neighbours by relative names, so all
modules of a page are of one version. What does not belong here: the pages themselves (`routes.live`).
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FILES = {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES}
"""The content of each file. A request can name only one of these and never a path."""
TAGS = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in FILES.items()}
"""What `ETag` says of each file."""
VERSION = hashlib.sha256(b"".join(name.encode() + content for name, content in FILES.items())).hexdigest()[:12]
ADDRESS = f"static/{VERSION}"
"""Where a page finds the files, relative to it: a proxy may serve the pages under a path."""
KEPT_FOREVER = "public, max-age=31536000, immutable"

_IMPORTED = re.compile(r'^(?:import|export) .*from "\./([^"]+)"', re.MULTILINE)


class Inlined:
    """The styles and the first script of a page, which stand in it so that its first picture needs one request.

    The content security policy names them by their hashes, so that no other text of the page can be a script or a style.
    """

    def __init__(self, styles: Sequence[str], script: str = "") -> None:
        self.styles = Markup("".join(FILES[name].decode() for name in styles))  # noqa: S704 - our own files
        self.script = Markup(FILES[script].decode()) if script else Markup()  # noqa: S704 - our own file
        self.policy = (
            f"default-src 'none'; script-src 'self'{_source(self.script)}; style-src 'self'{_source(self.styles)}; "
            "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )


@cache
def modules_of(name: str) -> tuple[str, ...]:
    """The modules that a module needs before it runs, so that a browser can ask for all of them at once."""
    needed: set[str] = set()
    waiting = [name]
    while waiting:
        found = set(_IMPORTED.findall(FILES[waiting.pop()].decode())) - needed
        needed |= found
        waiting += found
    return tuple(sorted(needed))


def _source(text: str) -> str:
    """An inline text as a source of a content security policy."""
    return f" 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" if text else ""
