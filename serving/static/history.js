/* Past rows of the API, by resolution and loaded page by page as a person pans. What does not belong here: drawing. */

import { getJson, inTurn } from "./api.js";
import { seconds } from "./format.js";

const PAGE_STEPS = 240, EMPTY_PAGES = 2, RECENT_S = 900;

/** The rows of one path of /v1, at several resolutions. */
export class History {
  /** `list` is the name of the rows in the answer, and `parse` makes one row of an entry. */
  constructor(path, list, parse, query) {
    Object.assign(this, { path, list, parse, query });
    this.levels = new Map();
  }

  /** What is loaded at a resolution: rows by time, and the time from which on all of them are there. */
  level(step) {
    if (!this.levels.has(step)) this.levels.set(step, { rows: new Map(), from: null, emptyPages: 0 });
    return this.levels.get(step);
  }

  /** Whether there is nothing older to load. */
  isExhausted(step) { return this.level(step).emptyPages >= EMPTY_PAGES; }

  /** Load the newest rows: a page at first, later only those that can have changed. */
  async refresh(step) {
    const level = this.level(step);
    const limit = level.from === null ? PAGE_STEPS : Math.ceil(RECENT_S / step) + 2;
    const page = await this.page(step, limit);
    level.from ??= page.from;
  }

  /** Load the page before those that are there. */
  async older(step) {
    const level = this.level(step), since = level.from - PAGE_STEPS * step;
    const page = await this.page(step, PAGE_STEPS, new Date(since * 1000).toISOString());
    level.from = since;
    level.emptyPages = page.count ? 0 : level.emptyPages + 1;
  }

  async page(step, limit, since) {
    const answer = await inTurn(() => getJson(this.path, { ...this.query(step), limit, ...(since && { since }) }));
    const { rows } = this.level(step);
    for (const entry of answer[this.list]) {
      const row = this.parse(entry, step);
      if (row) rows.set(row.time, row);
    }
    return { from: seconds(answer.from), count: answer[this.list].length };
  }
}

/** A past forecast of /v1/forecasts, or the newest one of the stream, as the charts use it. */
function forecastRow(f, step) {
  const at = seconds(f.ts_event);
  if (f.bid_usd === null || f.bid_path_usd.includes(null)) return null;
  return {
    time: Math.floor(at / step) * step, at, bid: f.bid_usd, path: f.bid_path_usd, outcome: f.outcome,
    sigma: f.sigma_path_bps.at(-1), harx: f.baseline_sigma_path_bps.at(-1), kind: f.volatility_model.kind,
    bands: f.intervals.map((i) => ({ level: i.level_pct, low: i.low_path_usd, high: i.high_path_usd })),
  };
}

/** The body of the event `forecast` in the shape of a past forecast. */
export function liveRow(f, step) {
  const path = (name) => f.horizons.map((h) => h[name]);
  const intervals = f.horizons[0].intervals.map((_, at) => ({
    level_pct: f.horizons[0].intervals[at].level_pct,
    low_path_usd: f.horizons.map((h) => h.intervals[at].low_usd), high_path_usd: f.horizons.map((h) => h.intervals[at].high_usd),
  }));
  return forecastRow({ ts_event: f.ts_event, bid_usd: f.bid_usd, bid_path_usd: path("bid_usd"), sigma_path_bps: path("sigma_bps"),
    baseline_sigma_path_bps: path("baseline_sigma_bps"), volatility_model: f.models.volatility, outcome: null, intervals }, step);
}

export const pastForecasts = () => new History("forecasts", "forecasts", forecastRow, (step) => ({ step_s: step, intervals: true }));

/** Minute bars; the API has them in one resolution. */
export const minuteBars = () => new History("bars", "bars", (bar) => ({ time: seconds(bar.ts), ...bar }), () => ({}));
