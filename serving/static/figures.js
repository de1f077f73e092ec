/* The four figures at the top, the table of horizons, and the order flow of the moment. What does not belong here: charts.
   `first_picture.py` says the same words about the forecast that a page is loaded with. */

import { $, clock, duration, element, kindName, number, priceDigits, rangeDigits, seconds, setText, short, signed, tableRow } from "./format.js";

const LEVEL_PCT = 90, MEDIAN_OF_MS = 60_000, NORMAL_MS = 250, SLOW_MS = 1_000, SETTLE_MS = 1_000;
const CHANGE_S = 900, BAR_S = 60, MUCH = 1.5, LITTLE = 1 / 1.5, EXTREME = 3;

let usual = null, closes = [], latencies = [], shownAt = -Infinity;

export function setUsual(answer) { usual = answer; }

/** Remember the bids at the ends of the last minutes, from an answer of /v1/bars. */
export function setBars({ bars }) { closes = bars.filter((bar) => bar.bid_close).map((bar) => ({ at: seconds(bar.ts) + BAR_S, bid: bar.bid_close })); }

/** How the bid has changed in the last quarter of an hour, or since the first stored minute; "" if that is not known. */
function change(f) {
  const at = seconds(f.ts_event), first = closes.find((close) => close.at >= at - CHANGE_S - BAR_S / 2);
  const span = first && Math.round((at - first.at) / 60);
  return span > 0 ? `${signed(f.bid_usd - first.bid, priceDigits(f.bid_usd))} USD (${signed(1e4 * Math.log(f.bid_usd / first.bid), 1)} bps) in ${span} min` : "";
}

/** How a volatility compares with what is usual: a word and a sentence. */
function compared(sigma) {
  if (!usual || !usual.median_bps) return ["", usual ? "What is usual at this hour is not known yet." : ""];
  const ratio = sigma / usual.median_bps, hour = `${String(usual.hour_utc).padStart(2, "0")}–${String((usual.hour_utc + 1) % 24).padStart(2, "0")} UTC`;
  const word = ratio >= EXTREME ? "far above usual" : ratio >= MUCH ? "above usual" : ratio <= LITTLE ? "below usual" : "as usual";
  return [word, `${number(ratio, 1)} × the usual ${short(usual.median_bps)} bps of ${hour} (median of ${usual.days} ${usual.days === 1 ? "day" : "days"})`];
}

function showBid(f, digits) {
  setText("bid", number(f.bid_usd, digits));
  setText("bid_note", `at ${clock(seconds(f.ts_event), true)} UTC`);
}

function showAhead(f) {
  const end = f.horizons.at(-1), interval = end.intervals.find((i) => i.level_pct === LEVEL_PCT);
  setText("ahead_time", clock(seconds(end.at)));
  if (interval) {
    const digits = rangeDigits(interval.high_usd - interval.low_usd);
    setText("ahead", `${number(interval.low_usd, digits)} – ${number(interval.high_usd, digits)}`);
    setText("ahead_note", Math.abs(end.bid_bps) < 0.005
      ? `holds the bid with 90 % probability; centre ${number(end.bid_usd, digits)}, as now`
      : `holds the bid with 90 % probability; centre ${number(end.bid_usd, digits)} (${signed(end.bid_bps, 2)} bps)`);
  } else {
    const half = 1.645 * end.bid_usd * end.sigma_bps / 1e4;
    setText("ahead", `${number(end.bid_usd - half)} – ${number(end.bid_usd + half)}`);
    setText("ahead_note", `± 1.645 σ: ${f.intervals_reason ?? "there are no intervals"}`);
  }
  const { bid } = f.models, centre = bid.kind === "random_walk" ? "The centre is the present bid. " : "";
  setText("ahead_why", f.bid_baseline_reason ? `${centre}${f.bid_baseline_reason}` : `Forecast by ${kindName(bid.kind)}, version ${bid.version}.`);
}

/** The quality is a mark with its reasons; a good one is a word in the line that says when the forecast was made. */
function showQuality({ word, reasons }) {
  setText("quality_word", word);
  $("quality_word").hidden = $("quality_why").hidden = word === "good";
  $("quality_word").dataset.verdict = word === "poor" ? "bad" : "warn";
  setText("quality_why", `${word === "poor" ? "Do not act on this forecast." : "Use this forecast with care."} ${reasons.map((reason) => reason.text).join(" ")}`);
}

