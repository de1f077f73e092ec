/* Live skill: the gain over each baseline with its error, and its course over time. */

import { $, clock, element, kindName, moment, number, seconds, setText, short, signed, tableRow } from "./format.js";
import { HEADLINE_MIN } from "./horizons.js";
import { colour, Fan } from "./time_chart.js";

const FEW = 100, MIN_POINTS = 3, HEADINGS = ["Against", "n", "Gain"];
const TIMES = Math.ceil(HEADLINE_MIN / 5), SPAN = TIMES === 1 ? "six hours" : `${6 * TIMES} hours`;  // of a point of the course over time
const LOSSES = { volatility: `Volatility, ${HEADLINE_MIN} min (loss: QLIKE)`, bid: `Bid, ${HEADLINE_MIN} min (loss: squared error)` };

/** The gain with its error; nothing is claimed without one. */
function gain(row) {
  if (row.gain_pct === null) return "–";
  const digits = Math.abs(row.gain_pct) < 10 ? 1 : 0;
  return row.gain_error_pct === null ? `${signed(row.gain_pct, digits)} %` : `${signed(row.gain_pct, digits)} ± ${number(row.gain_error_pct, digits)} %`;
}

/** Whether a row says that the model is better or worse than chance can explain. */
function verdict(row) {
  if (row.gain_error_pct === null || row.forecasts < FEW) return "";
  return row.gain_pct > row.gain_error_pct ? "up" : row.gain_pct < -row.gain_error_pct ? "down" : "";
}

export class SkillCard {
  constructor() {
    this.chart = LightweightCharts.createChart($("skill_chart"), {
      autoSize: true, layout: { attributionLogo: false, background: { color: "transparent" } }, handleScroll: { vertTouchDrag: false },
      rightPriceScale: { borderVisible: false, minimumWidth: 64, scaleMargins: { top: 0.12, bottom: 0.12 } }, timeScale: { borderVisible: false, timeVisible: true },
      localization: { priceFormatter: (v) => `${signed(v)} %`, timeFormatter: moment },
    });
    this.band = this.chart.addCustomSeries(new Fan(), { priceLineVisible: false, lastValueVisible: false });
    this.line = this.chart.addSeries(LightweightCharts.LineSeries, { lineWidth: 2, priceLineVisible: false, lastValueVisible: false });
    this.zero = this.line.createPriceLine({ price: 0, lineWidth: 1, lineStyle: 2, axisLabelVisible: false });
    this.chart.timeScale().subscribeSizeChange(() => this.chart.timeScale().fitContent());  // a hidden chart has no size
    this.chart.subscribeCrosshairMove((event) => this.point(event.time));
    $("skill_choice").addEventListener("change", () => this.draw());
    addEventListener("themechange", () => this.paint());
    this.paint();
  }

  paint() {
    this.chart.applyOptions({ layout: { textColor: colour("soft"), fontSize: 11 }, grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } } });
    this.line.applyOptions({ color: colour("path") });
    this.band.applyOptions({ color: colour("path", 0.17) });
    this.zero.applyOptions({ color: colour("soft") });
  }

  /** Show an answer of /v1/skill and say which models it is about. Returns why there is nothing to show. */
  show(skill, kinds) {
    const rows = skill.rows.filter((row) => row.baseline !== kinds[row.quantity]);
    const body = ["volatility", "bid"].flatMap((quantity) => {
      const of = rows.filter((row) => row.quantity === quantity);
      if (!of.length) return [];
      const head = Object.assign(element("th", "", LOSSES[quantity]), { colSpan: HEADINGS.length, scope: "colgroup" });
      return [element("tr", "group", head), ...of.map((row) => this.row(row))];
    });
    $("skill_rows").replaceChildren(...body);
    $("skill_body").hidden = !rows.length;
    const few = rows.some((row) => row.forecasts < FEW);
    setText("skill_note", few ? `Grey: fewer than ${FEW} forecasts say nothing yet.` : `± is half of the 95 % interval; forecasts overlap, so it is a HAC error of ${TIMES === 1 ? "ten" : 10 * TIMES}-minute blocks.`);
    const covered = skill.coverage.filter((c) => c.level_pct === 90 && c.covered_pct !== null);
    setText("coverage", covered.length ? `The 90 % intervals held ${covered.map((c) => `${short(c.covered_pct)} % of the outcomes of the ${c.quantity}`).join(" and ")} (n = ${number(covered[0].forecasts)}).` : "");
    this.series = skill.over_time.filter((each) => each.baseline !== kinds[each.quantity]);
    this.offer();
    this.draw();
    return skill.reason ? `${skill.reason[0].toUpperCase()}${skill.reason.slice(1)}.` : "";
  }

  row(row) {
    return tableRow(HEADINGS, [kindName(row.baseline), number(row.forecasts), element("span", verdict(row), gain(row))], row.forecasts < FEW ? "few" : "");
  }

  offer() {
    const key = (each) => `${each.quantity}/${each.baseline}`, before = $("skill_choice").value;
    const options = this.series.map((each) => new Option(`${each.quantity} against ${kindName(each.baseline)}`, key(each), false, key(each) === before));
    if ([...$("skill_choice").options].map((o) => o.value).join() !== options.map((o) => o.value).join()) $("skill_choice").replaceChildren(...options);
  }

  draw() {
    const chosen = this.series?.find((each) => `${each.quantity}/${each.baseline}` === $("skill_choice").value);
    this.points = (chosen?.points ?? []).filter((p) => p.gain_pct !== null).map((p) => ({ time: seconds(p.until), ...p }));
    this.line.setData(this.points.map((p) => ({ time: p.time, value: p.gain_pct })));
    this.band.setData(this.points.filter((p) => p.gain_error_pct !== null).map((p) => ({ time: p.time, mid: p.gain_pct, bands: [[p.gain_pct - p.gain_error_pct, p.gain_pct + p.gain_error_pct]] })));
    this.chart.timeScale().fitContent();
    $("skill_chart").hidden = this.points.length < MIN_POINTS;
    this.point();
  }

  point(time) {
    const at = this.points.find((p) => p.time === time);
    setText("skill_readout", at ? `${SPAN[0].toUpperCase()}${SPAN.slice(1)} until ${clock(at.time)}: ${gain(at)}, n = ${number(at.forecasts)}` : this.points.length < MIN_POINTS ? `The course over time begins after ${TIMES === 1 ? "half an hour" : `${30 * TIMES} minutes`} of outcomes.` : `Gain over ${SPAN}, with its 95 % interval. Above 0 the model is better.`);
  }
}
