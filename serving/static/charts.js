"use strict";
/* The three charts of the live page, on Lightweight Charts. Their data comes from `live.js`. */

const HISTORY_S = 600, AHEAD_S = 300, STEP_S = 5, FLOW_S = 300, LEAST_FLOW_S = 60;
const SIGMAS = [1.645, 1];

/** The current colour of a custom property. Charts draw on a canvas, which does not know properties. */
function colour(name, alpha = 1) {
  const probe = document.createElement("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const [r, g, b] = getComputedStyle(probe).color.match(/[\d.]+/g);
  probe.remove();
  return `rgba(${r}, ${g}, ${b}, ${alpha})`;
}

/** A series that fills the area between the two edges of each band, the widest band first. */
class Fan {
  renderer() { return this; }
  update(data, options) { this.data = data; this.options = options; }
  priceValueBuilder(row) { const outer = row.bands[0]; return outer ? [outer[0], outer[1], row.mid] : [row.mid]; }
  isWhitespace(row) { return row.mid === undefined; }
  defaultOptions() { return { ...LightweightCharts.customSeriesDefaultOptions, color: "" }; }
  destroy() {}
  draw(target, toY) {
    const bars = this.data.bars;
    if (!bars.length || !this.data.visibleRange) return;
    target.useMediaCoordinateSpace(({ context }) => {
      context.fillStyle = this.options.color;
      for (let band = 0; band < bars[0].originalData.bands.length; band++) {
        const edge = (side) => bars.map((bar) => [bar.x, toY(bar.originalData.bands[band][side])]);
        context.beginPath();
        for (const [x, y] of [...edge(1), ...edge(0).reverse()]) context.lineTo(x, y);
        context.closePath();
        context.fill();
      }
    });
  }
}

function newChart(id, digits) {
  const chart = LightweightCharts.createChart(document.getElementById(id), {
    autoSize: true, handleScroll: false, handleScale: false,
    layout: { attributionLogo: false, background: { color: "transparent" } },
    rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.08, bottom: 0.08 } },
    timeScale: { borderVisible: false, timeVisible: true, secondsVisible: false, lockVisibleTimeRangeOnResize: true },
    localization: { priceFormatter: (v) => v.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) },
  });
  const line = (name, options = {}) => {
    const series = chart.addSeries(LightweightCharts.LineSeries, { lineWidth: 2, priceLineVisible: false, lastValueVisible: false, crosshairMarkerRadius: 3, ...options });
    series.colourName = name;
    return series;
  };
  return { chart, line };
}

/** Replace the points of a series, without those that have no value. Times must be ascending and differ. */
const setPoints = (series, points) => series.setData(points.filter((p) => p.value === undefined || Number.isFinite(p.value)));

/** A value between two horizons: the path is linear in time, and the distance of a band from it in its square. */
function interpolate(values, first, minutes, power = 1) {
  const known = [first, ...values].map((v) => v ** power), at = Math.min(Math.floor(minutes), values.length - 1);
  return (known[at] + (known[at + 1] - known[at]) * (minutes - at)) ** (1 / power);
}

class Charts {
  constructor() {
    const price = newChart("price_chart", 1), volatility = newChart("volatility_chart", 1), flow = newChart("flow_chart", 2);
    this.all = [price.chart, volatility.chart, flow.chart];
    this.fan = price.chart.addCustomSeries(new Fan(), { priceLineVisible: false, lastValueVisible: false });
    this.bid = price.line("price", { lastValueVisible: true });
    this.path = price.line("path", { lineStyle: 2 });
    this.sigma = volatility.line("path");
    this.harx = volatility.line("base");
    this.realized = volatility.line("price");
    flow.chart.applyOptions({ timeScale: { secondsVisible: true }, leftPriceScale: { visible: true, borderVisible: false } });
    this.ofi = flow.chart.addSeries(LightweightCharts.HistogramSeries, { priceScaleId: "left", priceLineVisible: false, lastValueVisible: false });
    this.ofi.colourName = "flow";
    this.spread = flow.line("price");
    this.bids = new Map();
    this.flows = new Map();
    this.paint();
  }

