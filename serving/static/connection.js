/* The state of the connection, and the stream that drives it. Its announcement changes only when the state does. */

import { $, duration, element, setText } from "./format.js";
import { getJson, Refused, symbol } from "./api.js";

const SILENT_MS = 6_000, RECONNECT_MS = 1_000;

/** What the page says in each state; the API's own words take the place of a null. */
const MESSAGES = {
  loading: "",
  live: "",
  stale: null,
  problem: null,
  silent: "The API has sent nothing for several seconds. This page keeps listening.",
  down: "The API does not answer. This page keeps trying.",
  unknown: null,
};
const WORDS = { loading: "connecting…", live: "live", stale: "data too old", problem: "no forecast", silent: "silent", down: "no connection", unknown: "no such market" };

let state = "loading", key = "loading", sinceMs = performance.now(), lastEventMs = performance.now(), ageS = null;

/** Change the state. `code` tells problems apart; the same state with the same code changes nothing. */
function enter(next, code = "", message = MESSAGES[next]) {
  if (key === next + code) return;
  const before = state;
  state = next;
  key = next + code;
  sinceMs = performance.now();
  document.body.dataset.connection = next;
  $("trouble").hidden = !message;
  setText("trouble_text", message ?? "");
  if (next === "live" && before !== "loading") setText("announcement", "The forecasts are live again.");
  else if (next !== "live") setText("announcement", "");
  tick();
}

/** Show what changes every second: it is announced to nobody. */
function tick() {
  if (state === "live" && performance.now() - lastEventMs > SILENT_MS) return enter("silent");
  setText("connection", state === "live" && ageS !== null ? `live, data ${duration(ageS)} old` : WORDS[state]);
  setText("trouble_since", state === "live" || state === "loading" || state === "unknown" ? "" : `for ${duration((performance.now() - sinceMs) / 1000)}`);
}

/** Follow the stream; each handler gets the body of its event. */
export function follow(handlers) {
  const source = new EventSource(`v1/stream${symbol ? `?symbol=${encodeURIComponent(symbol)}` : ""}`);
  const on = (name, handle) => source.addEventListener(name, (event) => { lastEventMs = performance.now(); handle(JSON.parse(event.data)); });
  on("forecast", (f) => { ageS = f.feature_age_s; enter("live"); handlers.forecast(f); });
  on("problem", (p) => enter(p.code === "stale_features" ? "stale" : "problem", p.code, p.detail));
  on("features", handlers.features);
  on("health", handlers.health);
  source.onerror = () => {
    enter("down");
    if (source.readyState === EventSource.CLOSED) setTimeout(follow, RECONNECT_MS, handlers);  // the API refused, and the browser does not try again
  };
}

/** Offer the markets for choice. Returns the symbol of this page, or null after showing that it is not followed. */
export async function chooseMarket() {
  setInterval(tick, 1_000);
  for (;;) {
    try {
      const { markets, default: first } = await getJson("markets", {}, null);
      const symbols = markets.map((m) => m.symbol), shown = symbol ?? first;
      $("market").replaceChildren(...markets.map((m) => new Option(m.status === "ready" ? m.symbol : `${m.symbol} (${m.status.replaceAll("_", " ")})`, m.symbol, false, m.symbol === shown)));
      if (symbols.includes(shown)) {
        $("market").hidden = symbols.length === 1;
        return shown;
      }
      await refuse(symbols);
      return null;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      enter("down");
      await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
    }
  }
}

/** Show the API's own message about a market that it does not follow, and the markets to choose. */
async function refuse(symbols) {
  let message = `${symbol} is not followed.`;
  try { await getJson("model"); } catch (error) { if (error instanceof Refused) message = error.message; }
  $("market").prepend(new Option("choose a market", "", true, true));
  $("market").hidden = false;
  $("choices").replaceChildren(...symbols.map((each) => Object.assign(element("a", "choice", each), { href: `?symbol=${encodeURIComponent(each)}` })));
  enter("unknown", "", message);
}
