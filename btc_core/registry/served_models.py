"""The bundle of every model that has made a forecast, on the object store by its hash, so that the forecast can be verified.

The registry numbers its versions, and models that serve before a first training are in no registry. A hash names one
bundle for ever. What does not belong here: what a bundle is (`btc_core.models.bundle`).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from btc_core.errors import SchemaError, StoreError
from btc_core.models.bundle import BUNDLE, BidModel, VolatilityModel, load_bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from btc_core.stores.s3 import ObjectStore

FOLDER = "served_models"
_EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every entry, so that equal files give an equal archive."""


def digest_of(files: Mapping[str, bytes]) -> str:
    """The hash that identifies a bundle: SHA-256 of its `bundle.json`, hexadecimal."""
    return hashlib.sha256(files[BUNDLE]).hexdigest()


def put_bundle(store: ObjectStore, files: Mapping[str, bytes]) -> None:
    """Store a bundle unless it is stored already; raises `StoreError`."""
    key = _key(digest_of(files))
    if not store.keys(key):
        store.put(key, zipped(files))


def get_bundle(store: ObjectStore, digest: str) -> dict[str, bytes]:
    """The files of a bundle; raises `StoreError` if it is missing or is not the one that the hash names."""
    body = store.get(_key(digest))
    if body is None:
        raise StoreError(f"{store.uri(_key(digest))} is missing, so the model of the forecast is not known")
    try:
        files = unzipped(body)
    except zipfile.BadZipFile as error:
        raise StoreError(f"{store.uri(_key(digest))} is damaged: {error}") from error
    if BUNDLE not in files or digest_of(files) != digest:
        raise StoreError(f"{store.uri(_key(digest))} does not hold the model that its name says")
    return files


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Files as a ZIP archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, _EARLIEST), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def unzipped(body: bytes) -> dict[str, bytes]:
    """The inverse of `zipped`; raises `zipfile.BadZipFile`."""
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def model_of(files: Mapping[str, bytes], version: str) -> VolatilityModel | BidModel:
    """The model of a bundle, with the version that its forecasts name; raises `SchemaError` if it cannot be loaded."""
    with tempfile.TemporaryDirectory(prefix="btc-bundle-") as name:
        folder = Path(name)
        for file, data in files.items():
            if Path(file).name != file:
                msg = f"a bundle has no folders, but this one has the file {file!r}"
                raise SchemaError(msg)
            (folder / file).write_bytes(data)
        return load_bundle(folder, version)


def models_of(
    store: ObjectStore, digests: Iterable[bytes], versions: Iterable[str]
) -> tuple[BidModel, VolatilityModel]:
    """The models of a bid and a volatility by the hashes of their bundles, with the versions that forecasts name.

    Raises `SchemaError` or `StoreError` if they cannot be loaded, and `StoreError` if they are those of something else.
    """
    bid, volatility = (
        model_of(get_bundle(store, digest.hex()), version) for digest, version in zip(digests, versions, strict=True)
    )
    if not isinstance(bid, BidModel) or not isinstance(volatility, VolatilityModel):
        raise StoreError("the stored models of the forecast are not those of a bid and of a volatility")
    return bid, volatility


def _key(digest: str) -> str:
    return f"{FOLDER}/{digest}.zip"
