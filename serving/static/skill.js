/* Live skill: the gain over each baseline with its error. What does not belong here: its course over time (`skill_chart.js`). */

import { $, element, kindName, number, setText, short, signed, tableRow } from "./format.js";
import { HEADLINE_MIN } from "./horizons.js";

const FEW = 100, HEADINGS = ["Against", "n", "Gain"];
const TIMES = Math.ceil(HEADLINE_MIN / 5);
const LOSSES = { volatility: `Volatility, ${HEADLINE_MIN} min (loss: QLIKE)`, bid: `Bid, ${HEADLINE_MIN} min (loss: squared error)` };

/** The gain with its error; nothing is claimed without one. */
export function gain(row) {
  if (row.gain_pct === null) return "–";
  const digits = Math.abs(row.gain_pct) < 10 ? 1 : 0;
  return row.gain_error_pct === null ? `${signed(row.gain_pct, digits)} %` : `${signed(row.gain_pct, digits)} ± ${number(row.gain_error_pct, digits)} %`;
}

/** Whether a row says that the model is better or worse than chance can explain. */
function verdict(row) {
  if (row.gain_error_pct === null || row.forecasts < FEW) return "";
  return row.gain_pct > row.gain_error_pct ? "up" : row.gain_pct < -row.gain_error_pct ? "down" : "";
}

function rowOf(row) {
  return tableRow(HEADINGS, [kindName(row.baseline), number(row.forecasts), element("span", verdict(row), gain(row))], row.forecasts < FEW ? "few" : "");
}

/** Show an answer of /v1/skill and say which models it is about. Returns why there is nothing to show. */
export function showSkill(skill, kinds) {
  const rows = skill.rows.filter((row) => row.baseline !== kinds[row.quantity]);
  const body = ["volatility", "bid"].flatMap((quantity) => {
    const of = rows.filter((row) => row.quantity === quantity);
    if (!of.length) return [];
    const head = Object.assign(element("th", "", LOSSES[quantity]), { colSpan: HEADINGS.length, scope: "colgroup" });
    return [element("tr", "group", head), ...of.map((row) => rowOf(row))];
  });
  $("skill_rows").replaceChildren(...body);
  $("skill_body").hidden = !rows.length;
  const few = rows.some((row) => row.forecasts < FEW);
  setText("skill_note", few ? `Grey: fewer than ${FEW} forecasts say nothing yet.` : `± is half of the 95 % interval; forecasts overlap, so it is a HAC error of ${TIMES === 1 ? "ten" : 10 * TIMES}-minute blocks.`);
  const covered = skill.coverage.filter((c) => c.level_pct === 90 && c.covered_pct !== null);
  setText("coverage", covered.length ? `The 90 % intervals held ${covered.map((c) => `${short(c.covered_pct)} % of the outcomes of the ${c.quantity}`).join(" and ")} (n = ${number(covered[0].forecasts)}).` : "");
  return skill.reason ? `${skill.reason[0].toUpperCase()}${skill.reason.slice(1)}.` : "";
}

/** The gains over time of an answer: a model is not compared with itself. */
export const gainsOverTime = (skill, kinds) => skill.over_time.filter((each) => each.baseline !== kinds[each.quantity]);
