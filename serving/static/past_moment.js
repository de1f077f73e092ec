/* One past moment: what was forecast then, from what, and what it would have been without one input or by another model. */

import { getJson, inTurn } from "./api.js";
import { $, clock, element, moment, number, priceDigits, seconds, setText, short, tableRow } from "./format.js";
import { HEADLINE_MIN, HORIZONS_MIN } from "./horizons.js";
import { contributionItems } from "./model_card.js";

const HEADINGS = ["Forecast", `Bid in ${HEADLINE_MIN} min`, ...HORIZONS_MIN.map((minutes, at) => `${at ? "" : "σ "}${minutes} min`)];
const LARGEST = 5, SETTLE_MS = 250, SVG = "http://www.w3.org/2000/svg";
const WIDTH = 600, HEIGHT = 170, LEFT = 46, RIGHT = 8, TOP = 10, BOTTOM = 26;
const CLASSES = ["path", "base", "flow"];  // of the forecast as it was, then of those that were asked for

/** The chosen time in seconds: the slider counts minutes back from now. */
const chosen = () => Math.floor(Date.now() / 60_000) * 60 + 60 * Number($("past_minutes").value);

const rowOf = (path) =>
  tableRow(HEADINGS, [
    `${path.name[0].toUpperCase()}${path.name.slice(1)}`, number(path.bid_usd.at(-1), priceDigits(path.bid_usd.at(-1))),
    ...path.sigma_bps.map((sigma) => `${short(sigma)} bps`),
  ]);

/** The inputs with the largest effects, as the explanation of the present forecast lists them. */
function largest(answer) {
  const parts = [["net", answer.net], ...Object.entries(answer.trees)].filter(([, effect]) => effect);
  const sorted = parts.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, LARGEST);
  return sorted.map(([feature, contribution]) => ({ feature, contribution, value: answer.features[feature] ?? null }));
}

function drawn(name, attributes, text = "") {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.textContent = text;
  return node;
}

/** Draw σ over each horizon: the forecast as it was, and the others beside it. */
function draw(forecasts) {
  const known = forecasts.flatMap((path) => path.sigma_bps).filter((sigma) => sigma !== null);
  const low = Math.min(...known), high = Math.max(...known), room = high > low ? (high - low) * 0.08 : high * 0.05 || 1;
  const last = Math.max(HORIZONS_MIN.length - 1, 1);
  const x = (at) => LEFT + at / last * (WIDTH - LEFT - RIGHT);
  const y = (sigma) => TOP + (high + room - sigma) / (high - low + 2 * room) * (HEIGHT - TOP - BOTTOM);
  const marks = [low, high].map((sigma) => drawn("text", { x: LEFT - 6, y: y(sigma) + 4, "text-anchor": "end" }, short(sigma)));
  const times = HORIZONS_MIN.map((minutes, at) =>
    drawn("text", { x: x(at), y: HEIGHT - 8, "text-anchor": at === 0 ? "start" : at === last ? "end" : "middle" }, `${minutes} min`));
  const lines = forecasts.map((path, number) => {
    const points = path.sigma_bps.flatMap((sigma, at) => sigma === null ? [] : [`${x(at).toFixed(1)},${y(sigma).toFixed(1)}`]);
    return drawn("polyline", { points: points.join(" "), class: CLASSES[number] });
  });
  $("past_chart").replaceChildren($("past_chart_name"), ...(known.length ? [...marks, ...times, ...lines.reverse()] : []));
  $("past_legend").replaceChildren(...forecasts.map((path, number) => {
    const entry = element("span", "", `σ ${path.name}`);
    entry.prepend(element("i", CLASSES[number], ""));
    return entry;
  }));
}

function offerInputs(answer) {
  const select = $("past_without"), kept = select.value;
  const names = Object.keys(answer.features).filter((name) => name in answer.trees).sort();
  select.replaceChildren(new Option("nothing", ""), ...names.map((name) => new Option(name.replaceAll("_", " "), name)));
  select.value = names.includes(kept) ? kept : "";
}

function show(answer, meanings) {
  const { bid, ask } = answer.features, digits = priceDigits(bid);
  setText("past_quote", `${moment(seconds(answer.made_at))}:${clock(seconds(answer.made_at), true).slice(6)} UTC: bid ${number(bid, digits)}, ask ${number(ask, digits)} USD.`);
  $("past_rows").replaceChildren(...answer.forecasts.map(rowOf));
  draw(answer.forecasts);
  $("past_parts").replaceChildren(...contributionItems(largest(answer), meanings));
  const same = answer.equals_stored ? "The forecast was computed again and equals the stored one to the last bit." : "The stored rows give another forecast than the one that was served: a row of that time was corrected since.";
  setText("past_note", `${same} The command btc verify proves it back to the exchange’s frames.`);
  offerInputs(answer);
}

/** Load the chosen moment when the card is opened or changed; while the slider moves, only the time is shown. */
export function startPastMoment(order) {
  $("past_head").replaceChildren(...HEADINGS.map((heading) => Object.assign(element("th", "", heading), { scope: "col" })));
  let waiting = 0;
  async function load() {
    const query = { at: new Date(chosen() * 1000).toISOString() };
    if ($("past_without").value) query.without = $("past_without").value;
    if ($("past_model").value && $("past_model").validity.valid) query.model = $("past_model").value;
    try {
      show(await inTurn(() => getJson("at", query)), await order);
      $("past_found").hidden = false;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      if (query.model && error.body?.code === "no_model") {  // the choice stays visible, so that it can be changed
        setText("past_note", `Version ${query.model} cannot be shown: ${error.message}.`);
        return;
      }
      $("past_found").hidden = true;
      setText("past_note", `Nothing to show for this moment: ${error.message}.`);
    }
  }
  const soon = () => { clearTimeout(waiting); waiting = setTimeout(load, SETTLE_MS); };
  const showTime = () => setText("past_time", `${moment(chosen())} UTC`);
  $("past_minutes").addEventListener("input", () => { showTime(); soon(); });
  for (const choice of ["past_without", "past_model"]) $(choice).addEventListener("change", load);
  $("past").addEventListener("toggle", () => { if ($("past").open) { showTime(); load(); } });
}
