"""`btc replay` and `btc record`: recordings of exchange frames, made from the log and replayed into feature rows.

What does not belong here: the format of a recording (`btc_core.exchanges.recorded_lines`), and the replay itself
(`btc_core.features.file_replay`, `btc_core.days.archive_replay`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import pyarrow.parquet as pq
import typer

from btc_cli.options import DataDir, open_stack, require_folder
from btc_core.days.archive_replay import StoredRows, archives_around, replay_archived_day, stored_rows
from btc_core.errors import InvalidInput, ServiceError, StackError
from btc_core.exchanges.recorded_lines import envelope_line
from btc_core.features.file_replay import replay_file, rows_table
from btc_core.features.user.values import UserFeatures
from btc_core.files import atomic_write
from btc_core.settings import Settings
from btc_core.stores.kafka import read_all
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from btc_core.days.archive_replay import ReplayComparison
    from btc_core.service_settings import QuestdbSettings

SHOWN_BAD_LINES = 20


def replay(  # noqa: PLR0913 - every option of the command is an argument
    file: Annotated[
        Path | None, typer.Argument(help="Recording with one frame per line; it may be packed by gzip or zstd.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Parquet file to write the feature rows to. A day needs none.")
    ] = None,
    exchange: Annotated[
        str, typer.Option(help="Exchange that sent the frames: kraken, coinbase, binance or binance-perp.")
    ] = "kraken",
    *,
    leader: Annotated[
        str, typer.Option(help="Market in the recording that the others follow, as BTC_LEADER. A day uses BTC_LEADER.")
    ] = "",
    day: Annotated[str, typer.Option(help="Replay the archive of this UTC day instead of a file.")] = "",
    symbol: Annotated[str, typer.Option(help="Market whose rows are wanted. Default: all of the day.")] = "",
    data_dir: DataDir = None,
) -> None:
    """Compute the feature rows of a recording or of an archived day with the code that the live stream uses.

    Lines of a file that cannot be used are reported and skipped. If no line gives a feature row, nothing is written and the
    exit code is 1. The rows of a day are also compared with those in `silver_features`, and the user's own features with those in
    `silver_user_features`. The rows of a file have the features of the stack, or, without a stack, those in `BTC_USER_DIR`.
    """
    if bool(day) == (file is not None):
        msg = "name either a recording, or a day with --day"
        raise InvalidInput(msg)
    if out is not None and out.suffix != ".parquet":
        msg = f"--out {out}: the rows are written as Parquet, so the suffix must be .parquet"
        raise InvalidInput(msg)
    require_folder("--out", out)
    if day:
        _replay_day(day, symbol, out, data_dir)
    elif file is not None and out is not None and not symbol:
        _replay_file(file, out, exchange, leader, data_dir)
    else:
        msg = "a recording needs --out, the file for its rows, and takes no --symbol"
        raise InvalidInput(msg)


def _replay_file(file: Path, out: Path, exchange: str, leader: str, data_dir: Path | None) -> None:
    started_s = time.perf_counter()
    features = _own_features(data_dir)
    result = replay_file(file, exchange, leader, features)
    table = rows_table(result.rows, features)
    for bad in result.bad[:SHOWN_BAD_LINES]:
        typer.echo(f"{file}, line {bad.line}: {bad.message}", err=True)
    if len(result.bad) > SHOWN_BAD_LINES:
        typer.echo(f"… and {len(result.bad) - SHOWN_BAD_LINES} more", err=True)
    if not len(table):
        msg = (
            f"none of the {result.frames} lines of {file} gave a feature row, so nothing was written. A line is a frame of "
            f"{exchange}, or a receive time in ns, a space and a frame"
        )
        raise InvalidInput(msg)
    pq.write_table(table, out, compression="zstd")
    took_s = time.perf_counter() - started_s
    typer.echo(f"{result.frames} frames, {len(table)} feature rows, {len(result.bad)} problems, {took_s:.1f} s → {out}")


def _own_features(data_dir: Path | None) -> UserFeatures | None:
    """The features of the stack's user; without a stack, those in `BTC_USER_DIR`."""
    try:
        settings = open_stack(data_dir).settings
    except StackError:
        if data_dir is not None:
            raise
        settings = Settings()
    return UserFeatures.in_folder(settings.user_features)


