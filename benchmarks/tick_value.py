"""What ticks add to the forecast of the volatility, on recorded executions and best quotes.

`python -m benchmarks.tick_value EXECUTIONS TICKER` reads two Parquet files of bitFlyer in place.
Each day is forecast by models that were fitted on the days before it, once with the features that a stream of these events
computes and once without those that minute bars lack. With `--labels`, it compares what the models learn from instead: the
variance of minutes, and that of ticks without its bounce. What does not belong here: speed (`python -m benchmarks`), and stored
days of a running system (`btc evaluate --stored`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, NS_PER_S, column_ns
from btc_core.exchanges.history import TRADES, bars_of_trades
from btc_core.features.catalogue import ROW, model_matrix
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state
from btc_core.market.events import QUOTE, TRADE
from btc_core.models import fitting
from btc_core.models.dataset import Frame, StreamRows, TickLabels, make_frame
from btc_core.models.input_gains import gain_shares, stream_gain
from btc_core.models.recipe import RECIPE
from btc_core.models.scores import qlike_losses
from btc_core.models.stream_value import paired
from btc_core.models.tick_variance import log_price_by_second, origins_between, tick_variance
from btc_core.names import FRESH_ROW_NS

if TYPE_CHECKING:
    import numpy.typing as npt

FIRST_TESTED_DAY = 4
CHUNK = 200_000
"""Events whose rows are in memory at once: 150 MB."""
SHORT_HISTORY = msgspec.structs.replace(RECIPE, trees_need_days=2.0)
"""Ten days are fewer than the shipped recipe asks for before it grows trees."""


def events_of(executions: Path, ticker: Path) -> npt.NDArray[Any]:
    """Trades with a time, and a quote a minute, in the order of time."""
    table = pq.read_table(executions, columns=["ts", "side", "price", "size"])
    table = table.filter(pc.and_(pc.is_valid(table["ts"]), pc.greater(table["size"], 0.0)))
    trades = np.zeros(len(table), EVENT)
    trades["ts_ns"], trades["kind"] = column_ns(table["ts"]), TRADE
    trades["slot_0"], trades["slot_1"] = table["price"].to_numpy(), table["size"].to_numpy()
    trades["slot_2"] = np.where(np.array(table["side"].to_pylist()) == "SELL", -1.0, 1.0)
    names = ["best_bid", "best_bid_size", "best_ask", "best_ask_size"]
    table = pq.read_table(ticker, columns=["ts", *names])
    table = table.filter(pc.is_valid(table["ts"]))
    quotes = np.zeros(len(table), EVENT)
    quotes["ts_ns"], quotes["kind"] = column_ns(table["ts"]), QUOTE
    for slot, name in enumerate(names):
        quotes[f"slot_{slot}"] = table[name].to_numpy()
    quotes = quotes[(quotes["slot_0"] > 0.0) & (quotes["slot_2"] >= quotes["slot_0"])]
    events = np.concatenate([quotes, trades])
    return events[np.argsort(events["ts_ns"], kind="stable")]


def closes_of(events: npt.NDArray[Any]) -> StreamRows:
    """The newest row before the close of each minute, unless it is older than `FRESH_ROW_NS`."""
    minutes = events["ts_ns"] // NS_PER_MIN
    is_last = np.append(np.diff(minutes) > 0, True)
    is_last &= (minutes + 1) * NS_PER_MIN - events["ts_ns"] <= FRESH_ROW_NS
    state, rows, kept = new_state(), np.empty(CHUNK, ROW), []
    for begin in range(0, len(events), CHUNK):
        part = events[begin : begin + CHUNK]
        written = fold(state, part, rows, EMIT_TICKS)
        kept.append(model_matrix(rows[:written][is_last[begin : begin + CHUNK]]))
    return StreamRows((minutes[is_last] + 1) * NS_PER_MIN, np.concatenate(kept))


def tick_labels(trades: npt.NDArray[Any]) -> TickLabels:
    """The variance of ticks at every minute, from the prices of trades, which bounce."""
    first_s, last_s = int(trades["ts_ns"][0]) // NS_PER_S, int(trades["ts_ns"][-1]) // NS_PER_S
    logs = log_price_by_second(trades["ts_ns"], trades["slot_0"], first_s, last_s)
    origins_s = origins_between(first_s, last_s)
    realized = tick_variance(logs, origins_s, first_s, bounces=True)
    known = ~np.isnan(realized).any(axis=1)
    return TickLabels(origins_s[known] * NS_PER_S, realized[known])


class LabelLosses(msgspec.Struct, frozen=True):
    """QLIKE on the rows of a day that have both labels."""

    ticks: Any
    """Losses of the model of ticks on the variance of ticks."""
    ticks_harx: Any
    minutes: Any
    """Losses of the model of minutes on the variance of minutes."""
    minutes_harx: Any
    crossed: Any
    """Losses of the model of ticks on the variance of minutes, after its forecast was multiplied by the ratio of both variances in
    training."""
    rows: int


def label_losses(minutes: Frame, ticks: Frame, border_ns: int) -> LabelLosses:
    """Models of both labels that were fitted before `border_ns`, judged on the day after it."""
    fitted = [frame.between(0, border_ns - RECIPE.dataset.embargo_ns) for frame in (minutes, ticks)]
    models = [fitting.fit_volatility(frame, SHORT_HISTORY) for frame in fitted]
    _, here, there = np.intersect1d(minutes.origin_ns, ticks.origin_ns, return_indices=True)
    of_day = (minutes.origin_ns[here] > border_ns) & (minutes.origin_ns[here] <= border_ns + NS_PER_DAY)
    rows, labels = minutes.take(here[of_day]), ticks.realized[there[of_day], -1]
    of_minutes = np.maximum(rows.realized[:, -1], models[0].harx.rv_floor[-1])
    of_ticks = np.maximum(labels, models[1].harx.rv_floor[-1])
    (sigma, harx), (tick_sigma, tick_harx) = (model.predict_both(rows.matrix, rows.columns) for model in models)
    level = fitted[0].realized[:, -1].mean() / fitted[1].realized[:, -1].mean()

    def losses_of(label: Any, forecast: Any, factor: float = 1.0) -> Any:
        return qlike_losses(label, np.square(forecast[:, -1] / 1e4) * factor)

    return LabelLosses(
        ticks=losses_of(of_ticks, tick_sigma),
        ticks_harx=losses_of(of_ticks, tick_harx),
        minutes=losses_of(of_minutes, sigma),
        minutes_harx=losses_of(of_minutes, harx),
        crossed=losses_of(of_minutes, tick_sigma, level),
        rows=len(rows.origin_ns),
    )


def compare_labels(frame: Frame, ticks: Frame, begin_ns: int, days: int) -> None:
    """Print what each label gives, day by day and over all days."""
    _, here, there = np.intersect1d(frame.origin_ns, ticks.origin_ns, return_indices=True)
    logs = [np.log(np.maximum(each, 1e-10)) for each in (frame.realized[here, -1], ticks.realized[there, -1])]
    level = frame.realized[here, -1].mean() / ticks.realized[there, -1].mean()
    print(
        f"{len(here):,} origins have both labels; variance of minutes over that of ticks {level:.3f}, "
        f"correlation of their logs {np.corrcoef(*logs)[0, 1]:.3f}"
    )
    found = []
    for day in range(FIRST_TESTED_DAY, days):
        found.append(label_losses(frame, ticks, begin_ns + day * NS_PER_DAY))
        names = ("ticks", "ticks_harx", "minutes", "minutes_harx", "crossed")
        means = ", ".join(f"{name} {getattr(found[-1], name).mean():.4f}" for name in names)
        print(f"day {day + 1}: {means}", flush=True)
    of_day = np.concatenate([np.full(each.rows, day) for day, each in enumerate(found)])
    for name, ours, theirs in (
        ("model of ticks against its HARX, on ticks", "ticks", "ticks_harx"),
        ("model of minutes against its HARX, on minutes", "minutes", "minutes_harx"),
        ("model of ticks against the model of minutes, on minutes", "crossed", "minutes"),
    ):
        first, second = (np.concatenate([getattr(each, one) for each in found]) for one in (ours, theirs))
        result = paired(first, second, of_day)
        print(
            f"{name}: {result.with_stream:.4f} and {result.without_stream:.4f}, difference {result.difference:+.4f} "
            f"± {result.error:.4f} (standard error over {len(found)} days, {len(of_day):,} rows)"
        )


def losses(frame: Frame, border_ns: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """QLIKE of the model and of HARX on the streamed rows of the day after `border_ns`, and the stream's share of the gain."""
    model = fitting.fit_volatility(frame.between(0, border_ns - RECIPE.dataset.embargo_ns), SHORT_HISTORY)
    rows = frame.between(border_ns, border_ns + NS_PER_DAY)
    labels = np.maximum(rows.realized[:, -1], model.harx.rv_floor[-1])
    sigma, harx = model.predict_both(rows.matrix, rows.columns)
    of_model, of_harx = (qlike_losses(labels, np.square(each[:, -1] / 1e4)) for each in (sigma, harx))
    return of_model, of_harx, stream_gain(gain_shares(model))


