/* The models that serve, why they do, and what the current forecast comes from. */

import { $, duration, element, kindName, moment, number, seconds, setText, short, signed, withUnit } from "./format.js";
import { HEADLINE, HEADLINE_MIN } from "./horizons.js";

const WINDOWS_MIN = [[5, "last 5 min"], [15, "15 min"], [60, "hour"], [240, "4 hours"], [1_440, "day"]], RECENT_MS = 1_000;
let recentAt = -Infinity;

const MEMBERS = { trees: "trees (XGBoost)", net: "neural net", harx: "HARX" };

const sentence = (words) => `${words[0].toUpperCase()}${words.slice(1)}.`;

/** The version that the gate refused, why unless the words `above` say it already, and how it does on live rows. */
function inShadow({ version, kind, reason, loss_ratio: ratio, loss_ratio_bound: bound, rows, since }, above) {
  const change = (value) => `${number(100 * Math.abs(value - 1), Math.abs(value - 1) < 0.01 ? 2 : 1)} % ${value < 1 ? "lower" : "higher"}`;
  const live = ratio === null ? "Its score on live forecasts follows after an hour." : `On ${number(rows)} live rows since ${moment(seconds(since))} UTC its loss was ${change(ratio)} than the baseline’s (95 %: at most ${change(bound)}).`;
  return `In shadow, not serving: ${kindName(kind).replace(/^the /, "")} version ${version}. The gate refused it${above.startsWith(reason) ? " for the reason above" : `: ${reason}`}. ${live}`;
}

function about(card) {
  if (!card) return [element("p", "", "There is no model yet. The first training starts once there are enough minute bars.")];
  const age = duration(Date.now() / 1000 - seconds(card.created_at));
  const parts = [element("p", "served", element("b", "", kindName(card.kind).replace(/^the /, "")), ` version ${card.version}, made ${age} ago from ${number(card.train_rows)} rows`), element("p", "", card.serves_because)];
  if (card.gate) parts.push(element("p", "note", `In the gate’s words: ${card.gate.reason}.`));
  if (card.refused) parts.push(element("p", "refused", inShadow(card.refused, card.gate?.reason ?? "")));
  if (card.pretrained) parts.push(element("p", "note", sentence(card.pretrained)));
  if (card.choice) parts.push(element("p", "note", sentence(card.choice)));
  const members = Object.entries(card.members);
  if (members.length) parts.push(element("ul", "shares", ...members.map(([name, share]) => bar(`${MEMBERS[name] ?? name}, ${number(100 * share)} %`, share))));
  if (card.inputs_used) parts.push(element("p", "note", inputsOf(card)));
  return parts;
}

/** How many inputs the trees use, which of them gained most, and what those that only the stream has gained. */
function inputsOf(card) {
  const percent = (share) => `${number(100 * share)} %`;
  const largest = Object.entries(card.gains).slice(0, 3).map(([name, share]) => `${name} ${percent(share)}`).join(", ");
  const stream = `${percent(card.stream_gain)} of the gain is from inputs that only the stream has, learned from ${card.streamed_days} sealed days`;
  return `The trees use ${card.inputs_used} of ${card.inputs_offered} inputs. Share of the gain: ${largest}. ${stream}.`;
}

/** Words with a bar of a share of the full width. */
function bar(words, share) {
  const filled = element("i");
  filled.style.width = `${Math.max(0, Math.min(1, share)) * 100}%`;
  return element("li", "", element("span", "", words), element("span", "bar", filled));
}

/** Show how volatile the market was over windows of the past, each scaled to the longest horizon, once a second. */
export function showRecent({ values }) {
  if (performance.now() - recentAt < RECENT_MS) return;
  recentAt = performance.now();
  const known = WINDOWS_MIN.map(([min, words]) => [words, values[`log_rv_${min}m`], min]).filter(([, log]) => log !== null && log !== undefined)
    .map(([words, log, min]) => [words, 1e4 * Math.exp(log / 2) * Math.sqrt(HEADLINE_MIN / min)]);
  const most = Math.max(...known.map(([, sigma]) => sigma));
  $("recent").replaceChildren(...known.map(([words, sigma]) => bar(`${words}: ${short(sigma)} bps`, sigma / most)));
}

/** Show both models. Returns why there is none; the page of a market without models asks again soon. */
export function showModels(answer) {
  $("volatility_model").replaceChildren(...about(answer.volatility));
  $("bid_model").replaceChildren(...about(answer.bid));
  const reasons = answer.reasons.join("; "), isEmpty = !answer.volatility && !answer.bid;
  setText("model_reasons", isEmpty ? "" : reasons);
  return isEmpty ? reasons || "There is no model." : "";
}

/** Which kinds serve, by quantity: a model is not compared with itself. */
export const kindsOf = (answer) => ({ volatility: answer.volatility?.kind, bid: answer.bid?.kind });

/** How much an input changes σ, from what it adds to the log variance. */
const effectOn = (c) => `${signed(100 * Math.expm1(c / 2), Math.abs(c) < 0.02 ? 1 : 0)} %`;

/** What inputs add to a forecast, in words, one item each. `meanings` has the features and the columns of minute bars by name. */
export function contributionItems(contributions, meanings) {
  return contributions.map((c) => {
    const known = c.meaning ? c : meanings.get(c.feature), isPlain = c.value !== null && known && !known.unit.startsWith("ln");
    const meaning = c.feature === "net" ? "the neural net’s correction of HARX" : known?.meaning.split(/, which|;| \(/)[0] ?? c.feature.replaceAll("_", " ");
    const value = isPlain ? ` It is ${withUnit(c.value, known.unit)}.` : "";
    return element("li", "", element("b", c.contribution > 0 ? "more" : "less", effectOn(c.contribution)), ` ${meaning}.${value}`);
  });
}

/** Show the parts of the forecast in words. Returns why there are none. */
export function showExplanation(answer, meanings) {
  const sigma = 1e4 * Math.exp(answer.log_variance / 2);
  $("explanation").replaceChildren(...contributionItems(answer.contributions, meanings));
  $("explanation").hidden = !answer.contributions.length;
  if (answer.reason) {
    setText("explanation_note", `${sentence(answer.reason)} HARX is a weighted mean of the volatilities of the last minutes, hours and days; it says ${number(sigma, 1)} bps.`);
  } else {
    setText("explanation_note", `What raises or lowers σ over ${HEADLINE}, now ${number(sigma, 1)} bps, by TreeSHAP. All other inputs together: ${effectOn(answer.rest)}.`);
  }
}
