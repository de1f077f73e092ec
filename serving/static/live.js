/* The live page: connects the stream and the cards. All numbers come from the API. */

import { Card, getJson, inTurn, keepFilled } from "./api.js";
import { chooseMarket, follow } from "./connection.js";
import { setBars, setUsual, showFeatures, showForecast } from "./figures.js";
import { $ } from "./format.js";
import { loadParts, showHealth } from "./health.js";
import { minuteBars, pastForecasts } from "./history.js";
import { leagueDays, showLeague } from "./league.js";
import { kindsOf, showExplanation, showModels, showRecent } from "./model_card.js";
import { drawWhenNear, whenNear } from "./near.js";
import { startPastMoment } from "./past_moment.js";
import { gainsOverTime, showSkill } from "./skill.js";

const PAST_S = 15, SKILL_S = 60, MINUTE_S = 60, CALENDAR_S = 3_600, EXPLAIN_S = 20, CHANGE_MIN = 17;

/** What the charts show that is not their own past; a chart that is drawn later begins with it. */
const known = {}, charts = {};

/** Follow a market whose symbol is known. */
function begin(symbol) {
  follow({
    forecast: (f) => { known.forecast = f; showForecast(f); charts.price?.showForecast(f); },
    features: (f) => { showFeatures(f); showRecent(f); },
    health: showHealth,
  });
  startCharts(symbol.split("/")[0]);
  let kinds = {};
  const skill = new Card("skill"), league = new Card("league");
  keepFilled(new Card("models"), PAST_S, async () => { const answer = await getJson("model"); kinds = kindsOf(answer); return showModels(answer); });
  const order = getJson("features/order", {}, null).then((answer) => new Map([...answer.features, ...answer.columns].map((f) => [f.name, f]))).catch(() => new Map());
  keepFilled(new Card("explain"), EXPLAIN_S, async () => showExplanation(await getJson("explain", { top: 5 }), await order));
  startPastMoment(order);
  keepFilled(new Card("health"), PAST_S, loadParts);
  every(MINUTE_S, async () => setBars(await inTurn(() => getJson("bars", { limit: CHANGE_MIN }))));
  every(CALENDAR_S, async () => { known.usual = await inTurn(() => getJson("volatility/usual")); setUsual(known.usual); charts.volatility?.showUsual(known.usual); });
  whenNear("skill", () => keepFilled(skill, SKILL_S, async () => {
    const answer = await inTurn(() => getJson("skill", { hours: 24 }));
    known.gains = gainsOverTime(answer, kinds);
    charts.skill?.show(known.gains);
    return showSkill(answer, kinds);
  }));
  whenNear("league", () => {
    const load = keepFilled(league, SKILL_S, async () => showLeague(await inTurn(() => getJson("league", { days: leagueDays() }))));
    $("league_days").addEventListener("change", load);
  });
}

/** Draw each chart once its card is near, and keep its past up to date. */
function startCharts(asset) {
  const past = pastForecasts(), cards = { price: new Card("price"), volatility: new Card("volatility"), market: new Card("market_now") };
  drawWhenNear("price", () => import("./price_chart.js"), ({ PriceChart }) => {
    charts.price = new PriceChart(cards.price, past);
    if (known.forecast) charts.price.showForecast(known.forecast);
  });
  drawWhenNear("volatility", () => import("./volatility_chart.js"), ({ VolatilityChart }) => {
    charts.volatility = new VolatilityChart(cards.volatility, past);
    if (known.usual) charts.volatility.showUsual(known.usual);
    every(CALENDAR_S, async () => charts.volatility.showReleases(await getJson("releases", {}, null)));
  });
  drawWhenNear("market_now", () => import("./market_chart.js"), ({ MarketChart }) => { charts.market = new MarketChart(cards.market, minuteBars(), asset); });
  drawWhenNear("skill_course", () => import("./skill_chart.js"), ({ SkillChart }) => {
    charts.skill = new SkillChart();
    if (known.gains) charts.skill.show(known.gains);
  });
  setInterval(() => { if (!document.hidden) for (const chart of [charts.price, charts.volatility, charts.market]) chart?.refresh(); }, PAST_S * 1_000);
}

/** Load something that belongs to no card now and every `periodS` seconds; after a failure in a quarter of a minute. */
async function every(periodS, load) {
  let isLoaded = true;
  try { await load(); } catch (error) { isLoaded = false; console.warn(error.message); }
  setTimeout(every, (isLoaded ? periodS : PAST_S) * 1_000, periodS, load);
}

$("market").addEventListener("change", () => { if ($("market").value) location.search = `?symbol=${encodeURIComponent($("market").value)}`; });
if (document.body.dataset.symbol) begin(document.body.dataset.symbol);
chooseMarket();
