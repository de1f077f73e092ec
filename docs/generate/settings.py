"""Settings, from `btc_core/settings.py`: variable, type, default, unit and docstring; and the ports of a stack.

What does not belong here: how to change one (`docs/how-to`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import griffe
from pydantic import SecretStr

from btc_core.settings import Settings
from docs.generate.markdown import bounds, code, kind, table
from stack.ports import DEFAULT_PORTS

if TYPE_CHECKING:
    from btc_core.settings import Section

UNITS = {"_per_s": "1/s", "_ms": "ms", "_s": "s", "_h": "h", "_hours": "h", "_days": "days", "_bytes": "bytes",
         "_rows": "rows", "_messages": "messages"}  # fmt: skip
"""What a name ends with, the longer before the shorter."""
HEAD = """\
# Settings

```
BTC_STREAM_TABLE_FLUSH_MS=200     # a line of var/live/stack.env; `btc restart features` reads it
```

Every process reads them once at its start, from its environment and from the file that `BTC_ENV_FILE` names; the
environment wins. A stack keeps its own in `stack.env` of its data directory. A malformed one ends the process with the
name of the variable.
"""


def page() -> str:
    """Each section with its settings in the order of the code."""
    source = griffe.load("btc_core.settings", try_relative_path=False)
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        section: type[Section] = field.annotation  # type: ignore[assignment]
        described = source[section.__name__]
        rows = [_row(name, each, section, described) for each in section.model_fields]
        headings = ("variable", "type", "default", "unit", "meaning")
        parts.append(f"## {name}\n\n{described.docstring.value}\n\n{table(headings, rows)}\n")
    rows = [(code(name), str(port)) for name, port in DEFAULT_PORTS.items()]
    parts.append(
        "## Ports of a stack\n\n`btc up --ports-from N` gives N, N+1, … in this order.\n\n"
        + table(("port", "default"), rows)
    )
    return "\n".join(parts) + "\n"


def variable(section: str, name: str) -> str:
    """The variable of a setting."""
    config = Settings.model_config
    return f"{config['env_prefix']}{section}{config['env_nested_delimiter']}{name}".upper()


def _row(section: str, name: str, kind_of: type[Section], described: griffe.Object) -> tuple[str, ...]:
    schema: dict[str, Any] = kind_of.model_json_schema()["properties"][name]
    default: Any = kind_of.model_fields[name].default
    shown = "" if isinstance(default, SecretStr) else ",".join(default) if isinstance(default, tuple) else default
    asked = ", ".join(filter(None, (kind(schema), bounds(schema))))
    docstring = described[name].docstring
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return code(variable(section, name)), asked, code(shown), unit, docstring.value if docstring else ""
