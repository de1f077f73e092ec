"""The evidence of a forecast as one file, which anyone can verify with this program and without our servers.

The file is a ZIP archive of plain data, without pickles:

```
manifest.json                 the market, the leader, and the SHA-256 of the other entries
bid.parquet, volatility.parquet     the two rows of the forecast
state.parquet, minutes.parquet      what the forecast read beside its feature row
proof.json                    the roots of the hours and the day, and the proofs of inclusion
models/HASH/…                 the files of the two models
start.zst                     the state of the features that the frames continue; missing if they are all that can matter
frames.jsonl.zst              the frames, as `btc replay` reads them
```

What does not belong here: judging the evidence (`forecast_check`).
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from btc_core.days.forecast_evidence import Evidence, Proof
from btc_core.days.forecast_hours import horizons_of
from btc_core.errors import InvalidInput
from btc_core.exchanges.recorded_blocks import Block, block_of, read_ahead
from btc_core.exchanges.recorded_lines import BadLine
from btc_core.files import atomic_write
from btc_core.tables.arrow import arrow_schema, read_parquet
from btc_core.tables.catalogue import BID_PREDICTION, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_MINUTES, FORECAST_STATES
from btc_core.version import git_commit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.days.fold_states import FoldState

FORM = 2
"""Version of the archive. A file of a form that is not in `READ_FORMS` is refused."""
READ_FORMS = (1, FORM)
"""Form 1 has no state to start from."""
MANIFEST, PROOF, FRAMES, START = "manifest.json", "proof.json", "frames.jsonl.zst", "start.zst"
TABLES = {
    "bid": BID_PREDICTION,
    "volatility": VOLATILITY_PREDICTION,
    "state": FORECAST_STATES,
    "minutes": FORECAST_MINUTES,
}
"""The tables in the archive by their field of the evidence."""
MODELS = "models/"
BLOCK_BYTES = 16 * 1024 * 1024
"""How much of the frames is read at a time."""
_PIECE = 1024 * 1024
_EARLIEST = (1980, 1, 1, 0, 0, 0)


class EvidenceManifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive says of itself."""

    form: int = FORM
    symbol: str
    leader: str
    simulated: bool
    program: str
    """The commit of the program that wrote it; empty if it is not known."""
    files: dict[str, str]
    """SHA-256 of the other entries."""


