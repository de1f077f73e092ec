"use strict";
/* The live page: listens to /v1/stream, shows what it says, asks for the past. Numbers come from the API alone. */

const SILENT_MS = 6_000, RECONNECT_MS = 1_000, PAST_MS = 15_000, TIMEOUT_MS = 5_000;
const $ = (id) => document.getElementById(id);
const about = new URLSearchParams(location.search).get("symbol");
const symbolQuery = about ? `symbol=${encodeURIComponent(about)}` : "";
let charts, openedBid = null, heardMs = performance.now(), newest = null, newestFeatures = null, drawn = true;

const usd = (v, d = 2) => v.toLocaleString("en-US", { minimumFractionDigits: d, maximumFractionDigits: d }).replace("-", "−");
const fixed = (v, d) => (v === null || v === undefined ? "–" : usd(v, d));
const signed = (v, d) => { const t = usd(Math.abs(v), d); return Number(t.replaceAll(",", "")) === 0 ? t : (v < 0 ? "−" : "+") + t; };
const text = (id, value) => { if ($(id).textContent !== value) $(id).textContent = value; };
const model = (m) => `${(m.kind ?? "none").replace("_", " ")} ${m.version ?? ""}${m.is_baseline ? " (baseline)" : ""}`;

function row(cells) {
  const made = document.createElement("tr");
  for (const cell of cells) { const td = document.createElement("td"); td.textContent = cell; made.append(td); }
  return made;
}

function trouble(words) {
  $("trouble").hidden = !words;
  document.body.classList.toggle("old", Boolean(words));
  if (!words) return;
  text("trouble", words);
  text("age", "no fresh forecast");
  $("dot").className = "bad";
}

function show(f) {
  const end = f.horizons.at(-1), move = end.bid_bps;
  document.title = `${usd(f.bid_usd, 1)} ${f.symbol}`;
  text("symbol", f.symbol);
  $("simulated").hidden = !f.simulated;
  text("age", `features ${f.feature_age_s.toFixed(1)} s old`);
  $("dot").className = "good";
  text("bid", usd(f.bid_usd));
  openedBid ??= f.bid_usd;
  text("bid_note", `${signed(f.bid_usd - openedBid, 2)} since this page opened`);
  text("ahead", usd(end.bid_usd));
  const change = document.createElement("span");
  change.textContent = `${signed(move, 2)} bps`;
  change.className = Math.abs(move) < 0.005 ? "" : move > 0 ? "up" : "down";
  $("ahead_note").replaceChildren(change, ` ± ${usd(end.bid_usd * end.sigma_bps / 1e4)} USD`);
  text("sigma", `${end.sigma_bps.toFixed(2)} bps`);
  text("sigma_note", `${end.sigma_annualized_pct.toFixed(1)} % a year; HARX ${fixed(end.baseline_sigma_bps, 2)} bps`);
  text("latency", `${f.latency_ms.toFixed(1)} ms`);
  text("latency_note", `${Math.max(0, Date.now() - Date.parse(f.ts_event))} ms until it was here`);
  const widest = f.horizons[0].intervals.reduce((most, i) => Math.max(most, i.level_pct), 0);
  $("interval_head").textContent = widest ? `${widest} % interval, USD` : "Interval";
  $("rows").replaceChildren(...f.horizons.map((h) => {
    const interval = h.intervals.find((i) => i.level_pct === widest);
    return row([`${h.horizon_min} min`, fixed(h.bid_usd, 2), signed(h.bid_bps, 2), fixed(h.sigma_bps, 2), fixed(h.sigma_annualized_pct, 1),
      fixed(h.baseline_sigma_bps, 2), interval ? `${usd(interval.low_usd)} – ${usd(interval.high_usd)}` : "–"]);
  }));
  text("bid_model", model(f.models.bid));
  text("volatility_model", model(f.models.volatility));
  text("made_at", f.made_at.slice(0, 23).replace("T", " ") + (f.source === "api" ? " (by the API, the worker is behind)" : ""));
  text("feature_version", f.feature_version);
}

