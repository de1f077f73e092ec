/* What the charts of the live page share: a grid of equal steps that follows the zoom, gaps, bands, and keys.
   What does not belong here: which series a chart has. */

import { $, clock, element, moment, number, setText } from "./format.js";
import { HORIZONS_MIN } from "./horizons.js";

const MARGIN_STEPS = 20, SETTLE_MS = 150, RETRY_MS = 15_000, MAX_STEPS = 1_100, GAP_S = 15, LEAST_SHARE = 0.25, WITH_SECONDS = 4;

const colours = new Map();
addEventListener("themechange", () => colours.clear());  // this listener comes before those of the charts

/** The current colour of a custom property. Charts draw on a canvas, which does not know properties. */
export function colour(name, alpha = 1) {
  if (!colours.has(name)) colours.set(name, components(name));
  return `rgba(${colours.get(name).join(", ")}, ${alpha})`;
}

/** Red, green and blue of a custom property. Asking makes the browser lay out the page, so it is done once for each theme. */
function components(name) {
  const probe = element("i");
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\d.]+/g).slice(0, 3);
  probe.remove();
  return found;
}

/** A series that fills the area between the two edges of each band, the widest band first, and leaves out gaps. */
export class Fan {
  renderer() { return this; }
  update(data, options) { this.data = data; this.options = options; }
  priceValueBuilder(row) { const outer = row.bands[0]; return outer ? [outer[0], outer[1], row.mid] : [row.mid]; }
  isWhitespace(row) { return row.mid === undefined; }
  defaultOptions() { return { ...LightweightCharts.customSeriesDefaultOptions, color: "" }; }
  destroy() {}
  draw(target, toY) {
    const { bars, barSpacing, visibleRange } = this.data;
    if (!bars.length || !visibleRange) return;
    target.useMediaCoordinateSpace(({ context }) => {
      context.fillStyle = this.options.color;
      for (let start = 0, end = 1; end <= bars.length; end++) {
        if (end < bars.length && bars[end].x - bars[end - 1].x < 1.6 * barSpacing) continue;
        this.fill(context, bars.slice(start, end), toY);
        start = end;
      }
    });
  }

  fill(context, bars, toY) {
    for (let band = 0; band < bars[0].originalData.bands.length; band++) {
      const edge = (side) => bars.map((bar) => [bar.x, toY(bar.originalData.bands[band][side])]);
      context.beginPath();
      for (const [x, y] of [...edge(1), ...edge(0).reverse()]) context.lineTo(x, y);
      context.closePath();
      context.fill();
    }
  }
}

/** Shades the gaps of a chart and draws vertical lines with words; it belongs behind the series. */
class Shade {
  gaps = [];
  lines = [];
  constructor(toLogical) { this.toLogical = toLogical; }
  attached({ chart, requestUpdate }) { this.scale = chart.timeScale(); this.redraw = requestUpdate; }
  set(gaps, lines) { this.gaps = gaps; this.lines = lines; this.redraw?.(); }
  paneViews() { return [{ zOrder: () => "bottom", renderer: () => this }]; }
  draw(target) {
    const x = (time) => {  // the library knows whole steps only
      const at = this.toLogical(time), step = Math.floor(at);
      return this.scale.logicalToCoordinate(step) + (at - step) * this.scale.options().barSpacing;
    };
    target.useMediaCoordinateSpace(({ context, mediaSize }) => {
      context.fillStyle = colour("soft", 0.16);
      for (const [from, to] of this.gaps) context.fillRect(x(from), 0, x(to) - x(from), mediaSize.height);
      context.strokeStyle = context.fillStyle = colour("flow");
      context.font = "11px system-ui, sans-serif";
      context.setLineDash([4, 3]);
      for (const { time, words } of this.lines) {
        const at = x(time);
        if (at < 0 || at > mediaSize.width) continue;
        context.beginPath();
        context.moveTo(at, 0);
        context.lineTo(at, mediaSize.height);
        context.stroke();
        context.fillText(words, at + 4, 12);
      }
    });
  }
}

