"""`btc backup --to PLACE`: a copy of everything at a second place, from which `btc restore --all --from-copy PLACE` rebuilds the system.

What does not belong here: how a copy is kept (`btc_core.offsite`), and the daily backup on the object store itself
(`btc_assets.system_backups`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from btc_cli.options import DataDir, PassphraseFile, open_stack
from btc_cli.sealed_settings import read_passphrase, seal
from btc_core import offsite
from btc_core import system_backup as backups
from btc_core.clock import NS_PER_S, from_ns, now_ns
from btc_core.errors import InvalidInput, StackError
from btc_core.stores.s3 import ObjectStore

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
    sealed = None  # those of the copy before stay
    if passphrase_file is not None:
        sealed = seal(stack.layout.env_file.read_bytes(), read_passphrase(passphrase_file))
    with offsite.open_place(settings, to) as place:
        with ObjectStore(settings.store) as store:
            backups.back_up(settings, store, stack.layout.values())
        copy = offsite.make(settings, place, sealed)
        if verify:
            offsite.verify(place, copy)
    if offsite.is_scheduled(
        settings, to
    ):  # the age of the scheduled copies is watched, and not that of a copy elsewhere
        with ObjectStore(settings.store) as store:
            offsite.record(store, copy, settings.backup.copy_to)
    took_s = (now_ns() - started_ns) / NS_PER_S
    kept = "without secrets, because there is no --passphrase-file"
    if copy.settings_sha256:
        kept = "with the settings, encrypted" if sealed else "with the encrypted settings of the copy before"
    typer.echo(f"{len(copy.objects)} objects, {copy.size_bytes:,} bytes, are at {to} ({kept}); it took {took_s:.1f} s")


def chosen_copy(place: offsite.Place, where: str, name: str) -> offsite.Copy:
    """The copy with a name, or the newest one at a place; raises `StackError` if there is none, and `InvalidInput`."""
    copy = offsite.named(place, name) if name else offsite.newest(place)
    if copy is None:
        raise StackError(f"{where} has no copy of a system: `btc backup --to {where}` makes one")
    typer.echo(
        f"the {'chosen' if name else 'newest'} copy at {where} was made at {from_ns(copy.made_at_ns):%Y-%m-%d %H:%M} UTC"
    )
    return copy
