"""`btc verify` and `btc roots`: whether a forecast is what it says, and the roots that others can time-stamp.

What does not belong here: the steps of a verification (`btc_core.days.forecast_check`, `btc_core.days.forecast_days`).
"""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from btc_cli import stamps
from btc_cli.options import DataDir, FirstDay, LastDay, require_folder, stack_settings
from btc_core.clock import NS_PER_DAY, from_ns, to_ns
from btc_core.days.forecast_check import USER_MODEL, Check, Step
from btc_core.days.forecast_file import opened_evidence, write_evidence
from btc_core.days.forecast_roots import DAY, closed_periods
from btc_core.days.forecast_search import evidence_of, forecast_at
from btc_core.days.history import History
from btc_core.days.log_archive import read_manifest
from btc_core.errors import InvalidInput
from btc_core.files import atomic_write
from btc_core.models.trees import leave_out_scikit_learn
from btc_core.settings import LeagueSettings
from btc_core.stores.questdb import QuestDB
from btc_core.stores.s3 import ObjectStore
from btc_core.tables.lazy_pandas import leave_out_pandas
from btc_core.utc_day import day_ns

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from btc_core.days.forecast_evidence import Evidence
    from btc_core.days.user_model_again import UserModelRun
    from btc_core.settings import Settings

FITS, OPEN, WRONG = "✓", "…", "✗"
SIMULATED = "The market is SIMULATED."
Symbol = Annotated[str, typer.Option(help="Market, for example BTC/USD. Default: the first that is followed.")]


