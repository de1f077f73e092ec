/* The page for operators: shows /v1/operations. All numbers come from the API. */

import { getJson } from "./api.js";
import { $, clock, duration, element, moment, number, seconds, setText, tableRow } from "./format.js";

const PERIOD_MS = 5_000, OLD_S = 40, FEW = 10, GB = 1e9, MB = 1e6;
const VERDICTS = { firing: "bad", pending: "warn", ok: "good", unknown: "unknown" }, TITLES = { feed: "Feed", pipeline: "Pipeline", forecasts: "Forecasts", storage: "Storage", models: "Models" };

const BACKUPS = { databases: "Databases and settings", second_copy: "Copy at a second place", restore_drill: "Restored as a test" };
const BACKUP_VERDICTS = { fresh: "good", old: "bad", failed: "bad", never: "warn", not_set_up: "unknown", unknown: "unknown" };

let state = "";

/** A word with the colour of its verdict. */
function chip(words, verdict) {
  const made = element("span", "verdict", words);
  made.dataset.verdict = verdict;
  return made;
}

const orDash = (v, words) => (v === null || v === undefined ? "–" : words(v));

/** Fill a table; without rows it says why in one line. */
function fill(id, headings, rows, reason) {
  const table = $(id);
  table.tHead.replaceChildren(element("tr", "", ...headings.map((heading) => Object.assign(element("th", "", heading), { scope: "col" }))));
  table.tHead.hidden = !rows.length;
  const empty = Object.assign(element("td", "", reason), { colSpan: headings.length });
  table.tBodies[0].replaceChildren(...(rows.length ? rows.map((cells) => tableRow(headings, cells)) : [element("tr", "empty", empty)]));
}

/** A link to the section of the runbook about an alert or a server: in the documentation of `BTC_LINKS_RUNBOOK_URL`, or in the page of this API. */
function runbook({ runbook: place }, ...content) {
  const isOutside = /^https?:/.test(place), href = isOutside ? place : `runbook${place.slice(place.indexOf("#"))}`;
  return Object.assign(element("a", "", ...(content.length ? content : ["runbook"])), { href, rel: isOutside ? "noreferrer" : "" });
}

function showAlerts(alerts) {
  const count = (state) => alerts.filter((a) => a.state === state).length, raised = alerts.filter((a) => a.state === "firing" || a.state === "pending"), unknown = count("unknown");
  setText("alert_summary", `${count("firing")} of ${alerts.length} fire${count("pending") ? `, and ${count("pending")} soon` : ""}${unknown ? `; ${unknown} cannot be judged yet, because their figures are not there` : ""}.`);
  $("alert_table").hidden = !raised.length;
  fill("alert_table", ["Alert", "State", "What was found", "What to do"], raised.map((a) => [element("b", "", a.name),
    chip(a.state === "pending" ? `pending, fires after ${duration(a.lasting_s)}` : "firing", VERDICTS[a.state]), a.details.join("; "), runbook(a)]), "");
  $("all_alerts").replaceChildren(...alerts.map((a) => element("li", "", runbook(a, chip(a.state === "unknown" ? `${a.name}: not known` : a.name, VERDICTS[a.state])))));
}

function showParts(parts) {
  $("parts").replaceChildren(...parts.map((part) => {
    const link = element("a", "part", element("i", "dot"), element("b", "", TITLES[part.name]), element("span", "", part.summary));
    link.href = `#${part.name}`;
    link.dataset.verdict = part.verdict;
    return element("li", "", link);
  }));
}

