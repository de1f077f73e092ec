"""Settings with secrets, encrypted under a passphrase: AES-256-GCM with a key that scrypt makes of the passphrase.

What does not belong here: where the encrypted settings are kept (`backup`).
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from dotenv import dotenv_values

from btc_core.errors import InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

_MAGIC = b"btc-settings-1\n"
"""The form of the rest: 16 bytes of salt, 12 bytes of nonce, then what was encrypted."""
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**15, 8, 1
"""32 MB and a tenth of a second for each guess of the passphrase."""
MIN_CHARACTERS = 12


def read_passphrase(path: Path) -> bytes:
    """The passphrase in a file, without white space around it; raises `InvalidInput` if it cannot be read or is short."""
    try:
        found = path.read_bytes().strip()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror or error}") from error
    if len(found) < MIN_CHARACTERS:
        raise InvalidInput(
            f"the passphrase in {path} has {len(found)} characters, and at least {MIN_CHARACTERS} are needed. For a first copy, "
            "`openssl rand -base64 24 > FILE` writes a new one; never overwrite the passphrase of an existing copy"
        )
    return found


def seal(text: bytes, passphrase: bytes) -> bytes:
    """The encrypted text."""
    salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
    return _MAGIC + salt + nonce + AESGCM(_key(passphrase, salt)).encrypt(nonce, text, _MAGIC)


def unseal(sealed: bytes, passphrase: bytes) -> dict[str, str]:
    """The settings by variable; raises `InvalidInput` for another passphrase or a changed text."""
    salt, rest = sealed[len(_MAGIC) :][:_SALT_BYTES], sealed[len(_MAGIC) + _SALT_BYTES :]
    try:
        text = AESGCM(_key(passphrase, salt)).decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], sealed[: len(_MAGIC)])
    except (InvalidTag, ValueError) as error:
        raise InvalidInput(
            "the settings of the copy were encrypted under another passphrase, or were changed"
        ) from error
    values = dotenv_values(stream=io.StringIO(text.decode()), interpolate=False)
    return {name: value or "" for name, value in values.items()}


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=_KEY_BYTES, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P).derive(passphrase)
