"""Generate the page about settings from `btc_core/settings.py`, and the list of a stack's ports.

Recipes that change a setting do not belong here: they are in `docs/how-to`.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import griffe
from pydantic import BaseModel, SecretStr

from btc_core.settings import Settings
from btc_core.settings_section import Section
from docs.generate.markdown import bounds, code, kind, table
from stack.ports import DEFAULT_PORTS

UNITS = {"_min": "min", "_per_s": "1/s", "_ms": "ms", "_s": "s", "_h": "h", "_hours": "h", "_days": "days", "_bytes": "bytes",
         "_rows": "rows", "_messages": "messages"}  # fmt: skip
"""Units by the suffix of a setting's name; a longer suffix comes before a shorter one that it contains."""
HEAD = """\
# Settings

```
BTC_STREAM_TABLE_FLUSH_MS=200     # a line of var/live/stack.env; `btc restart features` applies it
```

Every process reads its settings once, when it starts. It reads them from its environment and from the file that
`BTC_ENV_FILE` names; the environment takes precedence. A stack keeps its settings in the file `stack.env` of its data
directory. If a value is malformed, the process exits with a message that names the variable.

Each secret can also be in a file: `BTC_KAFKA_PASSWORD_FILE=/run/secrets/kafka` in place of `BTC_KAFKA_PASSWORD=…`.
"""


def page() -> str:
    """Describe each section and its settings in the order of the code."""
    sources = cache(partial(griffe.load, try_relative_path=False))  # several sections are in one module
    source = sources("btc_core.settings")
    parts = [HEAD]
    headings = ("variable", "type", "default", "unit", "meaning")
    alone = [_row("", name, Settings, source["Settings"]) for name in Settings.model_fields if not is_section(name)]
    parts.append(f"## General\n\n{table(headings, alone)}\n")
    for name, field in Settings.model_fields.items():
        if not is_section(name):
            continue
        section: type[Section] = field.annotation  # type: ignore[assignment]
        described = sources(section.__module__)[section.__name__]
        rows = [_row(name, each, section, described) for each in section.model_fields]
        parts.append(f"## {name}\n\n{described.docstring.value}\n\n{table(headings, rows)}\n")
    rows = [(code(name), str(port)) for name, port in DEFAULT_PORTS.items()]
    parts.append(
        "## Ports of a stack\n\n`btc up --ports-from N` assigns the ports N, N+1, … in this order.\n\n"
        + table(("port", "default"), rows)
    )
    return "\n".join(parts) + "\n"


def is_section(name: str) -> bool:
    """Return whether a field of `Settings` is a section, and not a setting of its own."""
    annotation = Settings.model_fields[name].annotation
    return isinstance(annotation, type) and issubclass(annotation, Section)


def variable(section: str, name: str) -> str:
    """Return the name of the environment variable of a setting; `section` is empty for a setting without one."""
    config = Settings.model_config
    if not section:
        return f"{config['env_prefix']}{name}".upper()
    return f"{config['env_prefix']}{section}{config['env_nested_delimiter']}{name}".upper()


def _row(section: str, name: str, kind_of: type[BaseModel], described: griffe.Object) -> tuple[str, ...]:
    schema: dict[str, Any] = kind_of.model_json_schema()["properties"][name]
    default: Any = kind_of.model_fields[name].default
    shown = (
        "" if isinstance(default, SecretStr) else ",".join(map(str, default)) if isinstance(default, tuple) else default
    )
    type_and_bounds = ", ".join(filter(None, (kind(schema), bounds(schema))))
    docstring = described[name].docstring
    unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
    return code(variable(section, name)), type_and_bounds, code(shown), unit, docstring.value if docstring else ""