/** A value between two horizons: the path is linear in time, and the distance of a band from it in its square. */
function interpolate(values, first, minutes, power = 1) {
  const known = [first, ...values].map((v) => v ** power), times = [0, ...HORIZONS_MIN], next = times.findIndex((time) => time > minutes);
  const at = next < 0 ? values.length - 1 : next - 1, share = (minutes - times[at]) / (times[at + 1] - times[at]);
  return (known[at] + (known[at + 1] - known[at]) * share) ** (1 / power);
}

/** The fan of a forecast as rows of a `Fan`, one for each step of the grid. */
export function fanRows(row, step, aheadS) {
  const bands = row.bands.map(({ low, high }) => row.path.map((mid, at) => [Math.max(0, mid - low[at]), Math.max(0, high[at] - mid)]));
  const rows = [];
  for (let s = 0; s <= aheadS; s += step) {
    const mid = interpolate(row.path, row.bid, s / 60);
    rows.push({ time: row.time + s, mid, bands: bands.map((band) => [mid - interpolate(band.map((b) => b[0]), 0, s / 60, 2), mid + interpolate(band.map((b) => b[1]), 0, s / 60, 2)]) });
  }
  return rows;
}

/** A chart over time whose resolution follows its zoom, and which loads older rows as a person pans. */
export class TimeChart {
  /** `steps` are resolutions in seconds, ascending; `spanS` is what is shown first; `aheadS` is the future on the grid. */
  constructor(id, card, history, { steps, spanS, aheadS = 0, digits }) {
    Object.assign(this, { card, history, steps, aheadS, host: $(`${id}_chart`), readout: $(`${id}_readout`), spans: $(`${id}_spans`) });
    this.chart = LightweightCharts.createChart(this.host, {
      autoSize: true,
      layout: { attributionLogo: false, background: { color: "transparent" } },
      handleScroll: { vertTouchDrag: false },
      rightPriceScale: { borderVisible: false, scaleMargins: { top: 0.1, bottom: 0.08 }, minimumWidth: 64 },
      timeScale: { borderVisible: false, timeVisible: true, minBarSpacing: 0.3, lockVisibleTimeRangeOnResize: true, tickMarkFormatter: (_, type) => (type === WITH_SECONDS && this.step < 60 && this.wanted > 300 ? " " : null) },
      localization: { priceFormatter: (v) => number(v, digits), timeFormatter: (time) => (this.step >= 300 ? moment(time) : clock(time, this.step < 60)) },
    });
    this.step = this.stepFor(spanS);
    this.series = [];
    this.marked = [];
    this.pointed = null;
    this.gridFrom = 0;
    this.grid = this.line("soft");
    this.shade = new Shade((time) => (time - this.gridFrom) / this.step);
    this.grid.attachPrimitive(this.shade);
    this.chart.subscribeCrosshairMove(({ time = null }) => {
      if (time === this.pointed) return;  // drawing moves the crosshair too
      this.pointed = time;
      requestAnimationFrame(() => this.point(this.pointed));
    });
    this.chart.timeScale().subscribeVisibleLogicalRangeChange(() => this.settle());
    this.host.addEventListener("keydown", (event) => this.key(event));
    this.wanted = spanS;
    for (const button of this.spans.querySelectorAll("button")) button.addEventListener("click", () => this.show(Number(button.value)));
    addEventListener("themechange", () => this.paint());
  }

  /** A line whose colour is that of a custom property in each theme. */
  line(name, options = {}) {
    const { alpha, ...more } = options;
    const made = this.chart.addSeries(LightweightCharts.LineSeries, { lineWidth: 2, priceLineVisible: false, lastValueVisible: false, crosshairMarkerRadius: 3, ...more });
    return this.named(made, name, alpha);
  }

  /** Give a series the colour of a custom property in each theme. */
  named(series, name, alpha = 1) {
    this.series.push([series, name, alpha]);
    series.applyOptions({ color: colour(name, alpha) });
    return series;
  }