def write_evidence(path: Path, evidence: Evidence) -> int:
    """Write the evidence of a forecast to a file, and return its size in bytes; raises `ServiceError` if frames are missing."""
    entries = {f"{name}.parquet": _parquet(getattr(evidence, name)) for name in TABLES}
    entries[PROOF] = msgspec.json.format(msgspec.json.encode(evidence.proof), indent=1)
    for digest, files in evidence.bundles.items():
        entries |= {f"{MODELS}{digest}/{name}": data for name, data in files.items()}
    if evidence.start:
        entries[START] = pa.compress(evidence.start, "zstd", asbytes=True)
    with tempfile.TemporaryDirectory(prefix="btc-frames-") as folder:
        frames = Path(folder) / FRAMES
        _write_frames(frames, evidence)
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in entries.items()}
        with frames.open("rb") as file:
            digests[FRAMES] = hashlib.file_digest(file, "sha256").hexdigest()
        manifest = EvidenceManifest(
            symbol=evidence.symbol,
            leader=evidence.leader,
            simulated=evidence.simulated,
            program=git_commit(),
            files=digests,
        )
        entries[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
        with atomic_write(path) as out, zipfile.ZipFile(out, "w") as archive:
            for name, data in sorted(entries.items()):
                archive.writestr(zipfile.ZipInfo(name, _EARLIEST), data, zipfile.ZIP_DEFLATED)
            archive.write(frames, FRAMES)
    return path.stat().st_size


@contextmanager
def opened_evidence(path: Path) -> Iterator[Evidence]:
    """The evidence in a file, for the length of a block; raises `InvalidInput` if it is damaged or no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield _read(path, archive)
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        msg = f"{path} is no evidence of a forecast, or is damaged: {error}"
        raise InvalidInput(msg) from error


def _read(path: Path, archive: zipfile.ZipFile) -> Evidence:
    try:
        manifest = msgspec.json.decode(archive.read(MANIFEST), type=EvidenceManifest)
    except msgspec.MsgspecError as error:
        msg = f"{MANIFEST} in {path} cannot be read: {error}"
        raise InvalidInput(msg) from error
    if manifest.form not in READ_FORMS:
        forms = " and ".join(map(str, READ_FORMS))
        msg = (
            f"{path} has form {manifest.form}, and this program reads the forms {forms}; use program {manifest.program}"
        )
        raise InvalidInput(msg)
    for name, digest in manifest.files.items():
        if _digest(archive, name) != digest:
            msg = f"{name} in {path} was changed: its SHA-256 is not the one in {MANIFEST}"
            raise InvalidInput(msg)
    try:
        proof = msgspec.json.decode(archive.read(PROOF), type=Proof)
        stored = {name: _stored(archive, name) for name in TABLES}
        tables: dict[str, Any] = {name: _known(name, rows) for name, rows in stored.items()}
        horizons_min = horizons_of(stored["volatility"])
    except (msgspec.MsgspecError, pa.ArrowException) as error:
        msg = f"{path} cannot be read: {error}"
        raise InvalidInput(msg) from error
    bundles: dict[str, dict[str, bytes]] = {}
    for name in manifest.files:
        if name.startswith(MODELS):
            digest, _, file = name.removeprefix(MODELS).partition("/")
            bundles.setdefault(digest, {})[file] = archive.read(name)
    evidence = Evidence(
        symbol=manifest.symbol,
        **tables,
        horizons_min=horizons_min,
        bundles=bundles,
        proof=proof,
        leader=manifest.leader,
        simulated=manifest.simulated,
        source=path.name,
        blocks=lambda: _frames(path, archive),
    )
    if START not in manifest.files:
        return evidence
    return msgspec.structs.replace(evidence, start=_start(path, archive, evidence.named_start))


def _start(path: Path, archive: zipfile.ZipFile, named: FoldState | None) -> bytes:
    if named is None:
        raise InvalidInput(f"{path} has {START}, but the first hour of {PROOF} names no state")
    try:
        return bytes(pa.decompress(archive.read(START), named.size_bytes, "zstd", asbytes=True))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        msg = f"{START} in {path} cannot be read: {error}"
        raise InvalidInput(msg) from error


def _digest(archive: zipfile.ZipFile, name: str) -> str:
    digest = hashlib.sha256()
    with archive.open(name) as entry:
        while piece := entry.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def _stored(archive: zipfile.ZipFile, name: str) -> pa.Table:
    """A table of the file as it was written."""
    return read_parquet(archive.read(f"{name}.parquet"))


def _known(name: str, rows: pa.Table) -> pa.Table:
    """A table of the file with the columns that this release knows."""
    schema = arrow_schema(TABLES[name])
    known = [field for field in schema if field.name in rows.column_names]
    found = rows.select([field.name for field in known]).cast(pa.schema(known))
    if name in {"bid", "volatility"} and len(found) != 1:
        msg = f"{name}.parquet has {len(found)} rows instead of one"
        raise pa.ArrowInvalid(msg)
    return found


def _write_frames(path: Path, evidence: Evidence) -> None:
    """Write the frames behind the forecast, up to the end of its hour in the log if that is closed."""
    (row,) = evidence.bid.select(["kafka_partition", "kafka_offset"]).to_pylist()
    newest = evidence.proof.hours[-1:]
    ranges = [each for proven in newest for each in proven.hour.hour_header.log]
    last = max([row["kafka_offset"], *(each.end - 1 for each in ranges if each.partition == row["kafka_partition"])])
    with pa.OSFile(str(path), "wb") as file, pa.CompressedOutputStream(file, "zstd") as packed:
        for block in read_ahead(evidence.blocks()):
            if not len(block.lines):
                continue
            packed.write(block.where(block.lines["offset"] <= last).recording())
            if block.lines["offset"][-1] >= last:
                break


def _frames(path: Path, archive: zipfile.ZipFile) -> Iterator[Block]:
    rest, number = b"", 0
    with archive.open(FRAMES) as entry:
        stream = pa.CompressedInputStream(pa.PythonFile(entry, "r"), "zstd")
        while piece := stream.read(BLOCK_BYTES):
            whole, break_, rest = (rest + piece).rpartition(b"\n")
            block = block_of(whole + break_)
            if isinstance(block, BadLine):
                msg = f"{FRAMES} in {path}, line {number + block.line}: {block.message}"
                raise InvalidInput(msg)
            number += len(block.lines)
            yield block
    if rest:
        msg = f"{FRAMES} in {path}, line {number + 1}, has no end"
        raise InvalidInput(msg)
