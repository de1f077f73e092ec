/* The strip of feed and pipeline health. Each part leads to its section on the page for operators. */

import { $, duration, element, setText } from "./format.js";
import { getJson } from "./api.js";

const PARTS = [["feed", "Feed"], ["pipeline", "Pipeline"], ["forecasts", "Forecasts"], ["storage", "Storage"], ["models", "Models"]];

/** Show the parts of /v1/operations. */
export function showParts({ parts }) {
  const known = new Map(parts.map((part) => [part.name, part]));
  $("parts").replaceChildren(...PARTS.filter(([name]) => known.has(name)).map(([name, title]) => {
    const part = known.get(name), link = element("a", "part", element("i", "dot"), element("b", "", title), element("span", "", part.summary));
    link.href = `ops#${name}`;
    link.dataset.verdict = part.verdict;
    return element("li", "", link);
  }));
}

export const loadParts = () => getJson("operations").then(showParts);

/** Show what the event `health` says: problems of this market, and whether the market is simulated. */
export function showHealth(h) {
  $("simulated").hidden = !h.simulated;
  const waiting = h.waits_for.length ? [`The system starts and waits for ${h.waits_for.join(", ")}.`] : [], words = [...waiting, ...h.reasons];
  setText("reasons", words.join("; "));
  $("reasons").hidden = !words.length;
  if (h.feature_age_s !== null) $("parts").title = `Features are ${duration(h.feature_age_s)} old.`;
}
