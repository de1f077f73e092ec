/* The volatility: what was forecast, what came, the baselines, and releases. */

import { clock, kindName, moment, seconds, setText, short } from "./format.js";
import { HEADLINE, HEADLINE_S } from "./horizons.js";
import { TimeChart } from "./time_chart.js";

const STEPS_S = [60, 300, 1_800], SPAN_S = HEADLINE_S, NEAR_RELEASE_S = 2 * 3_600, NAMES = { fomc: "FOMC", cpi: "CPI", employment: "payrolls" };

export class VolatilityChart extends TimeChart {
  constructor(card, history) {
    super("volatility", card, history, { steps: STEPS_S, spanS: 3_600, digits: 1 });
    this.naive = this.line("soft", { lineWidth: 1, lineStyle: 1, alpha: 0.8 });
    this.harx = this.line("base");
    this.realized = this.line("price");
    this.forecast = this.line("path");
    this.paint();
    this.show(3_600);
  }

  setRows(rows) {
    const came = (row) => row.outcome?.realized_sigma_path_bps.at(-1) ?? NaN, isOwn = rows.every((row) => row.kind === "harx");
    this.forecast.setData(this.points(rows, (row) => row.sigma));
    this.harx.setData(isOwn ? [] : this.points(rows, (row) => row.harx));
    this.realized.setData(this.points(rows.filter((row) => Number.isFinite(came(row))), came));
    const shifts = SPAN_S % this.step === 0;  // otherwise no row is one horizon older than another
    this.naive.setData(!shifts ? [] : this.points(rows, (row) => { const past = this.rows.get(row.time - SPAN_S); return past ? came(past) : NaN; }));
    document.getElementById("naive_key").hidden = !shifts;
    document.getElementById("harx_key").hidden = isOwn;
    document.getElementById("forecast_key").textContent = isOwn ? "forecast, from HARX" : "forecast";
  }

  /** Draw the volatility that is usual in this hour as a line. */
  showUsual(usual) {
    if (this.usual) this.forecast.removePriceLine(this.usual);
    this.usual = usual.median_bps === null ? null : this.forecast.createPriceLine({ price: usual.median_bps, color: "gray", lineWidth: 1, lineStyle: 3, axisLabelVisible: false, title: "usual" });
  }

  /** Mark the releases, and lead the grid to the next one if it is near. Says in a sentence what is ahead. */
  showReleases({ releases, calendars }) {
    const now = Date.now() / 1000, marks = releases.map((r) => ({ time: seconds(r.at), words: NAMES[r.kind] ?? r.kind, name: r.name }));
    const next = marks.find((mark) => mark.time > now), ended = calendars.filter((c) => c.ended);
    this.marked = marks;
    this.aheadS = next && next.time - now < NEAR_RELEASE_S ? next.time - now + SPAN_S : 0;
    this.show(this.wanted);
    const words = ended.map((c) => `${NAMES[c.kind] ?? c.kind} ${c.until}`).join(", ");
    const none = ended.length ? `No release is known: the calendars have ended (${words}), and the models take every later time for one without releases.` : "No release in the next 13 days.";
    setText("releases", next ? `Next release: ${next.name}, ${moment(next.time)} UTC.` : none);
  }

  words(row) {
    if (!row) return `σ over the ${HEADLINE} after each point, in bps of the price.`;
    const when = this.step >= 300 ? moment(row.time) : clock(row.time);
    if (row.sigma === undefined) return `${when}: no data`;
    const came = row.outcome?.realized_sigma_path_bps.at(-1);
    return `${when}: ${kindName(row.kind)} forecast ${short(row.sigma)} bps${row.kind === "harx" ? "" : `, HARX ${short(row.harx)}`}${came === undefined ? "" : `; ${short(came)} came${row.outcome.volatility_outside_90 ? ", outside the 90 % interval" : ""}`}.`;
  }
}