  /** Use the colours of the current theme. */
  paint() {
    for (const chart of this.all) {
      chart.applyOptions({ layout: { textColor: colour("soft"), fontSize: 11 }, grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } }, crosshair: { vertLine: { labelBackgroundColor: colour("soft") }, horzLine: { labelBackgroundColor: colour("soft") } } });
    }
    for (const series of [this.bid, this.path, this.sigma, this.harx, this.realized, this.ofi, this.spread]) {
      series.applyOptions({ color: colour(series.colourName, series === this.ofi ? 0.55 : 1) });
    }
    this.fan.applyOptions({ color: colour("path", 0.17) });
  }

  /** Add the bids of past forecasts from `/v1/forecasts`. */
  addPast(forecasts) {
    for (const each of forecasts) if (each.bid_usd !== null) this.addBid(Date.parse(each.ts_event) / 1000, each.bid_usd);
  }

  addBid(atS, bid) { this.bids.set(Math.floor(atS / STEP_S) * STEP_S, bid); }

  /** Show the newest forecast: the bids until now, the path and its bands. Returns a description of the bands. */
  showForecast(f) {
    const atS = Date.parse(f.ts_event) / 1000, from = Math.floor(atS / STEP_S) * STEP_S, path = f.horizons.map((h) => h.bid_usd);
    this.addBid(atS, f.bid_usd);
    for (const time of this.bids.keys()) if (time < from - HISTORY_S || time > from) this.bids.delete(time);
    setPoints(this.bid, [...this.bids].sort((a, b) => a[0] - b[0]).map(([time, value]) => ({ time, value })));
    const levels = f.horizons[0].intervals.map((i) => i.level_pct).sort((a, b) => b - a);
    const bands = levels.length
      ? levels.map((level) => f.horizons.map((h) => { const i = h.intervals.find((one) => one.level_pct === level); return [h.bid_usd - i.low_usd, i.high_usd - h.bid_usd]; }))
      : SIGMAS.map((z) => f.horizons.map((h) => [z, z].map((k) => h.bid_usd * k * h.sigma_bps / 1e4)));
    const rows = [];
    for (let s = 0; s <= AHEAD_S; s += STEP_S) {
      const mid = interpolate(path, f.bid_usd, s / 60);
      rows.push({ time: from + s, mid, bands: bands.map((band) => [mid - interpolate(band.map((b) => b[0]), 0, s / 60, 2), mid + interpolate(band.map((b) => b[1]), 0, s / 60, 2)]) });
    }
    this.fan.setData(rows);
    setPoints(this.path, rows.map(({ time, mid }) => ({ time, value: mid })));
    this.all[0].timeScale().setVisibleLogicalRange({ from: Math.max(0, this.bids.size - HISTORY_S / STEP_S), to: this.bids.size + AHEAD_S / STEP_S + 1 });
    return levels.length ? `${levels.join(", ")} % intervals` : "±1 σ and ±1.64 σ (no intervals from these models)";
  }

  /** Show the volatility of the past hour: for each minute the forecast of the next 5 minutes, and what happened. */
  showVolatility(forecasts, bars) {
    const minute = (text) => Math.floor(Date.parse(text) / 60_000) * 60;
    const realized = new Map(bars.map((bar) => [minute(bar.ts), bar.realized_volatility_bps]));
    const after = (time) => { let sum = 0; for (let k = 0; k < 5; k++) { const bps = realized.get(time + 60 * k); if (bps == null) return NaN; sum += bps ** 2; } return Math.sqrt(sum); };
    const last = Math.max(...realized.keys());  // the running minute
    setPoints(this.sigma, forecasts.map((f) => ({ time: minute(f.ts_event), value: f.sigma_path_bps[4] ?? NaN })));
    setPoints(this.harx, forecasts.map((f) => ({ time: minute(f.ts_event), value: f.baseline_sigma_path_bps[4] ?? NaN })));
    setPoints(this.realized, forecasts.map((f) => minute(f.ts_event)).filter((time) => time + 240 < last).map((time) => ({ time, value: after(time) })));
    this.all[1].timeScale().fitContent();
  }

  /** Add the spread and the order flow of one second. */
  showFlow(features) {
    const time = Math.floor(Date.parse(features.ts_event) / 1000), { spread_bps: spread, ofi_30s: ofi } = features.values;
    this.flows.set(time, { spread, ofi });
    for (const old of this.flows.keys()) if (old < time - FLOW_S) this.flows.delete(old);
    const rows = [...this.flows].sort((a, b) => a[0] - b[0]);
    setPoints(this.spread, rows.map(([at, row]) => ({ time: at, value: row.spread ?? NaN })));
    setPoints(this.ofi, rows.map(([at, row]) => ({ time: at, value: row.ofi ?? NaN })));
    this.all[2].timeScale().setVisibleLogicalRange({ from: Math.min(0, rows.length - LEAST_FLOW_S), to: rows.length });
  }
}