def verify(  # noqa: PLR0913 - the options of the command
    what: Annotated[
        str,
        typer.Argument(
            help="Time of a forecast (ISO 8601, UTC unless it names a zone), a file of evidence, or an OpenTimestamps file."
        ),
    ] = "",
    *,
    symbol: Symbol = "",
    day: Annotated[str, typer.Option(help="Verify all forecasts of this UTC day, for example 2026-11-28.")] = "",
    export: Annotated[
        Path | None, typer.Option(help="Write the evidence of the forecast to this file, which others can verify.")
    ] = None,
    all_frames: Annotated[
        bool | None,
        typer.Option(
            "--all-frames/--from-state",
            help="Replay all frames that can matter, those of a day (default for --export), or those since the newest state that a "
            "closed hour names.",
        ),
    ] = None,
    run_user_model: Annotated[
        bool,
        typer.Option(
            "--run-user-model",
            help="Run the code of a user's model that made the forecast, in a process with limits, and compare its σ. "
            "Use it only if you trust that code.",
        ),
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Verify what was forecast at a time, on a day, or in a file of evidence, back to the frames of the exchange.

    Each step that fits is printed; the first that does not ends the command with exit code 1. Of an OpenTimestamps file,
    `roots.txt.ots`, the command says what it attests about `roots.txt`.
    """
    require_folder("--export", export)
    leave_out_scikit_learn()
    leave_out_pandas()
    if bool(what) == bool(day) or (day and (export is not None or all_frames is not None)):
        msg = (
            "name the time of a forecast (btc verify 2026-11-28T12:00:07), a file of evidence (btc verify FILE), or a day "
            "(btc verify --day 2026-11-28, which takes neither --export nor --all-frames nor --from-state)"
        )
        raise InvalidInput(msg)
    if day:
        _verify_day(day, symbol, data_dir, run_user_model=run_user_model)
    elif what.endswith(stamps.SUFFIX):
        _show_stamp(Path(what))
    elif _is_file(what):
        if symbol or export is not None or all_frames is not None:
            msg = (
                f"{what} is a file of evidence, which names its market and has its frames; leave out the other options"
            )
            raise InvalidInput(msg)
        with opened_evidence(Path(what)) as evidence:
            _judge(evidence, run_user_model=run_user_model)
    else:
        at_ns = moment_ns(what)
        with opened_market(symbol, data_dir) as (settings, history, store, market):
            forecast = forecast_at(history, market, at_ns)
            chosen = export is not None if all_frames is None else all_frames
            evidence = evidence_of(settings, history, store, market, forecast, all_frames=chosen)
            _verify_evidence(evidence, export, run_user_model=run_user_model)


def _is_file(what: str) -> bool:
    return Path(what).is_file() or what.endswith(".zip")


def _verify_evidence(evidence: Evidence, export: Path | None, *, run_user_model: bool) -> None:
    if export is None:
        _judge(evidence, run_user_model=run_user_model)
        return
    size = write_evidence(export, evidence)
    typer.echo(f"{size / 1e6:.1f} MB of evidence → {export}")
    with opened_evidence(export) as written:
        _judge(written, run_user_model=run_user_model)


@contextmanager
def _user_models(*, run: bool) -> Iterator[UserModelRun | None]:
    """What runs users' models, None if none shall run."""
    if not run:
        yield None
        return
    from btc_core.days.user_model_again import UserModelRun  # noqa: PLC0415 - few verifications run one

    with UserModelRun(LeagueSettings()) as found:
        yield found


def _judge(evidence: Evidence, *, run_user_model: bool) -> None:
    started_s = time.perf_counter()
    if evidence.simulated:
        typer.echo(SIMULATED)
    with _user_models(run=run_user_model) as run:
        steps = _shown(Check(evidence, run).steps())
    waiting = any(step.is_open and step.name != USER_MODEL for step in steps)
    taken = any(step.is_open and step.name == USER_MODEL for step in steps)
    took = f"{time.perf_counter() - started_s:.1f} s"
    if waiting:
        typer.echo(
            f"Everything that exists so far fits ({took}). A root needs a closed hour, five minutes after its end."
        )
    elif taken:
        typer.echo(
            f"All but σ of the user's model is proven ({took}). Compare the root of its day or hour with one that was published."
        )
    else:
        typer.echo(f"The forecast is proven ({took}). Compare the root of its day or hour with one that was published.")


def _shown(steps: Iterable[Step]) -> list[Step]:
    """Print each step as soon as it is done; ends the command at one that does not fit."""
    done = []
    for step in steps:
        done.append(step)
        typer.echo(f"{(OPEN if step.is_open else FITS) if step.fits else WRONG} {step.text}", err=not step.fits)
        if not step.fits:
            raise typer.Exit(1)
    return done


def _verify_day(day: str, symbol: str, data_dir: Path | None, *, run_user_model: bool) -> None:
    from btc_core.days.archive_replay import (  # noqa: PLC0415 - loads the replay of sealed days, which one forecast does not need
        archives_around,
        replay_archived_day,
    )
    from btc_core.days.day_forecasts import LEAD_NS  # noqa: PLC0415
    from btc_core.days.forecast_days import check_day, check_rows  # noqa: PLC0415
    from btc_core.days.state_check import check_states  # noqa: PLC0415

    started_s = time.perf_counter()
    day_ns(day)
    with opened_market(symbol, data_dir) as (settings, history, store, market):
        if settings.simulated:
            typer.echo(SIMULATED)
        found = check_day(history, store, market, day)
        if not found.hours:
            msg = f"no hour of {day} of {market} has a root: nothing was forecast then, or its hours are not closed yet"
            raise InvalidInput(msg)
        for problem in found.problems:
            typer.echo(f"{WRONG} {problem}", err=True)
        if found.problems:
            raise typer.Exit(1)
        root = f"The root of {day} is {found.root}." if found.root else f"The day {day} is not closed yet."
        typer.echo(f"{FITS} The roots of {found.hours} hours of {day} form a chain. {root}")
        typer.echo(
            f"{FITS} {found.stored} stored forecasts are those in the roots; {found.late} came too late for a root."
        )
        if read_manifest(store, day) is None:
            typer.echo(f"{OPEN} {day} has no archive yet, so its feature rows and forecasts are not computed again.")
        else:
            rows = replay_archived_day(store, archives_around(store, day), settings.leader, lead_ns=LEAD_NS)
            with _user_models(run=run_user_model) as run:
                _shown(check_rows(history, store, market, day, rows, run))
            _shown([check_states(history, store, market, day)])
    typer.echo(f"The day is verified ({time.perf_counter() - started_s:.1f} s).")


def _show_stamp(path: Path) -> None:
    found = stamps.read_stamp(path)
    typer.echo(f"{FITS} {path} stamps {path.with_suffix('')}: the hash fits.")
    for height, root in sorted(found.blocks.items()):
        typer.echo(
            f"{FITS} The file existed before Bitcoin block {height} if the Merkle root of that block is {root}. Compare it with "
            "a node or a block explorer, which also tells the time of the block."
        )
    for calendar in found.calendars if not found.blocks else ():
        typer.echo(
            f"{OPEN} The calendar {calendar} promised to put the hash into a Bitcoin block. After some hours, `ots upgrade {path}` "
            "gets the proof from it."
        )
    if found.others:
        typer.echo(
            f"{OPEN} {found.others} attestations are of a kind that this command does not know; see `ots info {path}`."
        )


def roots(
    first: FirstDay,
    last: LastDay,
    out: Annotated[Path, typer.Option(help="Text file to write, with one line for each market and day.")],
    data_dir: DataDir = None,
) -> None:
    """Write the Merkle roots of days to a file that can be time-stamped.

    Whoever has a stamped root of a day can tell that no forecast up to its end was made or changed afterwards.
    """
    require_folder("--out", out)
    begin_ns, end_ns = day_ns(first), day_ns(last) + NS_PER_DAY
    if end_ns <= begin_ns:
        msg = f"{first} is after {last}"
        raise InvalidInput(msg)
    with opened_market("", data_dir) as (settings, history, _store, _market):
        lines = [
            f"{each.name} {symbol} {each.root} closed {from_ns(each.closed_at_ns):%Y-%m-%dT%H:%M:%SZ}"
            + (" SIMULATED" if settings.simulated else "")
            for symbol in settings.exchange.symbols
            for each in closed_periods(history, symbol, begin_ns, end_ns)
            if each.period == DAY
        ]
    if not lines:
        msg = f"no day from {first} to {last} is closed"
        raise InvalidInput(msg)
    with atomic_write(out) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())
    typer.echo(f"{len(lines)} roots → {out}")


@contextmanager
def opened_market(symbol: str, data_dir: Path | None) -> Iterator[tuple[Settings, History, ObjectStore, str]]:
    """The settings of the stack, its tables and its object store, and the market that is meant."""
    settings = stack_settings(data_dir)
    known = settings.exchange.symbols
    if symbol and symbol not in known:
        msg = f"--symbol: {symbol} is not followed; choose from {', '.join(known)}"
        raise InvalidInput(msg)
    with ExitStack() as opened:
        db = opened.enter_context(QuestDB(settings.questdb))
        store = opened.enter_context(ObjectStore(settings.store))
        yield settings, History(db, lambda: store), store, symbol or known[0]


def moment_ns(text: str) -> int:
    """The time in an argument, ns; raises `InvalidInput` if it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        msg = f"{text!r} is neither a file nor a time; write a time as 2026-11-28T12:00:07"
        raise InvalidInput(msg) from None
    return to_ns(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
