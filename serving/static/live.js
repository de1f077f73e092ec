"use strict";
/* The live page: shows the events of /v1/stream and asks for past rows. All numbers come from the API. */

const SILENT_MS = 6_000, RECONNECT_MS = 1_000, PAST_MS = 15_000, TIMEOUT_MS = 5_000;
const $ = (id) => document.getElementById(id);
const symbol = new URLSearchParams(location.search).get("symbol");
const symbolQuery = symbol ? `symbol=${encodeURIComponent(symbol)}` : "";
let charts, firstBid = null, lastEventMs = performance.now(), newestForecast = null, newestFeatures = null, isDrawing = false;

const usd = (v, d = 2) => v.toLocaleString("en-US", { minimumFractionDigits: d, maximumFractionDigits: d }).replace("-", "−");
const fixed = (v, d) => (v === null || v === undefined ? "–" : usd(v, d));
const signed = (v, d) => { const t = usd(Math.abs(v), d); return Number(t.replaceAll(",", "")) === 0 ? t : (v < 0 ? "−" : "+") + t; };
const setText = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
const modelName = (m) => `${(m.kind ?? "none").replace("_", " ")} ${m.version ?? ""}${m.is_baseline ? " (baseline)" : ""}`;

function tableRow(cells) {
  const tr = document.createElement("tr");
  for (const cell of cells) { const td = document.createElement("td"); td.textContent = cell; tr.append(td); }
  return tr;
}

/** Show a problem in place of a fresh forecast, or hide it when `message` is empty. */
function showTrouble(message) {
  $("trouble").hidden = !message;
  document.body.classList.toggle("old", Boolean(message));
  if (!message) return;
  setText("trouble", message);
  setText("age", "no fresh forecast");
  $("dot").className = "bad";
}

function showForecast(f) {
  const end = f.horizons.at(-1), move = end.bid_bps;
  document.title = `${usd(f.bid_usd, 1)} ${f.symbol}`;
  setText("symbol", f.symbol);
  $("simulated").hidden = !f.simulated;
  setText("age", `features ${f.feature_age_s.toFixed(1)} s old`);
  $("dot").className = "good";
  setText("bid", usd(f.bid_usd));
  firstBid ??= f.bid_usd;
  setText("bid_note", `${signed(f.bid_usd - firstBid, 2)} since this page opened`);
  setText("ahead", usd(end.bid_usd));
  const change = document.createElement("span");
  change.textContent = `${signed(move, 2)} bps`;
  change.className = Math.abs(move) < 0.005 ? "" : move > 0 ? "up" : "down";
  $("ahead_note").replaceChildren(change, ` ± ${usd(end.bid_usd * end.sigma_bps / 1e4)} USD`);
  setText("sigma", `${end.sigma_bps.toFixed(2)} bps`);
  setText("sigma_note", `${end.sigma_annualized_pct.toFixed(1)} % a year; HARX ${fixed(end.baseline_sigma_bps, 2)} bps`);
  setText("latency", `${f.latency_ms.toFixed(1)} ms`);
  setText("latency_note", `${Math.max(0, Date.now() - Date.parse(f.ts_event))} ms until this page`);
  const widest = f.horizons[0].intervals.reduce((most, i) => Math.max(most, i.level_pct), 0);
  $("interval_head").textContent = widest ? `${widest} % interval, USD` : "Interval";
  $("rows").replaceChildren(...f.horizons.map((h) => {
    const interval = h.intervals.find((i) => i.level_pct === widest);
    return tableRow([`${h.horizon_min} min`, fixed(h.bid_usd, 2), signed(h.bid_bps, 2), fixed(h.sigma_bps, 2), fixed(h.sigma_annualized_pct, 1),
      fixed(h.baseline_sigma_bps, 2), interval ? `${usd(interval.low_usd)} – ${usd(interval.high_usd)}` : "–"]);
  }));
  setText("bid_model", modelName(f.models.bid));
  setText("volatility_model", modelName(f.models.volatility));
  setText("made_at", f.made_at.slice(0, 23).replace("T", " ") + (f.source === "api" ? " (by the API, because the worker is late)" : ""));
  setText("feature_version", f.feature_version);
}

function showFeatures(f) {
  setText("spread", fixed(f.values.spread_bps, 2));
  setText("ofi", fixed(f.values.ofi_30s, 2));
  setText("taker", fixed(f.values.trade_sign_imbalance_60s, 2));
}

function showHealth(h) {
  $("simulated").hidden = !h.simulated;
  setText("service", h.reasons.length ? `${h.status}: ${h.reasons.join("; ")}` : h.status);
  setText("ages", `${fixed(h.feature_age_s, 1)} s and ${fixed(h.forecast_age_s, 1)} s`);
}

/** Draw the charts at most once a frame, and not at all while the page is hidden. */
function draw() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    if (newestForecast) setText("fan_words", charts.showForecast(newestForecast));
    if (newestFeatures) charts.showFlow(newestFeatures);
  });
}