function showTables(o) {
  fill("process_table", ["Worker", "State", "Loop", "Lag", "Unwritten", "Memory", "Since (UTC)"], o.processes.map((p) => [p.name,
    chip(p.up ? "runs" : "down", p.up ? "good" : "bad"), orDash(p.loop_age_s, duration), orDash(p.lag_messages, (v) => number(v)),
    orDash(p.unwritten_age_s, duration), orDash(p.memory_bytes, (v) => `${number(v / MB)} MB`), orDash(p.started_at, (v) => moment(seconds(v)))]), o.processes_reason ?? "");
  setText("process_note", [...o.processes.map((p) => p.problem), o.processes.length ? "Loop: time since its last iteration. Lag: messages whose rows are not written yet." : ""].filter(Boolean).join(". "));
  showServers(o.servers);
  fill("stage_table", ["Stage", "p50", "p99", "Results"], o.stages.map((s) => [s.stage, orDash(s.p50_ms, (v) => `${number(v, 1)} ms`), orDash(s.p99_ms, (v) => `${number(v, 1)} ms`), number(s.results)]), "No result in the last minute.");
  const rates = new Map(o.channels.map((c) => [c.channel, c.frames_per_s]));
  fill("feed_table", ["Channel", "Market", "State", "Frames/s, all"], o.subscriptions.map((s) => [s.channel, s.symbol, chip(s.state, s.state === "live" || s.state === "data" ? "good" : "warn"), number(rates.get(s.channel) ?? 0, 1)]), "No subscription is known; ingest does not answer.");
  fill("gap_table", ["Shown at (UTC)", "Market", "Ids", "Missing", "State"], o.gaps.map((g) => [moment(seconds(g.ts_event)), g.symbol, `${g.first_id} – ${g.last_id}`, number(g.missing), chip(g.state, g.state === "open" ? "warn" : "good")]), "No gap in seven days.");
  fill("dead_table", ["Reason", "Worker", "Last 15 min", "Total"], o.dead_letters.map((d) => [d.reason.replaceAll("_", " "), d.process, number(d.recent), number(d.count)]), "None.");
  const done = (v) => (v === null ? chip("not known", "warn") : v ? chip("yes", "good") : chip("no", "warn"));
  fill("day_table", ["Day (UTC)", "Sealed", "Copied", "Log archived"], o.days.map((d) => (d.minutes || d.sealed_minutes ? [d.day, d.sealed_minutes ? chip(`${number(d.sealed_minutes)} min`, "good") : chip("no", "warn"), done(d.copied), done(d.archived)] : [d.day, "no data", "–", "–"])), "Not collected yet.");
  const behind = o.tables.filter((t) => t.suspended || t.lag_transactions > FEW);
  fill("table_table", ["Table", "State", "Transactions behind"], behind.map((t) => [t.table, chip(t.suspended ? "suspended" : "behind", t.suspended ? "bad" : "warn"), number(t.lag_transactions)]), o.tables.length ? `All ${o.tables.length} tables show what was written.` : "QuestDB has not answered yet.");
  const steps = ["nothing is left out", "order books are left out", "order books and superseded quotes are left out", "Kafka is stopped"];
  setText("disk", o.disk ? `${o.disk.path}: ${number(o.disk.free_bytes / GB, 1)} GB free, ${o.disk.days_left === null ? "not filling" : `full in ${duration(o.disk.days_left * 86_400)} at the rate of the last day`}; ${steps[o.disk.saving_step]}.` : "No disk is watched, or bronze does not answer.");
}

function showServers(servers) {
  const state = ({ up }) => (up === null ? chip("no answer yet", "warn") : up ? chip("answers", "good") : chip("down", "bad"));
  fill("server_table", ["Server", "State", "What to do"], servers.map((s) => [s.name, state(s), s.up ? "–" : runbook(s)]), "The API watches no server.");
  setText("server_note", servers.filter((s) => s.problem).map((s) => `${s.name}: ${s.problem}`).join(". ") || "The API asks each of them every 15 seconds.");
}

function showBackups(backups) {
  fill("backup_table", ["What", "State", "When (UTC)"], backups.map((b) => [runbook(b, BACKUPS[b.name]), chip(b.state.replaceAll("_", " "), BACKUP_VERDICTS[b.state]),
    orDash(b.at, (at) => `${moment(seconds(at))}, ${duration(Date.now() / 1000 - seconds(at))} ago`)]), "");
}

function showMarkets({ markets }) {
  fill("market_table", ["Market", "State", "Features", "Forecast", "Reasons"], markets.map((m) => [m.symbol, chip(m.status.replaceAll("_", " "), m.status === "ready" ? "good" : "warn"), orDash(m.feature_age_s, duration), orDash(m.forecast_age_s, duration), m.reasons.join("; ") || "–"]), "No market is followed.");
  const rows = markets.flatMap((m) => Object.entries(m.models).map(([quantity, model]) => [`${m.symbol}, ${quantity}`, (model.kind ?? "none").replaceAll("_", " "), model.version ?? "–", model.is_baseline ? "baseline" : "model"]));
  fill("model_table", ["Market", "Kind", "Version", "Role"], rows, "No model is loaded.");
}

/** Change the state of the connection; the announcement changes only with it. */
function enter(next, message = "") {
  if (state === next) return;
  if (state && next === "live") setText("announcement", "The state is current again.");
  state = next;
  document.body.dataset.connection = next;
  $("trouble").hidden = !message;
  setText("trouble_text", message);
}

async function refresh() {
  try {
    const [o, markets] = await Promise.all([getJson("operations", {}, null), getJson("markets", {}, null)]);
    $("simulated").hidden = !o.simulated;
    const age = o.collected_at === null ? null : Date.now() / 1000 - seconds(o.collected_at);
    setText("connection", age === null ? "not collected yet" : `collected at ${clock(seconds(o.collected_at), true)} UTC`);
    $("problems").hidden = !o.problems.length;
    setText("problems", o.problems.length ? `Not collected: ${o.problems.join("; ")}` : "");
    showParts(o.parts);
    showAlerts(o.alerts);
    showTables(o);
    showBackups(o.backups);
    showMarkets(markets);
    const isFirst = $("cards").hidden;
    $("cards").hidden = false;
    if (isFirst && location.hash) document.querySelector(location.hash)?.scrollIntoView();
    if (age !== null && age > OLD_S) enter("stale", "The API has not collected the state for a while; its log says why.");
    else enter("live");
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    setText("connection", "no connection");
    enter("down", `The state could not be loaded: ${error.message}. This page keeps trying.`);
  }
  setTimeout(refresh, PERIOD_MS);
}

refresh();
