/* Numbers, times and elements as the pages show them. What does not belong here: what a number means. */

export const $ = (id) => document.getElementById(id);

const formats = new Map();

/** The formatter of this many decimals. Making one takes a hundred times as long as using it. */
function format(digits) {
  if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  return formats.get(digits);
}

/** A number with `digits` decimals, thousands separated, and a true minus sign. */
export const number = (v, digits = 0) => (Number.isFinite(v) ? format(digits).format(v).replace("-", "−") : "–");

/** A number with its sign; zero has none. */
export const signed = (v, digits = 0) => {
  const text = number(Math.abs(v), digits);
  return Number(text.replaceAll(",", "")) === 0 ? text : (v < 0 ? "−" : "+") + text;
};

/** Decimals of a price: those that its market quotes. */
export const priceDigits = (price) => (price >= 10_000 ? 1 : price >= 1 ? 2 : 5);

/** Decimals that a range of this width deserves: its ends are uncertain by more than a hundredth of it. */
export const rangeDigits = (width) => Math.min(6, Math.max(0, 1 - Math.floor(Math.log10(Math.max(width, 1e-9) / 2))));

/** A positive number with two significant digits, or all digits before the point. */
export const short = (v) => number(v, v === null || v >= 10 ? 0 : v >= 1 ? 1 : v >= 0.1 ? 2 : 3);

const WHOLE_UNITS = new Set(["min", "day", "base units"]);

/** A value with its unit, rounded to what a person can use. A number without a unit has none. */
export function withUnit(v, unit) {
  if (unit === "USD") return `${number(v, priceDigits(v))} USD`;
  const size = Math.abs(v), digits = WHOLE_UNITS.has(unit) && size >= 1 || size >= 100 ? 0 : size >= 10 ? 1 : 2;
  return `${number(v, Number.isInteger(v) ? 0 : digits)}${unit === "1" ? "" : ` ${unit}`}`;
}

export const seconds = (iso) => Date.parse(iso) / 1000;

/** A time in UTC: `HH:MM`, with seconds if asked for. */
export const clock = (s, withSeconds = false) => new Date(s * 1000).toISOString().slice(11, withSeconds ? 19 : 16);

/** A day and time in UTC, such as `Sat 28 Nov, 22:50`. */
export const moment = (s) => `${new Date(s * 1000).toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short", timeZone: "UTC" })}, ${clock(s)}`;

/** A duration in its largest unit. */
export function duration(s) {
  if (s < 10) return `${s.toFixed(1)} s`;
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7200) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86_400)} days`;
}

/** Set a text only if it differs, so that a screen reader and the layout are left alone. */
export function setText(target, value) {
  const element = typeof target === "string" ? $(target) : target;
  if (element.textContent !== value) element.textContent = value;
}

/** An element with a class and content. */
export function element(tag, className = "", ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

/** A table row. Each cell has the heading of its column, which a phone shows beside it. */
export function tableRow(headings, cells, className = "") {
  const row = element("tr", className);
  cells.forEach((content, at) => {
    const cell = element(at === 0 ? "th" : "td", "", ...[content].flat());
    if (at === 0) cell.scope = "row";
    cell.dataset.heading = headings[at];
    row.append(cell);
  });
  return row;
}

const KINDS = { random_walk: "the random walk", harx: "HARX", xgboost: "XGBoost", har: "HAR", ewma: "EWMA", naive: "the last 5 min", ar: "the autoregression", user: "the user’s model" };

/** The name of a kind of model or baseline in a sentence. */
export const kindName = (kind) => KINDS[kind] ?? String(kind ?? "no model").replaceAll("_", " ");