function showFeatures(f) {
  text("spread", fixed(f.values.spread_bps, 2));
  text("ofi", fixed(f.values.ofi_30s, 2));
  text("taker", fixed(f.values.trade_sign_imbalance_60s, 2));
}

function showHealth(h) {
  $("simulated").hidden = !h.simulated;
  text("service", h.reasons.length ? `${h.status}: ${h.reasons.join("; ")}` : h.status);
  text("ages", `${fixed(h.feature_age_s, 1)} s and ${fixed(h.forecast_age_s, 1)} s`);
}

/** Charts are drawn at most once a frame, and not at all while the page is hidden. */
function draw() {
  if (!drawn) return;
  drawn = false;
  requestAnimationFrame(() => {
    drawn = true;
    if (newest) text("fan_words", charts.forecast(newest));
    if (newestFeatures) charts.flow(newestFeatures);
  });
}

async function ask(path, query) {
  const response = await fetch(`/v1/${path}?${[query, symbolQuery].filter(Boolean).join("&")}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
  const body = await response.json();
  if (!response.ok) throw new Error(body.detail);
  return body;
}

/** The past and the skill; they may fail without stopping the present. */
async function past(first) {
  const jobs = [
    Promise.all([ask("forecasts", "step_s=60&limit=66"), ask("bars", "limit=66")]).then(([f, b]) => { if (f.forecasts.length) charts.volatility(f.forecasts, b.bars); }),
    ask("skill", "hours=24").then(showSkill),
  ];
  if (first) jobs.push(ask("forecasts", "step_s=5&limit=121").then((f) => { charts.past(f.forecasts); draw(); }));
  const failed = (await Promise.allSettled(jobs)).find((job) => job.status === "rejected");
  if (failed) console.warn(failed.reason.message);
  setTimeout(past, PAST_MS, Boolean(first && failed));
}

function showSkill(skill) {
  $("skill_reason").hidden = !skill.reason;
  $("skill_table").hidden = skill.rows.length === 0;
  text("skill_reason", skill.reason ?? "");
  const number = (v) => (v === null ? "–" : Number(v.toPrecision(3)).toString());
  const covered = skill.coverage.filter((c) => c.level_pct === 90).map((c) => `${c.quantity} ${number(c.covered_pct)} %`);
  text("coverage", covered.length ? `90 % intervals held: ${covered.join(", ")}, of ${skill.coverage[0].forecasts} forecasts` : "");
  $("skill_rows").replaceChildren(...skill.rows.map((r) => row([r.quantity, `${r.horizon_min} min`, r.loss, number(r.model_loss), `${number(r.baseline_loss)} (${r.baseline})`, number(r.ratio)])));
}

function connect() {
  const source = new EventSource(`/v1/stream?${symbolQuery}`);
  const on = (name, act) => source.addEventListener(name, (event) => { heardMs = performance.now(); act(JSON.parse(event.data)); });
  on("forecast", (f) => { trouble(""); newest = f; show(f); draw(); });
  on("problem", (p) => trouble(p.detail));
  on("features", (f) => { newestFeatures = f; showFeatures(f); });
  on("health", showHealth);
  source.onerror = () => {
    trouble("The API does not answer; this page keeps trying.");
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_MS);  // it was refused: the browser gave up
  };
}

const THEMES = { auto: ["◐ auto", "light dark", "as the system"], dark: ["● dark", "dark", "dark"], light: ["○ light", "light", "light"] };

function theme(name) {
  const [label, scheme, words] = THEMES[name];
  document.documentElement.style.colorScheme = scheme;
  $("theme").textContent = label;
  $("theme").setAttribute("aria-label", `Colours: ${words}`);
  localStorage.setItem("theme", name);
  charts?.paint();
}

$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(localStorage.getItem("theme") ?? "auto") + 1) % names.length]);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.paint());

charts = new Charts();
theme(THEMES[localStorage.getItem("theme")] ? localStorage.getItem("theme") : "auto");
connect();
past(true);
setInterval(() => { if (performance.now() - heardMs > SILENT_MS) trouble("No news from the API; this page keeps listening."); }, 1_000);