  fan(name, alpha) { return this.named(this.chart.addCustomSeries(new Fan(), { priceLineVisible: false, lastValueVisible: false }), name, alpha); }

  /** Use the colours of the current theme. */
  paint() {
    const label = { labelBackgroundColor: colour("soft-fill") };
    this.chart.applyOptions({ layout: { textColor: colour("soft"), fontSize: 11 }, grid: { vertLines: { visible: false }, horzLines: { color: colour("line") } }, crosshair: { mode: 0, vertLine: label, horzLine: label } });
    for (const [series, name, alpha] of this.series) series.applyOptions({ color: colour(name, alpha) });
    this.shade.redraw?.();
  }

  get rows() { return this.history.level(this.step).rows; }
  get nowS() { return Math.floor((this.dataNowS?.() ?? Date.now() / 1000) / this.step) * this.step; }
  get endS() { return this.nowS + Math.max(this.aheadS - (this.aheadS % this.step), 0); }
  stepFor(spanS) { return this.steps.find((step) => spanS / step <= MAX_STEPS) ?? this.steps.at(-1); }

  /** The visible time in seconds, or null before the first rows. */
  visible() {
    const range = this.chart.timeScale().getVisibleLogicalRange();
    return range && this.drawnTo ? { from: this.gridFrom + range.from * this.step, to: this.gridFrom + range.to * this.step } : null;
  }

  /** Show the last `spanS` seconds, and the future. */
  show(spanS) {
    this.wanted = spanS;
    for (const button of this.spans.querySelectorAll("button")) button.setAttribute("aria-pressed", String(Number(button.value) === spanS));
    this.step = this.stepFor(spanS);
    this.goTo({ from: this.endS - spanS - this.aheadS, to: this.endS + this.step, isTrimmed: true });
  }

  /** Draw what is loaded, show this time, and load what is missing. */
  goTo(range) {
    this.target = range;
    this.draw();
    this.load();
  }

  /** Load rows until the visible time is covered. The chart is drawn after every page. */
  async load() {
    if (this.isLoading) return;
    this.isLoading = true;
    try {
      for (let step = this.step; ; step = this.step) {
        const { from } = this.history.level(step);
        const seen = this.target ?? this.visible();
        if (from === null) await this.history.refresh(step);
        else if (seen && seen.from < from + MARGIN_STEPS * step && !this.history.isExhausted(step)) await this.history.older(step);
        else break;
        if (step === this.step) this.draw();
      }
      if (this.target) this.draw();
      this.card.set(this.rows.size ? "ok" : "empty", this.rows.size ? "" : "Nothing is stored yet. The first minute appears here.");
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      console.warn(error.message);
      this.card.hasData ||= this.rows.size > 0;
      this.card.set("failed", `Could not load the past: ${error.message}. It is tried again every ${RETRY_MS / 1000} s.`);
      clearTimeout(this.retry);
      this.retry = setTimeout(() => this.load(), RETRY_MS);
    } finally {
      this.isLoading = false;
      const { target } = this;
      if (target) requestAnimationFrame(() => this.arrive(target));
    }
  }

  /** Draw once more at the time that was asked for, because a chart that has just appeared forgets it, unless another one was
      asked for meanwhile. Until then the target stays, so that what the chart shows instead is not taken for a person's wish. */
  arrive(target) {
    if (this.target !== target) return;
    const late = target.isTrimmed ? this.endS + this.step - target.to : 0;  // the present has moved on while rows were loaded
    this.target = { ...target, from: target.from + late, to: target.to + late };
    this.draw();
    this.target = null;
  }

  /** Load again what can have changed; a failure is left to the next time. */
  async refresh() {
    if (this.history.level(this.step).from === null) return this.load();
    try { await this.history.refresh(this.step); this.draw(); if (this.card.root.dataset.state === "empty" && this.rows.size) this.card.set("ok"); } catch (error) { console.warn(error.message); }
  }