def main() -> None:
    """Print the losses day by day, and the paired difference over all days."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executions", type=Path)
    parser.add_argument("ticker", type=Path)
    parser.add_argument("--labels", action="store_true", help="compare labels of ticks and of minutes")
    chosen = parser.parse_args()
    events = events_of(chosen.executions, chosen.ticker)
    trades = events[events["kind"] == TRADE]
    made = np.zeros(len(trades), TRADES)
    made["ts_ns"], made["price"], made["qty"] = trades["ts_ns"], trades["slot_0"], trades["slot_1"]
    bars, stream = bars_of_trades(made), closes_of(events)
    frame = make_frame(bars, stream=stream)
    bare = frame.without_stream()
    begin_ns = int(events["ts_ns"][0]) // (60 * NS_PER_MIN) * (60 * NS_PER_MIN)
    days = round((int(events["ts_ns"][-1]) - begin_ns) / NS_PER_DAY)
    print(
        f"{len(trades):,} trades, {frame.is_streamed.mean():.1%} of {len(frame.origin_ns):,} origins have a row of the stream"
    )
    if chosen.labels:
        compare_labels(frame, make_frame(bars, stream=stream, ticks=tick_labels(trades)), begin_ns, days)
        return
    found: list[list[npt.NDArray[np.float64]]] = [[], [], [], []]
    for day in range(FIRST_TESTED_DAY, days):
        border_ns = begin_ns + day * NS_PER_DAY
        streamed = frame.between(border_ns, border_ns + NS_PER_DAY).is_streamed
        (ours, harx, share), (plain, _, _) = (losses(each, border_ns) for each in (frame, bare))
        for place, each in enumerate((ours, plain, harx)):
            found[place].append(each[streamed])
        found[3].append(np.full(int(streamed.sum()), day))
        means = ", ".join(
            f"{name} {each[streamed].mean():.4f}" for name, each in (("with", ours), ("without", plain), ("HARX", harx))
        )
        print(f"day {day + 1}: {means}; {share:.1%} of the gain from inputs of the stream", flush=True)
    ours, plain, harx, of_day = (np.concatenate(each) for each in found)
    for name, other in (("without the stream", plain), ("HARX", harx)):
        result = paired(ours, other, of_day.astype(np.int64))
        print(
            f"against {name}: {result.with_stream:.4f} and {result.without_stream:.4f}, difference {result.difference:+.4f} "
            f"± {result.error:.4f} (standard error over {len(np.unique(of_day))} days, {len(ours):,} rows)"
        )


if __name__ == "__main__":
    main()
