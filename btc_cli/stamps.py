"""What an OpenTimestamps file (`.ots`) attests about the file of roots beside it.

What does not belong here: asking a calendar or a Bitcoin node, which the program `ots` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from btc_core.errors import ConfigError, InvalidInput

if TYPE_CHECKING:
    from pathlib import Path

SUFFIX = ".ots"
NOT_INSTALLED = (
    "an OpenTimestamps file is read with a package of its own; install it with `make add PACKAGES=opentimestamps`"
)


class Stamp(msgspec.Struct, frozen=True):
    """The attestations of a file; the operations that lead from its hash to each have been computed."""

    blocks: dict[int, str]
    """The Merkle root that the header of each Bitcoin block must have, by height, as block explorers write it."""
    calendars: tuple[str, ...]
    """Addresses of calendars that promised to put the hash into a block."""
    others: int
    """Number of attestations of other kinds."""


def read_stamp(path: Path) -> Stamp:
    """What a `.ots` file attests about the file of the same name without the suffix.

    Raises `InvalidInput` if one of them is missing or damaged or if they do not belong together, and `ConfigError` without
    the package.
    """
    try:
        from opentimestamps.core.notary import BitcoinBlockHeaderAttestation, PendingAttestation  # noqa: PLC0415 - optional
        from opentimestamps.core.serialize import DeserializationError, StreamDeserializationContext  # noqa: PLC0415
        from opentimestamps.core.timestamp import DetachedTimestampFile  # noqa: PLC0415
    except ModuleNotFoundError:
        raise ConfigError(NOT_INSTALLED) from None
    stamped = path.with_suffix("")
    try:
        with path.open("rb") as file:
            stamp = DetachedTimestampFile.deserialize(StreamDeserializationContext(file))
        with stamped.open("rb") as file:
            digest = stamp.file_hash_op.hash_fd(file)
    except OSError as error:
        msg = f"{error.filename}: {error.strerror}; the stamp and the file that it stamps have to lie beside each other"
        raise InvalidInput(msg) from error
    except (
        DeserializationError,
        ValueError,
    ) as error:  # ValueError: a name, an operation or a result that is impossible
        msg = f"{path} is no OpenTimestamps file: {error}"
        raise InvalidInput(msg) from error
    if digest != stamp.file_digest:
        msg = f"{path} stamps a file with the hash {stamp.file_digest.hex()}, and {stamped} has {digest.hex()}"
        raise InvalidInput(msg)
    blocks, calendars, others = {}, [], 0
    for message, attestation in stamp.timestamp.all_attestations():
        if isinstance(attestation, BitcoinBlockHeaderAttestation):
            blocks[attestation.height] = message[::-1].hex()
        elif isinstance(attestation, PendingAttestation):
            calendars.append(attestation.uri)
        else:
            others += 1
    return Stamp(blocks, tuple(sorted(calendars)), others)
