/* Spread and traded volume of each minute. */

import { clock, number, short } from "./format.js";
import { TimeChart } from "./time_chart.js";

export class MarketChart extends TimeChart {
  constructor(card, history, asset) {
    super("market", card, history, { steps: [60], spanS: 3_600, digits: 2 });
    this.asset = asset;
    this.volume = this.named(this.chart.addSeries(LightweightCharts.HistogramSeries, { priceScaleId: "volume", priceLineVisible: false, lastValueVisible: false }), "flow", 0.5);
    this.chart.priceScale("volume").applyOptions({ scaleMargins: { top: 0.6, bottom: 0 } });
    this.spread = this.line("price");
    this.paint();
    this.show(3_600);
  }

  setRows(rows) {
    this.spread.setData(this.points(rows, (row) => row.spread_mean_bps ?? NaN));
    this.volume.setData(rows.filter((row) => row.volume_base > 0).map((row) => ({ time: row.time, value: row.volume_base })));
  }

  words(row) {
    if (!row) return `Mean spread, and ${this.asset} traded, in each minute.`;
    const when = clock(row.time);
    if (row.quotes === undefined) return `${when}: no data`;
    return `${when}: spread ${number(row.spread_mean_bps, 3)} bps; ${short(row.volume_base)} ${this.asset} in ${number(row.trades)} trades; ${number(row.quotes)} quotes.`;
  }
}
