"""Forecasts on real servers: made, closed into roots, computed again from the frames, exported, tampered with and sealed."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, from_ns, now_ns
from btc_core.days import state_check
from btc_core.days.archive_replay import archives_around, replay_archived_day
from btc_core.days.day_forecasts import LEAD_NS
from btc_core.days.fold_states import state_key
from btc_core.days.forecast_check import Check
from btc_core.days.forecast_days import check_day, check_rows
from btc_core.days.forecast_file import write_evidence
from btc_core.days.forecast_hours import HOUR_NS
from btc_core.days.forecast_past import past_forecast
from btc_core.days.forecast_roots import CLOSE_GRACE_S, DAY, HOUR, Closer, closed_periods
from btc_core.days.forecast_search import evidence_of, forecast_at
from btc_core.days.history import History
from btc_core.days.log_archive import archive_day
from btc_core.days.state_check import check_states
from btc_core.errors import BtcError, InvalidInput
from btc_core.market.bars import BARS
from btc_core.models import pretrained
from btc_core.models.bundle import random_walk_model
from btc_core.models.level import sigma_factor
from btc_core.names import BID, VOLATILITY, ModelKey
from btc_core.registry.champions import Champions
from btc_core.stores.kafka_topics import ensure_topics
from btc_core.stores.questdb import QuestDB, wait_until_applied, write_rows
from btc_core.stores.s3 import ObjectStore
from btc_core.tables import rows as table_rows
from btc_core.tables.catalogue import BID_PREDICTION, MINUTE_BARS, VOLATILITY_PREDICTION
from btc_core.tables.proof_tables import FORECAST_STATES
from btc_core.tables.sql import within
from btc_core.utc_day import day_of
from streaming import features
from streaming.forecast import SPEC, ForecastHandler
from streaming.worker import Worker
from tests.service.forged_evidence import MEANINGFUL, failing, flip, other_frame, other_state, rewritten
from tests.service.workers import Running, count, market, publish
from tests.unit.btc_core.features.test_minute_columns import market as bars_of_market
from tests.waiting import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from btc_core.days.forecast_check import Step
    from btc_core.days.forecast_evidence import Evidence
    from btc_core.days.forecast_roots import ClosedPeriod
    from btc_core.settings import Settings
    from btc_core.tables.form import Table
    from stack.runtime import Stack

SECONDS = 9 * 60
STEPS = ["record", "root", "chain", "day", "frames", "row", "models", "leaf", "forecast"]


class Holder:
    """A model holder with the random walk, and the pre-trained model on the bars of the market."""

    def __init__(self, symbol: str, bars: np.ndarray) -> None:
        volatility = pretrained.model_of_bars(pretrained.shipped(), bars)
        models = {ModelKey(symbol, BID): random_walk_model(), ModelKey(symbol, VOLATILITY): volatility}
        self.current = Champions((symbol,), models)  # type: ignore[arg-type]


class PastClock:
    """The clock of the machine, some time ago."""

    def __init__(self, behind_ns: int) -> None:
        self._behind_ns = behind_ns

    def now_ns(self) -> int:
        return now_ns() - self._behind_ns

    def monotonic_s(self) -> float:
        return time.monotonic()


class System:
    """The servers, a market whose forecasts went through the workers, and what reads them."""

    def __init__(self, settings: Settings, symbol: str) -> None:
        self.settings = settings
        self.symbol = symbol
        self.db = QuestDB(settings.questdb)
        self.store = ObjectStore(settings.store)
        self.history = History(self.db, lambda: self.store)
        made = self.db.execute(
            f"SELECT cast(max(made_at) AS LONG) FROM {BID_PREDICTION.name} WHERE symbol = '{symbol}'"
        )
        self.last_ns = int(made[0][0])
        """When the last forecast was made."""

    @property
    def hour_ns(self) -> int:
        return self.last_ns // HOUR_NS * HOUR_NS

    def steps(self, at_ns: int | None = None) -> list[Step]:
        forecast = forecast_at(self.history, self.symbol, at_ns or self.last_ns)
        return list(Check(evidence_of(self.settings, self.history, self.store, self.symbol, forecast)).steps())

    def close(self, end_ns: int) -> list[Any]:
        """Close what is over five minutes after `end_ns`."""
        closer = Closer(self.history, self.settings, self.store)
        return closer.close(self.symbol, end_ns + (CLOSE_GRACE_S + 1) * NS_PER_S)

    def rewrite(self, table: Table, at_ns: int | None = None, **changes: Any) -> None:
        """Write the row of a forecast, by default of the last one, again with other values."""
        row = forecast_at(self.history, self.symbol, at_ns or self.last_ns)[0 if table is BID_PREDICTION else 1]
        for name, value in changes.items():
            field = row.schema.field(name)
            row = row.set_column(row.column_names.index(name), field, pa.array([value], field.type))
        write_rows(self.db, table, row)


MINUTE_OF_HOUR = 45
HOURS_AGO = 4


def in_hour(hour_ns: int) -> PastClock:
    """A clock that shows the same minute of a past hour now, whatever the time is; the hour is given by its begin."""
    return PastClock(now_ns() - hour_ns - MINUTE_OF_HOUR * NS_PER_MIN)


@pytest.fixture(scope="module")
def system(own_stack: Stack) -> Iterator[System]:
    """A market that was forecast with two workers, one after the other, in the hour that began `HOURS_AGO` full hours ago.

    Tests derive every other time from `hour_ns` of it, because an hour or a day may end while they run.
    """
    own_stack.up(only=("questdb", "kafka", "valkey", "store"))
    settings, symbol = own_stack.settings, own_stack.settings.exchange.symbols[0]
    ensure_topics(settings)
    clock = in_hour((now_ns() // HOUR_NS - HOURS_AGO) * HOUR_NS)
    begin_ns = clock.now_ns() // NS_PER_MIN * NS_PER_MIN
    bars = bars_of_market(2 * 1440, begin_ns - 2 * NS_PER_DAY - (SECONDS + 120) * NS_PER_S // NS_PER_MIN * NS_PER_MIN)
    assert bars.dtype == BARS
    sent = list(market(symbol, SECONDS, 11, clock.now_ns()))
    with QuestDB(settings.questdb) as db:
        write_rows(db, MINUTE_BARS, table_rows.minute_bars(bars, symbol, "history"))
        holder = Holder(symbol, bars)
        with Running(features.build(settings)):
            for part, rows in ((sent[: len(sent) // 2], 7 * SECONDS), (sent[len(sent) // 2 :], 14 * SECONDS)):
                publish(settings, symbol, part)
                handler = ForecastHandler(settings, holder, clock)  # type: ignore[arg-type]
                with Running(Worker(settings, SPEC, handler)):
                    wait_for(lambda: count(db, VOLATILITY_PREDICTION.name, symbol) == rows, "forecasts")  # noqa: B023
    system = System(settings, symbol)
    yield system
    system.history.close()
    system.db.close()


@pytest.mark.timeout(900)
def test_a_forecast_is_computed_again_to_the_last_bit_before_its_hour_is_closed(system: System) -> None:
    steps = system.steps()
    assert [step.name for step in steps] == ["record", "root", "frames", "row", "models", "leaf", "forecast"]
    assert all(step.fits for step in steps), [step.text for step in steps]
    assert "equal to the last bit" in steps[-1].text
    columns = system.db.execute(
        f"SELECT DISTINCT model_kind FROM {VOLATILITY_PREDICTION.name} WHERE symbol = '{system.symbol}'"
    )
    assert columns == [["xgboost"]]
    made = system.db.execute(
        f"SELECT cast(made_at AS LONG) FROM {VOLATILITY_PREDICTION.name} WHERE symbol = '{system.symbol}' "
        "AND sigma_1m_bps IS NOT NULL"
    )
    times = sorted({int(row[0]) for row in made})
    for at_ns in times[:: len(times) // 6]:
        found = system.steps(at_ns)
        assert all(step.fits for step in found), [step.text for step in found]
        assert "equal to the last bit" in found[-1].text


def test_a_time_without_a_forecast_is_refused_with_the_times_that_have_one(system: System) -> None:
    with pytest.raises(InvalidInput, match=r"was in force at 2001-.*those in QuestDB were made from"):
        forecast_at(system.history, system.symbol, 10**18)


def test_a_closed_hour_proves_a_forecast_and_shows_what_was_changed(system: System) -> None:
    closer, day = Closer(system.history, system.settings, system.store), day_of(system.hour_ns)
    assert closer.has_open_hours(system.symbol, day)
    (hour,) = (each for each in system.close(system.hour_ns + HOUR_NS) if each.period == HOUR)
    assert hour.begin_ns == system.hour_ns
    assert not closer.has_open_hours(system.symbol, day)
    header = hour.hour_header
    assert header.forecasts == hour.leaves - 1 == forecasts_in(system, system.hour_ns)
    assert any(each.end > each.first for each in header.log)
    assert len(header.bundles) == 2
    assert header.simulated
    assert not system.close(system.hour_ns + HOUR_NS), "an hour is closed once"
    steps = system.steps()
    assert [step.name for step in steps] == STEPS
    assert all(step.fits for step in steps), [step.text for step in steps]

    _, volatility = forecast_at(system.history, system.symbol, system.last_ns)
    sigma = volatility["sigma_3m_bps"][0].as_py()
    system.rewrite(VOLATILITY_PREDICTION, sigma_3m_bps=float(np.nextafter(sigma, 1e9)))
    changed = system.steps()
    assert [step.name for step in changed if not step.fits] == ["root"]
    assert "its row was changed or added after that" in changed[-1].text
    day = day_of(system.last_ns)
    found = check_day(system.history, system.store, system.symbol, day)
    assert (found.changed, found.missing) == (1, 1)
    assert "1 forecasts that are in the roots are not stored as they were" in found.problems
    write_rows(system.db, VOLATILITY_PREDICTION, volatility)
    bid, _ = forecast_at(system.history, system.symbol, system.last_ns)
    assert bid["quality"].to_pylist()[0] in {"good", "degraded", "poor"}
    system.rewrite(BID_PREDICTION, quality="of the forger")
    assert [step.name for step in system.steps() if not step.fits] == ["root"], "the quality is part of the leaf"
    write_rows(system.db, BID_PREDICTION, bid)
    assert check_day(system.history, system.store, system.symbol, day).problems == ()


def test_the_time_machine_shows_a_forecast_as_it_was_and_as_it_would_have_been(system: System) -> None:
    found = past_forecast(system.history, system.store, system.symbol, system.last_ns)
    assert found.equals_stored
    bid, _ = forecast_at(system.history, system.symbol, system.last_ns)
    assert found.features["bid"] == bid["bid"][0].as_py()
    assert found.explanation.trees
    assert math.isclose(
        math.exp(0.5 * found.explanation.log_variance) * 1e4 * sigma_factor(found.state.level),
        found.forecast.sigma_path_bps[-1],
        rel_tol=1e-4,
    )
    same = found.with_model(found.models[1])
    assert msgspec.msgpack.encode(same) == msgspec.msgpack.encode(found.forecast)
    baseline = found.with_model(found.models[1].as_baseline())
    assert baseline.volatility_model_kind == "harx"
    assert baseline.sigma_path_bps == found.forecast.baseline_sigma_path_bps
    without = found.without(("log_rv_5m", "log_gk_60m"))
    assert without.sigma_path_bps != found.forecast.sigma_path_bps
    with pytest.raises(InvalidInput, match="moon is no input of the models; the inputs are"):
        found.without(("moon",))


def test_a_late_forecast_enters_no_closed_root_and_is_listed_apart(system: System) -> None:
    hour = closed_periods(system.history, system.symbol, system.hour_ns, system.hour_ns + HOUR_NS)[0]
    bid, _ = forecast_at(system.history, system.symbol, system.last_ns)
    offset = bid["kafka_offset"][0].as_py() + 1_000_000
    # One forecast that says it was made in the closed hour, and one of the next hour, which gives that a root.
    for add, made_ns in ((0, system.last_ns), (1, system.hour_ns + HOUR_NS + 1)):
        for table in (BID_PREDICTION, VOLATILITY_PREDICTION):
            system.rewrite(table, kafka_offset=offset + add, made_at=made_ns)
    (following,) = (each for each in system.close(system.hour_ns + 2 * HOUR_NS) if each.period == HOUR)
    header = following.hour_header
    assert header.previous == hour.root
    assert [each.first for each in header.log] == [each.end for each in hour.hour_header.log]
    assert (header.forecasts, header.late_forecasts) == (1, 1)
    assert (header.late[0].hour, header.late[0].place.split(":")[1]) == (hour.name, str(offset))
    found = check_day(system.history, system.store, system.symbol, day_of(system.last_ns))
    assert (found.problems, found.late) == ((), 1)
    late = system.steps()
    assert [step.name for step in late if not step.fits] == ["root"]
    assert f"the header of {following.name} lists it as late" in late[-1].text


def test_evidence_in_a_file_is_verified_without_servers_and_every_changed_part_is_found(
    system: System, tmp_path: Path
) -> None:
    path, bent = tmp_path / "forecast.zip", tmp_path / "bent.zip"
    forecast = forecast_at(system.history, system.symbol, system.last_ns - NS_PER_S)
    evidence = evidence_of(system.settings, system.history, system.store, system.symbol, forecast)
    assert write_evidence(path, evidence) == path.stat().st_size
    assert not failing(path)
    names = zipfile.ZipFile(path).namelist()
    assert {name.rpartition(".")[2] for name in names} <= {"json", "parquet", "ubj", "npz", "zst"}
    for name in names:
        rewritten(path, bent, name, flip, rehash=False)
        with pytest.raises(BtcError, match=r"changed|cannot be read|damaged|form"):
            failing(bent)
    for name, change in MEANINGFUL.items():
        (chosen,) = (each for each in names if each.endswith(name))
        rewritten(path, bent, chosen, change, rehash=True)
        assert failing(bent), f"a changed {name} was not found though the manifest had its new hash"


def test_a_later_forecast_is_computed_again_from_the_state_that_a_closed_hour_names(
    system: System, tmp_path: Path
) -> None:
    """Two hours after the hour of the first forecasts, and one hour after that of the late ones."""
    settings, symbol, clock = system.settings, system.symbol, in_hour(system.hour_ns + 2 * HOUR_NS)
    before, last = closed_periods(system.history, symbol, system.hour_ns, system.hour_ns + 2 * HOUR_NS)[:2]
    (state,), (continued,) = ([each for each in hour.hour_header.states if each.offset] for hour in (before, last))
    assert (continued.offset, continued.sha256) == (state.offset, state.sha256), (
        "nothing was received in the second hour"
    )
    rows = count(system.db, VOLATILITY_PREDICTION.name, symbol)
    holder = Holder(symbol, bars_of_market(2 * 1440, clock.now_ns() // NS_PER_MIN * NS_PER_MIN - 2 * NS_PER_DAY))
    with Running(features.build(settings)):
        publish(settings, symbol, list(market(symbol, SECONDS, 12, clock.now_ns(), trade_id=2 * SECONDS * 2 + 1)))
        handler = ForecastHandler(settings, holder, clock)  # type: ignore[arg-type]
        with Running(Worker(settings, SPEC, handler)):
            wait_for(lambda: count(system.db, VOLATILITY_PREDICTION.name, symbol) == rows + 14 * SECONDS, "forecasts")
    wait_until_applied(system.db, FORECAST_STATES.name)
    forecast = forecast_at(system.history, symbol, clock.now_ns())

    def evidence(*, all_frames: bool = False) -> Evidence:
        return evidence_of(settings, system.history, system.store, symbol, forecast, all_frames=all_frames)

    for is_closed in (False, True):
        if is_closed:
            (hour,) = (each for each in system.close(system.hour_ns + 3 * HOUR_NS) if each.period == HOUR)
            assert hour.hour_header.late_forecasts == 0
        found = list(Check(evidence()).steps())
        assert all(step.fits for step in found), [step.text for step in found][-1]
        assert {"chain", "start", "frames"} <= {step.name for step in found}
        assert "equal to the last bit" in found[-1].text
        assert f"at the end of the hour {last.name}" in next(step.text for step in found if step.name == "start")
    whole = list(Check(evidence(all_frames=True)).steps())
    assert [step.name for step in whole] == STEPS
    assert all(step.fits for step in whole), [step.text for step in whole]

    small, large = tmp_path / "from-state.zip", tmp_path / "all-frames.zip"
    write_evidence(small, evidence())
    write_evidence(large, evidence(all_frames=True))
    assert not failing(small)
    assert not failing(large)
    with zipfile.ZipFile(small) as fewer, zipfile.ZipFile(large) as more:
        assert "start.zst" in set(fewer.namelist()) - set(more.namelist())
        assert fewer.getinfo("frames.jsonl.zst").file_size < more.getinfo("frames.jsonl.zst").file_size
    rewritten(small, tmp_path / "bent.zip", "start.zst", other_state, rehash=True)
    assert ["is not the one that the header of" in text for text in failing(tmp_path / "bent.zip")] == [True]

    keys = [state_key(last.begin_ns, continued), state_key(before.begin_ns, state)]
    bodies = [system.store.get(key) for key in keys]
    for key in keys:
        system.store.delete(key)
    without = evidence()
    assert without.start == b"", "a state that is no longer kept is replaced by the frames"
    assert all(step.fits for step in Check(without).steps())
    for key, body in zip(keys, bodies, strict=True):
        system.store.put(key, body or b"")


def test_a_sealed_day_is_verified_from_its_archive_and_as_a_whole(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = day_of(system.last_ns)
    end_ns = (system.last_ns // NS_PER_DAY + 1) * NS_PER_DAY
    system.close(end_ns)  # after ten in the evening, an earlier test has closed the day
    periods = closed_periods(system.history, system.symbol, end_ns - NS_PER_DAY, end_ns)
    (closed,) = (each for each in periods if each.period == DAY)
    assert archive_day(system.store, system.settings.kafka, day).archive is not None
    steps = system.steps(system.last_ns - NS_PER_S)
    assert [step.name for step in steps] == STEPS
    assert all(step.fits and not step.is_open for step in steps), [step.text for step in steps]
    assert any("the archive of" in step.text for step in steps)
    found = check_day(system.history, system.store, system.symbol, day)
    assert found.problems == ()
    assert found.root == closed.root
    rows, forecasts = again(system, day)
    assert rows.fits, rows.text
    states = check_states(system.history, system.store, system.symbol, day)
    hours = sum((system.hour_ns + hour * HOUR_NS) // NS_PER_DAY * NS_PER_DAY == end_ns - NS_PER_DAY for hour in (1, 2))
    if hours:  # of each partition, those after the first state
        assert states.fits
        assert states.text.startswith(f"The frames give the {hours * settings_partitions(system)} states")
        monkeypatch.setattr(state_check, "closed_periods", with_other_states)
        assert not check_states(system.history, system.store, system.symbol, day).fits
    added = 1 if system.hour_ns + HOUR_NS < end_ns else 0  # by the test of a late forecast, in the hour after the last
    assert rows.text.startswith(f"{found.forecasts - added} forecasts were made")
    assert forecasts.fits, forecasts.text
    assert forecasts.text.startswith(f"{found.forecasts - added} forecasts, computed again")
    assert forecasts.text.endswith("are equal to the last bit.")


def again(system: System, day: str) -> tuple[Step, ...]:
    replayed = replay_archived_day(system.store, archives_around(system.store, day), lead_ns=LEAD_NS)
    return check_rows(system.history, system.store, system.symbol, day, replayed)


def test_a_changed_number_of_a_day_is_found_by_computing_its_forecasts_again(system: System) -> None:
    day = day_of(system.last_ns)
    at_ns = system.last_ns - NS_PER_S  # the test of a late forecast has added one at `last_ns`
    _, volatility = forecast_at(system.history, system.symbol, at_ns)
    sigma = volatility["sigma_3m_bps"][0].as_py()
    system.rewrite(VOLATILITY_PREDICTION, at_ns, sigma_3m_bps=sigma * 1.001)
    rows, forecasts = again(system, day)
    assert not rows.fits, "the leaf of the forecast is another one"
    assert not forecasts.fits
    assert forecasts.text.startswith("1 of ")
    assert "differ from the stored ones, sigma_3m_bps by up to 0.000999 of itself" in forecasts.text
    system.rewrite(VOLATILITY_PREDICTION, at_ns, sigma_3m_bps=float(np.nextafter(sigma, 1e9)))
    _, forecasts = again(system, day)
    assert forecasts.fits, forecasts.text
    assert "as on another processor (sigma_3m_bps)" in forecasts.text
    write_rows(system.db, VOLATILITY_PREDICTION, volatility)
    assert all(step.fits for step in again(system, day))


def test_the_command_line_verifies_a_forecast_a_file_and_a_day_and_says_what_is_wrong(
    system: System, own_stack: Stack, tmp_path: Path
) -> None:
    def btc(*arguments: str, stack: bool = True) -> tuple[int, str]:
        more = ("--data-dir", str(own_stack.layout.data_dir)) if stack else ()
        command = [sys.executable, "-W", "ignore", "-m", "btc_cli", *arguments, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        return done.returncode, done.stdout + done.stderr

    path, at = tmp_path / "forecast.zip", iso_text(system.last_ns - NS_PER_S)
    code, text = btc("verify", at, "--symbol", system.symbol)
    assert code == 0, text
    assert "equal to the last bit" in text
    assert "The forecast is proven" in text
    code, text = btc("verify", at, "--export", str(path))
    assert code == 0, text
    code, text = btc("verify", str(path), stack=False)
    assert code == 0, text
    assert "The forecast is proven" in text
    day = day_of(system.last_ns)
    code, text = btc("verify", "--day", day)
    assert code == 0, text
    assert "made from the very feature rows" in text
    assert re.search(r"\d+ forecasts, computed again .* are equal to the last bit", text)
    out = tmp_path / "roots.txt"
    code, text = btc("roots", "--from", day, "--to", day, "--out", str(out))
    assert code == 0, text
    assert re.fullmatch(rf"{day} {system.symbol} [0-9a-f]{{64}} closed \S+Z SIMULATED\n", out.read_text())
    rewritten(path, path.with_name("bent.zip"), "frames.jsonl.zst", other_frame, rehash=True)
    code, text = btc("verify", str(path.with_name("bent.zip")), stack=False)
    assert code == 1
    assert "are not those that reached the log" in text
    code, text = btc("at", at, "--without", "log_rv_5m")
    assert code == 0, text
    assert "equal to the stored one" in text
    assert "without log_rv_5m" in text
    code, text = btc("at", at, "--book")
    assert code == 1, "this market has no order book"
    assert f"no order book of {system.symbol} was known at" in text
    code, text = btc("verify", "2001-01-01T00:00:00")
    assert code == 1
    assert "was in force at 2001-01-01T00:00:00Z" in text


def settings_partitions(system: System) -> int:
    return system.settings.kafka.partitions


def with_other_states(*where: Any) -> list[ClosedPeriod]:
    """The closed hours with other hashes of their states in the headers, except the first."""
    hours = closed_periods(*where)
    changed = hours[:1]
    for hour in hours[1:]:
        if hour.period == HOUR:
            header = hour.hour_header
            states = tuple(msgspec.structs.replace(state, sha256="0" * 64) for state in header.states)
            text = msgspec.json.encode(msgspec.structs.replace(header, states=states)).decode()
            changed.append(msgspec.structs.replace(hour, header=text))
    return changed


def iso_text(ts_ns: int) -> str:
    return f"{from_ns(ts_ns):%Y-%m-%dT%H:%M:%S.%f}"


def forecasts_in(system: System, hour_ns: int) -> int:
    counted = system.db.execute(
        f"SELECT count() FROM {BID_PREDICTION.name} WHERE symbol = '{system.symbol}' AND "
        f"{within('made_at', hour_ns, hour_ns + HOUR_NS)}"
    )
    return int(counted[0][0])
