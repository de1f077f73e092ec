"""Settings that `btc backup` copies are readable with the passphrase and with no other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from btc_cli.sealed_settings import MIN_CHARACTERS, read_passphrase, seal, unseal
from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

TEXT = b"BTC_API_TOKEN=a$b\nBTC_ALERT_URLS='json://x?a=b#c'\nBTC_EMPTY=\n"
PASSPHRASE = b"correct horse battery staple"


def test_the_settings_come_back_with_the_passphrase() -> None:
    sealed = seal(TEXT, PASSPHRASE)
    assert unseal(sealed, PASSPHRASE) == {"BTC_API_TOKEN": "a$b", "BTC_ALERT_URLS": "json://x?a=b#c", "BTC_EMPTY": ""}
    assert b"BTC" not in sealed
    assert seal(TEXT, PASSPHRASE) != sealed, "each has a salt and a nonce of its own"


@pytest.mark.parametrize("position", [0, 20, 35, -1])
def test_another_passphrase_and_a_changed_byte_are_refused(position: int) -> None:
    sealed = bytearray(seal(TEXT, PASSPHRASE))
    with pytest.raises(InvalidInput, match="under another passphrase, or were changed"):
        unseal(bytes(sealed), b"correct horse battery stable")
    sealed[position] ^= 1
    with pytest.raises(InvalidInput, match="under another passphrase, or were changed"):
        unseal(bytes(sealed), PASSPHRASE)
    with pytest.raises(InvalidInput, match="under another passphrase, or were changed"):
        unseal(b"", PASSPHRASE)


def test_a_short_or_missing_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_passphrase(path)
    path.write_bytes(b"x" * (MIN_CHARACTERS - 1) + b"\n")
    with pytest.raises(
        InvalidInput, match=f"has {MIN_CHARACTERS - 1} characters, and at least {MIN_CHARACTERS} are needed"
    ):
        read_passphrase(path)
    path.write_bytes(PASSPHRASE + b"\n")
    assert read_passphrase(path) == PASSPHRASE
