"""Secrets from files: `BTC_KAFKA_PASSWORD_FILE` names a file that holds what `BTC_KAFKA_PASSWORD` would.

Docker and Kubernetes mount secrets as files. What does not belong here: which settings are secret (they are of the type
`SecretStr`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SUFFIX = "_file"


def with_secret_files(variables: Mapping[str, str | None], secrets: Iterable[str]) -> dict[str, str | None]:
    """The variables, with the content of each file that holds a secret in place of the file's name.

    Names are in lower case. The line break at the end of a file is no part of the secret. Raises `ConfigError` for a file
    that cannot be read, and for a secret that is given in both ways.
    """
    found = dict(variables)
    for name in secrets:
        path = found.pop(f"{name}{SUFFIX}", None)
        if not path:
            continue
        if found.get(name):
            msg = f"{name.upper()} and {name.upper()}_FILE are both set; remove one of them"
            raise ConfigError(msg)
        try:
            found[name] = Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{name.upper()}_FILE names {path}, which cannot be read: {error}"
            raise ConfigError(msg) from None
    return found
