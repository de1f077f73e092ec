"""`btc backup --to PLACE`: a copy of everything at a second place, from which `btc restore --all --from-copy PLACE` rebuilds the system.

What does not belong here: how a copy is kept (`btc_core.offsite`), and the daily backup on the object store itself
(`btc_assets.system_backups`).
"""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli.options import DataDir, PassphraseFile, open_stack
from btc_cli.sealed_settings import read_passphrase, seal
from btc_core import offsite
from btc_core import system_backup as backups
from btc_core.clock import NS_PER_S, from_ns, now_ns
from btc_core.errors import InvalidInput, StackError
from btc_core.stores.s3 import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.settings import Settings

To = Annotated[
    str,
    typer.Option(
        "--to", help="Directory on another disk, or s3://BUCKET/PREFIX of the store that BTC_OFFSITE_* names."
    ),
]


def backup(
    to: To,
    *,
    passphrase_file: PassphraseFile = None,
    verify: Annotated[bool, typer.Option("--verify", help="Also read back what earlier copies wrote.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Copy all objects, the databases and the settings to a directory or to a bucket elsewhere.

    Only what the place lacks is copied. The system must be running, and continues meanwhile.
    """
    stack = open_stack(data_dir)
    settings, started_ns = stack.settings, now_ns()
    if not to.startswith("s3://") and Path(to).expanduser().resolve().is_relative_to(stack.layout.data_dir.resolve()):
        raise InvalidInput(
            f"{to} lies in {stack.layout.data_dir}, whose loss the copy must survive; name another place"
        )
    sealed = b""
    if passphrase_file is not None:
        sealed = seal(stack.layout.env_file.read_bytes(), read_passphrase(passphrase_file))
    with place_of(settings, to) as place:
        with ObjectStore(settings.store) as store:
            backups.back_up(settings, store, stack.layout.values())
        copy = offsite.make(settings, place, sealed)
        if verify:
            offsite.verify(place, copy)
    took_s = (now_ns() - started_ns) / NS_PER_S
    kept = "with the settings, encrypted" if sealed else "without secrets, because there is no --passphrase-file"
    typer.echo(f"{len(copy.objects)} objects, {copy.size_bytes:,} bytes, are at {to} ({kept}); it took {took_s:.1f} s")


@contextmanager
def place_of(settings: Settings, where: str) -> Iterator[offsite.Place]:
    """The place that an option names. Raises `InvalidInput` for one that does not exist or is the object store itself."""
    if not where.startswith("s3://"):
        directory = Path(where).expanduser()
        if not directory.is_dir():
            raise InvalidInput(f"{directory} is not a directory: create it, or mount the disk on which it lies")
        yield offsite.Directory(directory.resolve())
        return
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    given = settings.offsite
    if (
        given.endpoint_url.rstrip("/") == settings.store.endpoint_url.rstrip("/")
        and bucket in offsite.buckets(settings).values()
    ):
        raise InvalidInput(f"{bucket} is a bucket of this system and not a second place; name another one")
    with ObjectStore(given, bucket) as store:
        yield offsite.Bucket(store, prefix)


def newest_copy(place: offsite.Place, where: str) -> offsite.Copy:
    """The newest copy at a place; raises `StackError` if there is none."""
    copy = offsite.newest(place)
    if copy is None:
        raise StackError(f"{where} has no copy of a system: `btc backup --to {where}` makes one")
    typer.echo(f"the newest copy at {where} was made at {from_ns(copy.made_at_ns):%Y-%m-%d %H:%M} UTC")
    return copy
