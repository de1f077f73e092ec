"""The archive of the log: every message of `market.events` that belongs to a day, compressed on the object store.

A message belongs to the UTC day in which ingest received it. `market.events/<day>/<partition>-<first offset>-<digest>.jsonl.zst`
are the parts of a day: lines that `btc replay` reads, each part with consecutive messages of one partition.
`market.events/<day>/manifest.json` names the parts and is written last, so a reader sees a whole archive or none.
What does not belong here: the comparison with bronze (`archive_proof`), or features of archived days (`archive_replay`).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pyarrow as pa

from btc_core.clock import NS_PER_DAY, NS_PER_S, now_ns
from btc_core.errors import BadFrame, InvalidInput, ServiceError, StoreError
from btc_core.exchanges.recorded_blocks import Block, block_of
from btc_core.exchanges.recorded_lines import BadLine, RecordedMessage, envelope_line
from btc_core.market.messages import decode_envelope
from btc_core.names import EVENTS_TOPIC
from btc_core.stores.kafka import OffsetRange, kept_since, log_id, offset_ranges, read_range
from btc_core.utc_day import day_ns, day_of, days_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from btc_core.market.messages import Envelope
    from btc_core.service_settings import KafkaSettings
    from btc_core.stores.s3 import ObjectStore

PART_TEXT_BYTES = 16 * 1024 * 1024
"""The lines of a part before compression. Writing a part holds about four times as much in memory, and reading one holds
its lines and an index of them (10 MB)."""
COMPRESSION_LEVEL = 9
"""The compression level of zstd; docs/concepts/sealed-days.md has the measurements."""
MARGIN_NS = 1_200 * NS_PER_S
"""How far past the end of a day its messages are looked for. Ingest and repair write to the log independently, so a message
that was received before midnight may follow one that was received after it."""
STATES_FOLDER = "fold_states"
"""Where the states of the features at the ends of closed hours are kept (`fold_states`); without the frames they are of no use."""
NOT_KEPT = "the log no longer holds the whole day"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One object of an archive: consecutive messages of one partition."""

    key: str
    partition: int
    first_offset: int
    last_offset: int
    messages: int
    newest_ns: int
    """The latest receive time of its messages."""
    text_bytes: int
    """The size of its lines before compression."""
    size_bytes: int
    sha256: str
    """The hash of the object's bytes."""