async function getJson(path, query = "", market = symbolQuery) {
  const response = await fetch(`/v1/${path}?${[query, market].filter(Boolean).join("&")}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail);
  return body;
}

/** Offer the followed markets for choice. Returns false if this page is about one that is not followed. */
function showMarkets({ markets, default: first }) {
  const shown = symbol ?? first, symbols = markets.map((m) => m.symbol), isKnown = symbols.includes(shown);
  $("market").replaceChildren(...markets.map((m) => new Option(m.status === "ready" ? m.symbol : `${m.symbol} (${m.status.replaceAll("_", " ")})`, m.symbol, false, m.symbol === shown)));
  if (!isKnown) { $("market").prepend(new Option("choose a market", "", true, true)); showTrouble(`${shown} is not followed; this system follows ${symbols.join(", ")}.`); }
  $("market").hidden = isKnown && markets.length === 1;
  setText("symbol", isKnown ? shown : "no");
  return isKnown;
}

/** Show which fit the trees of this market's model come from, and why. */
function showFit({ volatility: v }) {
  if (!v) return setText("fit", "there is no model yet");
  const trees = v.is_baseline ? "none, a baseline serves" : v.pretrained ? v.pretrained : v.pool.length ? `fitted on ${v.pool.length} markets (${v.pool.join(", ")})` : "fitted on this market";
  setText("fit", v.choice ? `${trees}; ${v.choice}` : trees);
}

/** Load past forecasts, bars and the skill. A failure does not affect the live numbers. */
async function loadPast(isFirst) {
  const jobs = [
    Promise.all([getJson("forecasts", "step_s=60&limit=66"), getJson("bars", "limit=66")]).then(([f, b]) => { if (f.forecasts.length) charts.showVolatility(f.forecasts, b.bars); }),
    getJson("skill", "hours=24").then(showSkill),
    getJson("model").then(showFit),
    getJson("markets", "", "").then(showMarkets),
  ];
  if (isFirst) jobs.push(getJson("forecasts", "step_s=5&limit=121").then((f) => { charts.addPast(f.forecasts); draw(); }));
  const failed = (await Promise.allSettled(jobs)).find((job) => job.status === "rejected");
  if (failed) console.warn(failed.reason.message);
  setTimeout(loadPast, PAST_MS, Boolean(isFirst && failed));
}

function showSkill(skill) {
  $("skill_reason").hidden = !skill.reason;
  $("skill_table").hidden = skill.rows.length === 0;
  setText("skill_reason", skill.reason ?? "");
  const number = (v) => (v === null ? "–" : Number(v.toPrecision(3)).toString());
  const covered = skill.coverage.filter((c) => c.level_pct === 90).map((c) => `${c.quantity} ${number(c.covered_pct)} %`);
  setText("coverage", covered.length ? `Outcomes inside the 90 % intervals: ${covered.join(", ")}, of ${skill.coverage[0].forecasts} forecasts` : "");
  $("skill_rows").replaceChildren(...skill.rows.map((r) => tableRow([r.quantity, `${r.horizon_min} min`, r.loss, number(r.model_loss), `${number(r.baseline_loss)} (${r.baseline.replace("_", " ")})`, number(r.ratio)])));
}

function connect() {
  const source = new EventSource(`/v1/stream?${symbolQuery}`);
  const on = (name, handle) => source.addEventListener(name, (event) => { lastEventMs = performance.now(); handle(JSON.parse(event.data)); });
  on("forecast", (f) => { showTrouble(""); newestForecast = f; showForecast(f); draw(); });
  on("problem", (p) => showTrouble(p.detail));
  on("features", (f) => { newestFeatures = f; showFeatures(f); });
  on("health", showHealth);
  source.onerror = () => {
    showTrouble("The API does not answer; this page keeps trying.");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_MS);  // the API refused, and the browser does not try again
  };
}

const THEMES = { auto: ["◐ auto", "light dark", "as the system"], dark: ["● dark", "dark", "dark"], light: ["○ light", "light", "light"] };

function setTheme(name) {
  const [label, scheme, description] = THEMES[name];
  document.documentElement.style.colorScheme = scheme;
  $("theme").textContent = label;
  $("theme").setAttribute("aria-label", `Colours: ${description}`);
  localStorage.setItem("theme", name);
  charts?.paint();
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(localStorage.getItem("theme") ?? "auto") + 1) % names.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.paint());

charts = new Charts();
setTheme(THEMES[localStorage.getItem("theme")] ? localStorage.getItem("theme") : "auto");
$("market").addEventListener("change", () => { if ($("market").value) location.search = `?symbol=${encodeURIComponent($("market").value)}`; });

/** Start with the markets: a market that is not followed has no stream to wait for. */
async function start() {
  let isKnown = true;
  try { isKnown = showMarkets(await getJson("markets", "", "")); } catch (error) { console.warn(error.message); }
  if (!isKnown) return;
  connect();
  loadPast(true);
  setInterval(() => { if (performance.now() - lastEventMs > SILENT_MS) showTrouble("The API has sent nothing for several seconds; this page keeps listening."); }, 1_000);
}
start();
