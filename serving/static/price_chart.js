/* The bid, what was forecast of it, and the fan of the newest forecast. */

import { clock, moment, number, priceDigits, rangeDigits, setText, signed } from "./format.js";
import { liveRow } from "./history.js";
import { HEADLINE_MIN, HEADLINE_S } from "./horizons.js";
import { colour, fanRows, TimeChart } from "./time_chart.js";

const AHEAD_S = HEADLINE_S, REDRAW_MS = 1_000, STEPS_S = [5, 60, 300, 1_800], MINUTE_S = 60, LEVEL_PCT = 90;
const SPAN_S = [900, 3_600, 21_600].find((span) => span >= 3 * AHEAD_S);

export class PriceChart extends TimeChart {
  constructor(card, history) {
    super("price", card, history, { steps: STEPS_S, spanS: SPAN_S, aheadS: AHEAD_S, digits: 1 });
    this.corridor = this.fan("base", 0.16);
    this.ghost = this.fan("flow", 0.2);
    this.newest = this.fan("path", 0.17);
    this.bid = this.line("price", { lastValueVisible: true });
    this.path = this.line("path", { lineStyle: 2 });
    this.misses = LightweightCharts.createSeriesMarkers(this.bid, []);
    this.paint();
    this.show(SPAN_S);
  }

  dataNowS() { return this.live ? this.live.at : Date.now() / 1000; }

  /** Draw the past. Forecasts of the longest horizon ago appear as a corridor around the bid that they were about. A mark is
     where the bid left the corridor at the end of a minute; steps too long for a corridor have the marks that the API counts. */
  setRows(rows) {
    const end = this.nowS;
    this.bid.setData(this.points(rows, (row) => row.bid).filter((point) => point.time <= end));
    const shifts = AHEAD_S % this.step === 0;
    this.corridor.setData(shifts ? rows.flatMap((row) => {
      const band = row.bands.find((each) => each.level === LEVEL_PCT), time = row.time + AHEAD_S;
      return band && time <= end ? [{ time, mid: row.path.at(-1), bands: [[band.low.at(-1), band.high.at(-1)]] }] : [];
    }) : []);
    const times = new Set(rows.map((row) => row.time)), missed = new Map();
    const add = (time, count) => { if (count && times.has(time)) missed.set(time, (missed.get(time) ?? 0) + count); };
    for (const row of rows) {
      if (!shifts) add(Math.floor((Date.parse(row.outcome?.ts_event) / 1000 + AHEAD_S) / this.step) * this.step, row.outcome?.bid_outside_90);
      else if (row.time % MINUTE_S === 0) add(row.time + AHEAD_S, this.came(row)?.isOutside ? 1 : 0);
    }
    this.missed = missed;
    this.misses.setMarkers([...missed.keys()].sort((a, b) => a - b).map((time) => ({ time, position: "inBar", shape: "circle", size: 0.7, color: colour("down") })));
    this.setLive();
  }

  /** What came of a drawn forecast: the bid one horizon later, and whether it left the 90 % interval; null if that is not drawn.

     The API's `outcome` of a row is of the forecast in force at the end of the minute, which is not the one that is drawn. */
  came(row) {
    const band = row.bands.find((each) => each.level === LEVEL_PCT), then = AHEAD_S % this.step === 0 ? this.rows.get(row.time + AHEAD_S) : undefined;
    return band && then?.bid !== undefined ? { change: then.bid - row.bid, isOutside: then.bid < band.low.at(-1) || then.bid > band.high.at(-1) } : null;
  }

  paint() {
    super.paint();
    this.misses?.setMarkers(this.misses.markers().map((marker) => ({ ...marker, color: colour("down") })));
  }

  /** Take the newest forecast of the stream. */
  showForecast(f) {
    this.live = liveRow(f, 1);
    if (!this.live) return;
    const level = this.history.level(this.step), row = liveRow(f, this.step);
    if (!level.rows.has(row.time)) level.rows.set(row.time, row);  // the live line needs no past
    if (document.hidden) return;
    if (this.drawnTo !== this.endS) return this.draw();
    if (!(performance.now() - this.drawnAt <= REDRAW_MS)) this.setLive();
  }

  setLive() {
    if (!this.live || !this.drawnTo) return;
    const row = { ...this.live, time: this.nowS }, rows = fanRows(row, this.step, this.step > AHEAD_S ? 0 : AHEAD_S);
    this.bid.update({ time: row.time, value: row.bid });
    this.newest.setData(rows);
    setText("fan_words", `${this.live.bands.map((band) => band.level).join(", ") || "no"}${this.live.bands.length ? " %" : ""} intervals now`);
    this.drawnAt = performance.now();
    this.path.setData(rows.map(({ time, mid }) => ({ time, value: mid })));
    if (this.pointed === null) this.point(null);
  }

  point(time) {
    super.point(time);
    const row = time === null || time >= this.nowS ? null : this.rows.get(time);
    this.ghost.setData(row?.bands.length && this.step <= AHEAD_S ? fanRows(row, this.step, AHEAD_S) : []);
  }

  words(row) {
    if (!row) {
      const misses = this.missed?.size ?? 0;
      return this.live ? `Now ${number(this.live.bid, priceDigits(this.live.bid))} USD. ${misses ? `${misses} of the shown forecasts ended outside their 90 % interval.` : "Point at the past to see the forecast made then."}` : "";
    }
    const when = this.step >= 300 ? moment(row.time) : clock(row.time, this.step < 60);
    if (row.time > this.nowS) return `${when}: in the future`;
    if (row.bid === undefined) return `${when}: no data`;
    const band = row.bands.find((each) => each.level === LEVEL_PCT), came = this.came(row);
    const range = band ? rangeDigits(band.high.at(-1) - band.low.at(-1)) : 0;
    const forecast = band ? ` Forecast made then for ${HEADLINE_MIN} min later: ${number(band.low.at(-1), range)} – ${number(band.high.at(-1), range)} (90 %).` : "";
    const outcome = came ? ` It came ${signed(came.change, priceDigits(row.bid))} USD, ${came.isOutside ? "outside" : "inside"}.` : "";
    return `${when}: bid ${number(row.bid, priceDigits(row.bid))} USD.${forecast}${outcome}`;
  }
}