def _replay_day(day: str, symbol: str, out: Path | None, data_dir: Path | None) -> None:
    started_s = time.perf_counter()
    settings = open_stack(data_dir).settings
    features = UserFeatures.in_folder(settings.user_features)
    rows = 0
    with ExitStack() as opened:
        store = opened.enter_context(ObjectStore(settings.store))
        chosen = archives_around(store, day)
        if chosen.missing_days:
            typer.echo(
                f"there is no archive of {' and '.join(chosen.missing_days)}, so features over windows that begin before "
                "the oldest archived message may differ from those of the stream",
                err=True,
            )
        stored = _stored_rows(opened, settings.questdb, day, features)
        written = None if out is None else opened.enter_context(_parquet(out, features))
        for batch in replay_archived_day(store, chosen, settings.leader, features):
            if symbol and batch.symbol != symbol:
                continue
            rows += len(batch.ids)
            if written is not None:
                written.write_table(rows_table([batch], features))
            if stored is not None:
                stored.take(batch)
        if not rows:
            msg = f"the archive of {day} gave no feature row{f' of {symbol}' if symbol else ''}; nothing was written"
            raise InvalidInput(msg)
        compared = None if stored is None else stored.result()
    took_s = time.perf_counter() - started_s
    messages = chosen.archives[-1].messages
    typer.echo(f"{messages} messages of {day}, {rows} feature rows, {took_s:.1f} s" + (f" → {out}" if out else ""))
    typer.echo(_comparison_text(day, compared))


@contextmanager
def _parquet(out: Path, features: UserFeatures | None) -> Iterator[pq.ParquetWriter]:
    """A Parquet file of feature rows that appears at `out` when the block has ended without an error."""
    with (
        atomic_write(out) as file,
        pq.ParquetWriter(file, rows_table([], features).schema, compression="zstd") as writer,
    ):
        yield writer


def _stored_rows(
    opened: ExitStack, questdb: QuestdbSettings, day: str, features: UserFeatures | None
) -> StoredRows | None:
    """The stored feature rows of a day; None if QuestDB has none or does not answer."""
    try:
        db = opened.enter_context(QuestDB(questdb))
        return StoredRows(db, day, features) if stored_rows(db, day, "") else None
    except ServiceError as error:
        typer.echo(f"the rows are not compared: {error}", err=True)
        return None


def _comparison_text(day: str, compared: ReplayComparison | None) -> str:
    if compared is None:
        return f"QuestDB has no feature rows of {day} to compare them with"
    text = f"{compared.equal} of {compared.rows} rows equal those in silver_features to the last bit"
    if compared.user_values:
        text = f"{text}, and {compared.user_equal} of {compared.user_values} values of your own features equal those in silver_user_features"
    if compared.equal == compared.rows and compared.user_equal == compared.user_values and not compared.not_replayed:
        return text
    return (
        f"{text}; {compared.different} differ ({compared.other_version} of them are of another feature version), "
        f"{compared.not_stored} are not stored, and {compared.not_replayed} stored rows were not replayed. Late trades, "
        "which a seal puts in their place, explain such differences"
    )


def record(
    out: Annotated[
        Path, typer.Option(help="File to write, one `<receive time in ns>@<place in the log> <frame>` per line.")
    ],
    data_dir: DataDir = None,
) -> None:
    """Write all messages of the Kafka topic `market.events` to a file for `btc replay`."""
    require_folder("--out", out)
    settings = open_stack(data_dir).settings
    frames = 0
    with atomic_write(out) as file:
        for envelope, partition, offset in read_all(settings.kafka):
            file.write(envelope_line(envelope, partition, offset))
            frames += 1
    typer.echo(f"{frames} frames → {out}")