function showVolatility(f) {
  const end = f.horizons.at(-1), [word, sentence] = compared(end.sigma_bps), { volatility } = f.models;
  setText("sigma", `${short(end.sigma_bps)} bps`);
  setText("sigma_word", word);
  $("sigma_word").hidden = !word;
  $("sigma_word").dataset.verdict = word === "as usual" || word === "below usual" ? "good" : "warn";
  setText("sigma_note", sentence || `about ${number(end.bid_usd * end.sigma_bps / 1e4)} USD`);
  setText("sigma_why", f.volatility_baseline_reason
    ?? `Forecast by ${kindName(volatility.kind)}, version ${volatility.version}; HARX, its baseline, says ${short(end.baseline_sigma_bps)} bps.`);
}

function showLatency(f, now) {
  latencies = latencies.filter(([at]) => at > now - MEDIAN_OF_MS);
  const sorted = latencies.map(([, ms]) => ms).sort((a, b) => a - b), median = sorted[Math.floor(sorted.length / 2)];
  const verdict = median < 0 ? "clocks differ" : median <= NORMAL_MS ? "normal" : median <= SLOW_MS ? "slow" : "late";
  setText("latency", `${number(median, median < 10 ? 1 : 0)} ms`);
  setText("latency_word", verdict);
  $("latency_word").hidden = false;
  $("latency_word").dataset.verdict = verdict === "normal" ? "good" : verdict === "late" ? "bad" : "warn";
  setText("latency_note", `median of the last minute; normal up to ${NORMAL_MS}\u00a0ms, late above ${SLOW_MS / 1000}\u00a0s`);
  setText("latency_why", f.source === "api" ? "The API made this forecast, because the forecast worker is late." : `Data ${duration(f.feature_age_s)} old when sent; the API refuses to forecast from data that is too old.`);
}

/** Show a forecast. What nobody can read four times a second changes once a second. */
export function showForecast(f) {
  const now = performance.now(), digits = priceDigits(f.bid_usd);
  latencies.push([now, f.latency_ms]);
  document.title = `${number(f.bid_usd, digits)} ${f.symbol}`;
  showBid(f, digits);
  if (now - shownAt < SETTLE_MS) return;
  shownAt = now;
  for (const card of document.querySelectorAll(".figures .card, #horizons")) card.dataset.state = "ok";
  setText("bid_change", change(f));
  showAhead(f);
  showQuality(f.quality);
  showVolatility(f);
  showLatency(f, now);
  showHorizons(f);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1);
const HEADINGS = ["Ahead", "90 % interval of the bid, USD", "Change, bps", "σ, bps", "σ, % a year", "HARX σ, bps"];

function showHorizons(f) {
  const isFlat = f.horizons.every((h) => Math.abs(h.bid_bps) < 0.005), isHarx = f.models.volatility.kind === "harx";
  const kept = [true, true, !isFlat, true, true, !isHarx], keep = (cells) => cells.filter((_, at) => kept[at]);
  const headings = keep(HEADINGS), widest = f.horizons.at(-1).intervals.find((i) => i.level_pct === LEVEL_PCT);
  const digits = widest ? rangeDigits(widest.high_usd - widest.low_usd) : 0;
  $("horizon_head").replaceChildren(...headings.map((heading) => Object.assign(element("th", "", heading), { scope: "col" })));
  $("rows").replaceChildren(...f.horizons.map((h) => {
    const interval = h.intervals.find((i) => i.level_pct === LEVEL_PCT);
    return tableRow(headings, keep([`${h.horizon_min} min`, interval ? `${number(interval.low_usd, digits)} – ${number(interval.high_usd, digits)}` : "–",
      signed(h.bid_bps, 2), short(h.sigma_bps), number(h.sigma_annualized_pct), short(h.baseline_sigma_bps)]));
  }));
  const left = [isFlat && "the bid is forecast to stay", isHarx && "HARX itself serves"].filter(Boolean).join(", and ");
  setText("horizon_note", [left && `Columns without news are left out: ${left}.`, f.intervals_reason && `${widest ? sentence(f.intervals_reason) : `No intervals: ${f.intervals_reason}`}.`].filter(Boolean).join(" "));
  setText("made_at", `Made at ${f.made_at.slice(11, 23)} UTC from features ${f.feature_version}; quality: ${f.quality.word}.`);
}

/** Show the spread and the order flow of the event `features`. */
export function showFeatures({ values: v }) {
  setText("spread", v.spread_bps === null ? "–" : `${number(v.spread_bps, Math.abs(v.spread_bps) < 0.1 ? 3 : 2)} bps`);
  setText("ofi", v.ofi_30s === null ? "–" : signed(v.ofi_30s, 1));
  setText("taker", v.trade_sign_imbalance_60s === null ? "–" : `${signed(100 * v.trade_sign_imbalance_60s)} %`);
}
