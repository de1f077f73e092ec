/* Requests to the API, one stored read at a time, and the state of each card. What does not belong here: the stream. */

import { element } from "./format.js";

const TIMEOUT_MS = 8_000, RETRY_S = 15, EMPTY_S = 5;

export const symbol = new URLSearchParams(location.search).get("symbol");

/** The API refused; `body` is its problem document. */
export class Refused extends Error {
  constructor(body) { super(body.detail ?? "the API refused without a reason"); this.body = body; }
}

/** The JSON of a path below /v1, for the market of this page unless `market` is another. */
export async function getJson(path, query = {}, market = symbol) {
  const parameters = new URLSearchParams(query);
  if (market) parameters.set("symbol", market);
  let response, body;
  try {
    response = await fetch(`v1/${path}?${parameters}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    body = await response.json();
  } catch (error) {
    throw new Error(error.name === "TimeoutError" ? "the API took too long" : "the API does not answer", { cause: error });
  }
  if (!response.ok) throw new Refused(body);
  return body;
}

let last = Promise.resolve();

/** Run reads of stored rows one after the other: the API allows two at a time for all of its clients. */
export function inTurn(read) {
  const result = last.then(read, read);
  last = result.catch(() => {});
  return result;
}

/** A card: loading, ok, empty with a reason, or failed with the time of the next attempt. */
export class Card {
  constructor(id) {
    this.root = document.getElementById(id);
    this.note = element("p", "cardnote");
    this.note.hidden = true;
    this.root.querySelector("h2").after(this.note);
    this.set("loading");
  }

  set(state, message = "") {
    if (state === "failed" && this.hasData) this.root.dataset.state = "old";
    else this.root.dataset.state = state;
    this.hasData ||= state === "ok";
    this.root.toggleAttribute("aria-busy", state === "loading");
    this.note.hidden = !message;
    if (this.note.textContent !== message) this.note.textContent = message;
  }
}

/** Fill a card now and every `everyS` seconds, sooner if `load` returns a reason why there is nothing to show or fails. */
export function keepFilled(card, everyS, load) {
  let waiting = 0, countdown = 0;
  async function run() {
    clearTimeout(waiting);
    clearInterval(countdown);
    try {
      const reason = await load();
      card.set(reason ? "empty" : "ok", reason || "");
      waiting = setTimeout(run, (reason ? Math.min(everyS, EMPTY_S) : everyS) * 1_000);
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      console.warn(`${card.root.id}: ${error.message}`);
      let left = RETRY_S;
      const say = () => card.set("failed", `Could not load: ${error.message}. Again in ${left} s.`);
      say();
      countdown = setInterval(() => { left -= 1; if (left > 0) say(); }, 1_000);
      waiting = setTimeout(run, RETRY_S * 1_000);
    }
  }
  run();
  return run;
}
