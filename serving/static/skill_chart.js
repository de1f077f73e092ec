/* The course of the gain over time, as a chart. What does not belong here: the table of gains (`skill.js`). */

import { $, clock, kindName, moment, number, seconds, setText, signed } from "./format.js";
import { HEADLINE_MIN } from "./horizons.js";
import { gain } from "./skill.js";
import { colour, Fan } from "./time_chart.js";

const MIN_POINTS = 3, TIMES = Math.ceil(HEADLINE_MIN / 5), SPAN = TIMES === 1 ? "six hours" : `${6 * TIMES} hours`;  // of a point

export class SkillChart {
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

  /** Offer the series of an answer of /v1/skill, and draw the chosen one. */
  show(series) {
    this.series = series;
    this.offer();
    this.draw();
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
