"""Files of evidence with one part changed, as a forger would, and what a verification finds in them."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.days.forecast_check import Check
from btc_core.days.forecast_file import MANIFEST, EvidenceManifest, opened_evidence

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def failing(path: Path) -> list[str]:
    """What does not fit in a file of evidence."""
    with opened_evidence(path) as evidence:
        return [step.text for step in Check(evidence).steps() if not step.fits]


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def rewritten(path: Path, target: Path, name: str, change: Callable[[bytes], bytes], *, rehash: bool) -> None:
    """Copy a file of evidence with one entry changed, and with its new hash in the manifest if `rehash`."""
    with zipfile.ZipFile(path) as source:
        entries = {each: source.read(each) for each in source.namelist()}
    entries[name] = change(entries[name])
    if rehash:
        manifest = msgspec.json.decode(entries[MANIFEST], type=EvidenceManifest)
        digests = {each: hashlib.sha256(entries[each]).hexdigest() for each in manifest.files}
        entries[MANIFEST] = msgspec.json.encode(msgspec.structs.replace(manifest, files=digests))
    with zipfile.ZipFile(target, "w") as archive:
        for each, data in entries.items():
            archive.writestr(each, data)


def as_live(data: bytes) -> bytes:
    return data.replace(b'"simulated": true', b'"simulated": false')


def with_value(column: str, value: Callable[[Any], Any], row: int = 0) -> Callable[[bytes], bytes]:
    """A change of one value in a Parquet file."""

    def change(data: bytes) -> bytes:
        table = pq.read_table(io.BytesIO(data))
        values = table[column].to_pylist()
        values[row] = value(values[row])
        field = table.schema.field(column)
        sink = io.BytesIO()
        pq.write_table(table.set_column(table.column_names.index(column), field, pa.array(values, field.type)), sink)
        return sink.getvalue()

    return change


def other_frame(data: bytes) -> bytes:
    """The frames with another volume of the day in one quote, which changes no feature."""
    text = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    changed = text.replace(b'"volume":1.0', b'"volume":2.0', 1)
    assert changed != text
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as packed:
        packed.write(changed)
    return bytes(sink.getvalue())


def other_state(data: bytes) -> bytes:
    """The state of the features with one other byte."""
    body = pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()
    return bytes(pa.compress(flip(body), "zstd", asbytes=True))


def other_leaf(data: bytes) -> bytes:
    return re.sub(rb'"leaf": "(\w)', lambda found: b'"leaf": "' + (b"1" if found[1] == b"0" else b"0"), data)


def other_coefficient(data: bytes) -> bytes:
    return re.sub(rb"\d(?=\])", lambda found: b"2" if found[0] == b"1" else b"1", data, count=1)


MEANINGFUL: dict[str, Callable[[bytes], bytes]] = {
    "bid.parquet": with_value("bid_2m_usd", lambda usd: float(np.nextafter(usd, 1e9))),
    "volatility.parquet": with_value("sigma_4m_q90_bps", lambda bps: float(np.nextafter(bps, 1e9))),
    "state.parquet": with_value("level", lambda level: level * 1.001),
    "minutes.parquet": with_value("close", lambda usd: (usd or 60_000.0) * 1.01, row=1_500),
    "proof.json": other_leaf,
    "harx.json": other_coefficient,
    "frames.jsonl.zst": other_frame,
    MANIFEST: as_live,
}
"""Changes of a forger who also puts the new hash into the manifest."""