class ArchivedPartition(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive holds of one partition of the log."""

    partition: int
    messages: int
    first_offset: int
    """The offset of the first message of the day; −1 if there is none."""
    last_offset: int
    read_to: int
    """The first offset that was not read. A later run looks for messages of the day from there on."""


class LogArchive(msgspec.Struct, frozen=True, kw_only=True):
    """The description of the archive of a day."""

    day: str
    log_id: str
    """The identity of the log (`stores.kafka.log_id`)."""
    messages: int
    channels: dict[str, int]
    """The number of messages of each channel."""
    text_bytes: int
    size_bytes: int
    text_sha256: str
    """The hash of all lines, partition by partition in the order of the log."""
    partitions: tuple[ArchivedPartition, ...]
    parts: tuple[Part, ...]
    written_at_ns: int


class Archiving(msgspec.Struct, frozen=True):
    """The result of archiving a day."""

    archive: LogArchive | None
    """The archive that the day has now."""
    written: bool
    """Whether this run wrote it."""
    reason: str = ""
    """Why the day has no archive; empty if it has one."""


def _folder(day: str) -> str:
    return f"{EVENTS_TOPIC}/{day}/"


def manifest_key(day: str) -> str:
    """The key of the manifest of a day."""
    return f"{_folder(day)}manifest.json"


def read_manifest(store: ObjectStore, day: str) -> LogArchive | None:
    """The manifest of a day; None when the day has no archive. Raises `StoreError`."""
    body = store.get(manifest_key(day))
    if body is None:
        return None
    try:
        return msgspec.json.decode(body, type=LogArchive)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{store.uri(manifest_key(day))} is not a manifest: {error}") from error


def archived_days(store: ObjectStore) -> list[str]:
    """The days that have an archive, oldest first."""
    return [key.split("/")[1] for key in store.keys(f"{EVENTS_TOPIC}/") if key.endswith("/manifest.json")]


def required_archive(store: ObjectStore, day: str) -> LogArchive:
    """The archive of a day; raises `InvalidInput` with the days that have one if it has none."""
    day_ns(day)
    archive = read_manifest(store, day)
    if archive is not None:
        return archive
    days = archived_days(store)
    known = f"there are archives of {len(days)} days, from {days[0]} to {days[-1]}" if days else "no day has one"
    msg = (
        f"{day} has no archive of its log; {known}. While the log still holds the day, "
        f"`btc backfill --from {day} --to {day} --assets day_archive` makes one"
    )
    raise InvalidInput(msg)


def archive_day(store: ObjectStore, kafka: KafkaSettings, day: str) -> Archiving:
    """Write the archive of a day unless it is whole already.

    An archive is whole if its parts are undamaged and the log has no further message of the day. It is never replaced by one
    with fewer messages. A day of which the log has dropped the beginning gets no archive. Raises `StoreError` when an
    archive is damaged and cannot be replaced, or when the store does not answer, and `ServiceError` when Kafka does not.
    """
    begin_ns = day_ns(day)
    before = read_manifest(store, day)
    damage = "" if before is None else damage_of(store, before)
    current_log = log_id(kafka, EVENTS_TOPIC)
    usable = before is not None and not damage
    if usable and before is not None and before.log_id != current_log:
        return Archiving(before, written=False)
    if not kept_since(kafka, begin_ns):
        if damage:
            raise StoreError(f"{damage}, and {NOT_KEPT}")
        return Archiving(before, written=False, reason="" if before is not None else NOT_KEPT)
    ranges = offset_ranges(kafka, EVENTS_TOPIC, begin_ns, begin_ns + NS_PER_DAY + MARGIN_NS)
    if usable and before is not None and not _has_more(kafka, before, ranges):
        return Archiving(before, written=False)
    archive = _write(store, kafka, day, ranges, current_log)
    least = 0 if before is None else before.messages
    if archive.messages >= max(1, least):
        store.put(manifest_key(day), msgspec.json.encode(archive))
        _delete_unnamed(store, archive)
        return Archiving(archive, written=True)
    if before is None:
        return Archiving(None, written=False, reason="the log has no message of the day")
    _delete_unnamed(store, before)
    found = f"the log has {archive.messages} messages of {day} and its archive {before.messages}, so the archive stays"
    raise StoreError(f"{damage}; {found}" if damage else found)


def damage_of(store: ObjectStore, archive: LogArchive) -> str:
    """What is wrong with the parts of an archive; empty if all have the bytes that were written. Raises `StoreError`."""
    for part in archive.parts:
        body = store.get(part.key)
        if body is None:
            return f"{store.uri(part.key)} is missing"
        if hashlib.sha256(body).hexdigest() != part.sha256:
            return f"{store.uri(part.key)} is damaged"
    return ""


def _has_more(kafka: KafkaSettings, archive: LogArchive, ranges: list[OffsetRange]) -> bool:
    """Whether the log has messages of the day that came after the archive was written."""
    read_to = {each.partition: each.read_to for each in archive.partitions}
    for chosen in ranges:
        begin = max(chosen.begin, read_to.get(chosen.partition, chosen.begin))
        unread = OffsetRange(chosen.partition, begin, chosen.end)
        if any(True for _ in _messages_of_day(kafka, archive.day, unread)):
            return True
    return False


def _messages_of_day(kafka: KafkaSettings, day: str, chosen: OffsetRange) -> Iterator[RecordedMessage]:
    """The messages in a range of offsets that belong to the day; raises `ServiceError` if the log has lost one of them."""
    begin_ns = day_ns(day)
    expected = chosen.begin
    for value, offset in read_range(kafka, EVENTS_TOPIC, chosen):
        if offset != expected:
            msg = f"{EVENTS_TOPIC}[{chosen.partition}] lost the offsets {expected} to {offset - 1} while {day} was archived"
            raise ServiceError(msg)
        expected = offset + 1
        try:
            envelope = decode_envelope(value)
        except BadFrame:  # the workers refused it, too, and it is a dead letter
            continue
        if begin_ns <= envelope.ts_recv_ns < begin_ns + NS_PER_DAY:
            yield RecordedMessage(envelope, chosen.partition, offset)


class _PartWriter:
    """Writes the messages of one partition as parts of bounded size."""

    def __init__(self, store: ObjectStore, day: str, partition: int) -> None:
        self._store = store
        self._day = day
        self._partition = partition
        self._lines: list[bytes] = []
        self._text_bytes = 0
        self._offsets: list[int] = []
        self._newest_ns = 0
        self.parts: list[Part] = []

    def add(self, line: bytes, message: RecordedMessage) -> None:
        self._lines.append(line)
        self._text_bytes += len(line)
        self._offsets.append(message.offset)
        self._newest_ns = max(self._newest_ns, message.envelope.ts_recv_ns)
        if self._text_bytes >= PART_TEXT_BYTES:
            self.close_part()

    def close_part(self) -> None:
        """Write the lines since the last part, read them back and compare them; raises `StoreError`."""
        if not self._lines:
            return
        text = b"".join(self._lines)
        self._lines = []
        body = pa.Codec("zstd", compression_level=COMPRESSION_LEVEL).compress(text, asbytes=True)
        sha256 = hashlib.sha256(body).hexdigest()
        key = f"{_folder(self._day)}{self._partition}-{self._offsets[0]:012}-{sha256[:16]}.jsonl.zst"
        self._store.put(key, body)
        stored = self._store.get(key)
        if stored != body or pa.decompress(stored, len(text), "zstd", asbytes=True) != text:
            raise StoreError(f"{self._store.uri(key)} does not hold the bytes that were written")
        self.parts.append(
            Part(
                key=key,
                partition=self._partition,
                first_offset=self._offsets[0],
                last_offset=self._offsets[-1],
                messages=len(self._offsets),
                newest_ns=self._newest_ns,
                text_bytes=len(text),
                size_bytes=len(body),
                sha256=sha256,
            )
        )
        self._text_bytes, self._offsets, self._newest_ns = 0, [], 0


def _write(
    store: ObjectStore, kafka: KafkaSettings, day: str, ranges: list[OffsetRange], current_log: str
) -> LogArchive:
    """Write the parts of a day, and return the manifest, which is not written yet."""
    digest = hashlib.sha256()
    channels: dict[str, int] = {}
    parts: list[Part] = []
    partitions: list[ArchivedPartition] = []
    for chosen in ranges:
        writer = _PartWriter(store, day, chosen.partition)
        for message in _messages_of_day(kafka, day, chosen):
            line = envelope_line(message.envelope, message.partition, message.offset)
            digest.update(line)
            channel = message.envelope.channel
            channels[channel] = channels.get(channel, 0) + 1
            writer.add(line, message)
        writer.close_part()
        parts += writer.parts
        partitions.append(
            ArchivedPartition(
                partition=chosen.partition,
                messages=sum(part.messages for part in writer.parts),
                first_offset=writer.parts[0].first_offset if writer.parts else -1,
                last_offset=writer.parts[-1].last_offset if writer.parts else -1,
                read_to=chosen.end,
            )
        )
    return LogArchive(
        day=day,
        log_id=current_log,
        messages=sum(part.messages for part in parts),
        channels=channels,
        text_bytes=sum(part.text_bytes for part in parts),
        size_bytes=sum(part.size_bytes for part in parts),
        text_sha256=digest.hexdigest(),
        partitions=tuple(partitions),
        parts=tuple(parts),
        written_at_ns=now_ns(),
    )


def _delete_unnamed(store: ObjectStore, archive: LogArchive) -> None:
    """Delete the parts of a day that its manifest does not name: those of an interrupted run or of an older archive."""
    named = {manifest_key(archive.day), *(part.key for part in archive.parts)}
    for key in store.keys(_folder(archive.day)):
        if key not in named:
            store.delete(key)


def read_archive(
    store: ObjectStore, archive: LogArchive, partition: int, begin_ns: int = 0
) -> Iterator[RecordedMessage]:
    """Yield the messages of one partition in the order of the log, from the receive time `begin_ns` on.

    Raises `StoreError` for a part that is missing or damaged.
    """
    return in_log_order(store, [archive], partition, begin_ns)


def in_log_order(
    store: ObjectStore, archives: Sequence[LogArchive], partition: int, begin_ns: int
) -> Iterator[RecordedMessage]:
    """The messages of a partition in several days, oldest day first, in the order of the log; see `blocks_in_log_order`."""
    for block in blocks_in_log_order(store, archives, partition, begin_ns):
        yield from block.messages()


def blocks_in_log_order(
    store: ObjectStore, archives: Sequence[LogArchive], partition: int, begin_ns: int
) -> Iterator[Block]:
    """The messages of a partition that were received from `begin_ns` on, in the order of the log.

    Around midnight the messages of two days alternate; parts of two days that overlap become one block. Offsets of different
    logs cannot be compared; the messages of the older log come first. Raises `StoreError` for a part that is missing or
    damaged.
    """
    for log in dict.fromkeys(archive.log_id for archive in archives):
        parts = [
            part
            for archive in archives
            if archive.log_id == log
            for part in archive.parts
            if part.partition == partition and part.newest_ns >= begin_ns
        ]
        for group in _overlapping(sorted(parts, key=lambda part: part.first_offset)):
            block = _read_parts(store, group)
            yield block.where(block.lines["received_ns"] >= begin_ns)


def _overlapping(parts: list[Part]) -> Iterator[list[Part]]:
    """Parts in the order of their first offsets, those that overlap together."""
    group: list[Part] = []
    for part in parts:
        if group and part.first_offset > max(each.last_offset for each in group):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def _read_parts(store: ObjectStore, parts: list[Part]) -> Block:
    blocks = [_read_part(store, part) for part in parts]
    if len(blocks) == 1:
        return blocks[0]
    lines = []
    at = 0
    for block in blocks:
        moved = block.lines.copy()
        for name in ("begin", "end", "origin", "frame"):
            moved[name] += at
        lines.append(moved)
        at += len(block.text)
    together = np.concatenate(lines)
    return Block(b"".join(block.text for block in blocks), together[np.argsort(together["offset"], kind="stable")])


def _read_part(store: ObjectStore, part: Part) -> Block:
    body = store.get(part.key)
    if body is None or hashlib.sha256(body).hexdigest() != part.sha256:
        what = "is missing" if body is None else "is damaged"
        raise StoreError(f"{store.uri(part.key)} {what}; its manifest names {part.messages} messages")
    block = block_of(pa.decompress(body, part.text_bytes, "zstd", asbytes=True))
    if isinstance(block, BadLine):
        raise StoreError(f"{store.uri(part.key)}, line {block.line}: {block.message}")
    return block


def messages_between(store: ObjectStore, begin_ns: int, end_ns: int) -> Iterator[tuple[Envelope, int, int]]:
    """The messages that were received in a time range, as far as days have archives, as `read_all` yields them."""
    found = (read_manifest(store, day) for day in days_between(day_of(begin_ns), day_of(end_ns)))
    archives = [archive for archive in found if archive is not None]
    for partition in sorted({each.partition for archive in archives for each in archive.partitions}):
        for message in in_log_order(store, archives, partition, begin_ns):
            if message.envelope.ts_recv_ns < end_ns:
                yield message.envelope, message.partition, message.offset


def expire(store: ObjectStore, keep_days: int, today_ns: int) -> list[str]:
    """Remove the archives of days that are older than `keep_days`, and the states of their hours; returns the keys removed.

    The manifest of a day goes first, so no reader meets an archive without some of its parts.
    """
    removed = []
    kept = [*store.keys(f"{EVENTS_TOPIC}/"), *store.keys(f"{STATES_FOLDER}/")]
    for key in sorted(kept, key=lambda key: not key.endswith("/manifest.json")):
        if day_ns(key.split("/")[1]) < today_ns - keep_days * NS_PER_DAY:
            store.delete(key)
            removed.append(key)
    return removed