  /** Once the zoom has settled: change the resolution if the visible time asks for it, and load what it shows. */
  settle() {
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      const range = this.visible();
      if (!range || this.target) return;
      const span = range.to - range.from, coarser = this.stepFor(span), finer = this.stepFor(span * 1.5);
      const step = coarser > this.step ? coarser : finer < this.step ? finer : this.step;
      if (step === this.step) return this.load();
      this.step = step;
      this.goTo(range);
    }, SETTLE_MS);
  }

  /** Draw the loaded rows on the grid and keep the visible time, or move with the present if that is visible. */
  draw() {
    const level = this.history.level(this.step), before = this.target ?? this.visible();
    const isFollowing = !this.target && before && this.drawnTo && before.to >= this.drawnTo;
    const end = this.endS;
    this.gridFrom = level.from ?? end - this.wanted;
    const times = [];
    for (let time = this.gridFrom; time <= end; time += this.step) times.push({ time });
    this.grid.setData(times);
    const rows = [...level.rows.values()].filter((row) => row.time >= this.gridFrom).sort((a, b) => a.time - b.time);
    this.shade.set(this.gapsOf(rows), this.marked);
    this.setRows(rows);
    const moved = isFollowing ? end - this.drawnTo : 0;
    if (before) this.place(this.trimmed(before, rows) + moved, before.to + moved);
    this.drawnTo = end;
    this.point(this.pointed);
  }

  /** Where a shown time begins: without the time before the first stored row, if nothing older can come. */
  trimmed(range, rows) {
    const { from } = this.history.level(this.step), isCovered = from !== null && (from <= range.from + this.step || this.history.isExhausted(this.step));
    if (!range.isTrimmed || !isCovered || !rows.length) return range.from;
    return Math.max(range.from, Math.min(rows[0].time - 2 * this.step, this.nowS - LEAST_SHARE * (range.to - range.from)));
  }

  /** Show the time from `from` to `to`. */
  place(from, to) { this.chart.timeScale().setVisibleLogicalRange({ from: (from - this.gridFrom) / this.step, to: (to - this.gridFrom) / this.step }); }

  /** Times without rows between two rows. */
  gapsOf(rows) {
    const gaps = [];
    for (let at = 1; at < rows.length; at++) {
      const [from, to] = [rows[at - 1].time, rows[at].time];
      if (to - from > Math.max(2 * this.step, GAP_S)) gaps.push([from + this.step / 2, to - this.step / 2]);
    }
    return gaps;
  }

  /** Points of a line. A line does not lead through a gap: the segment into it has no colour. */
  points(rows, value) {
    const points = [];
    rows.forEach((row, at) => {
      const v = value(row);
      if (!Number.isFinite(v)) return;
      const isLast = at + 1 < rows.length && rows[at + 1].time - row.time > Math.max(2 * this.step, GAP_S);
      points.push(isLast ? { time: row.time, value: v, color: "transparent" } : { time: row.time, value: v });
    });
    return points;
  }

  /** Show the values of the pointed time, or of the newest row. */
  point(time) {
    setText(this.readout, this.words(time === null ? null : this.rows.get(Math.floor(time / this.step) * this.step) ?? { time }));
  }

  /** Pan with the arrows, zoom with plus and minus, and return to the present with End. */
  key(event) {
    const range = this.visible();
    if (!range || event.ctrlKey || event.metaKey || event.altKey) return;
    const span = range.to - range.from;
    const moves = { ArrowLeft: [-0.2, -0.2], ArrowRight: [0.2, 0.2], "+": [0.2, -0.2], "=": [0.2, -0.2], "-": [-0.3, 0.3] };
    if (event.key === "End" || event.key === "0") this.show(this.wanted);
    else if (moves[event.key]) this.place(range.from + moves[event.key][0] * span, range.to + moves[event.key][1] * span);
    else return;
    event.preventDefault();
  }
}
