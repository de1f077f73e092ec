/* The league: the user's own models beside the champion and the baselines, best first. */

import { $, element, kindName, number, setText, short, tableRow } from "./format.js";

const HEADINGS = ["Model", "Loss", "Against champion", "t", "CRPS", "90 % held", "Time", "n", "Gate"];
const CERTAIN_T = 1.64;

/** The name of a row, with what an entry does if it does not simply run. */
function nameOf(row) {
  const rank = row.rank === null ? "" : `${row.rank}. `;
  if (row.kind === "baseline") return `${rank}${kindName(row.name)}`;
  const name = element("b", "", row.name);
  name.title = row.version ? `version ${row.version}` : "";
  if (row.state === "running" || row.kind === "champion") return [rank, name];
  const state = element("span", row.state === "failing" ? "down" : "few", row.state);
  state.title = row.reason ?? "the process of the league does not know this model";
  return [rank, name, " ", state];
}

/** The ratio to the champion, coloured if the difference is more than chance. */
function against(row) {
  if (row.ratio === null) return "–";
  const verdict = row.dm_t === null ? "" : row.dm_t < -CERTAIN_T ? "up" : row.dm_t > CERTAIN_T ? "down" : "";
  return element("span", verdict, number(row.ratio, 3));
}

function gateOf(row) {
  if (!row.gate) return "–";
  const answer = element("span", row.gate.would_pass ? "up" : "", row.gate.would_pass ? "would pass" : "not yet");
  answer.title = row.gate.reason;
  return answer;
}

const rowOf = (row) =>
  tableRow(HEADINGS, [
    nameOf(row), number(row.qlike, 4), against(row), number(row.dm_t, 2),
    row.crps_bps === null ? "–" : `${short(row.crps_bps)} bps`, row.coverage_90_pct === null ? "–" : `${number(row.coverage_90_pct, 1)} %`,
    row.predict_p50_ms === null ? "–" : `${short(row.predict_p50_ms)} ms`, number(row.rows), gateOf(row),
  ], row.kind);

/** Show an answer of /v1/league. Without a user's model there is no table; that is no reason to ask more often. */
export function showLeague(answer) {
  $("league_body").hidden = !answer.entries;
  $("league_rows").replaceChildren(...(answer.entries ? answer.rows.map(rowOf) : []));
  const problems = answer.rows.filter((row) => row.kind === "entry" && row.reason).map((row) => `${row.name}: ${row.reason.replace(`${row.name}.py: `, "")}`);
  setText("league_problems", problems.join("; "));
  const about = "Each model is compared with the champion at the closes at which it made a forecast. None of them serves; Gate says whether the last 28 days would be enough.";
  setText("league_note", answer.reason ? `${answer.reason[0].toUpperCase()}${answer.reason.slice(1)}.` : about);
  return "";
}

/** The chosen number of days. */
export const leagueDays = () => $("league_days").value;
