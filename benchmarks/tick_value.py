"""What ticks add to the forecast of the volatility, on recorded executions and best quotes.

`python -m benchmarks.tick_value EXECUTIONS TICKER` reads two Parquet files of bitFlyer in place.
Each day is forecast by models that were fitted on the days before it, once with the features that a stream of these events
computes and once without those that minute bars lack. What does not belong here: speed (`python -m benchmarks`), and stored
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

from btc_core.clock import NS_PER_DAY, NS_PER_MIN, column_ns
from btc_core.exchanges.history import TRADES, bars_of_trades
from btc_core.features.catalogue import ROW, model_matrix
from btc_core.features.fold import EMIT_TICKS, fold
from btc_core.features.state import EVENT, new_state
from btc_core.market.events import QUOTE, TRADE
from btc_core.models import fitting
from btc_core.models.dataset import Frame, StreamRows, make_frame
from btc_core.models.input_gains import gain_shares, stream_gain
from btc_core.models.recipe import RECIPE
from btc_core.models.scores import qlike_losses
from btc_core.models.stream_value import paired
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
    chosen = parser.parse_args()
    events = events_of(chosen.executions, chosen.ticker)
    trades = events[events["kind"] == TRADE]
    made = np.zeros(len(trades), TRADES)
    made["ts_ns"], made["price"], made["qty"] = trades["ts_ns"], trades["slot_0"], trades["slot_1"]
    frame = make_frame(bars_of_trades(made), stream=closes_of(events))
    bare = frame.without_stream()
    begin_ns = int(events["ts_ns"][0]) // (60 * NS_PER_MIN) * (60 * NS_PER_MIN)
    days = round((int(events["ts_ns"][-1]) - begin_ns) / NS_PER_DAY)
    print(
        f"{len(trades):,} trades, {frame.is_streamed.mean():.1%} of {len(frame.origin_ns):,} origins have a row of the stream"
    )
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
