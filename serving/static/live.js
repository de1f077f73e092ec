/* The live page: connects the stream and the cards. All numbers come from the API. */

import { Card, getJson, inTurn, keepFilled } from "./api.js";
import { chooseMarket, follow } from "./connection.js";
import { setUsual, showForecast } from "./figures.js";
import { $, setText } from "./format.js";
import { loadParts, showHealth } from "./health.js";
import { minuteBars, pastForecasts } from "./history.js";
import { leagueDays, showLeague } from "./league.js";
import { MarketChart } from "./market_chart.js";
import { kindsOf, showExplanation, showModels, showRecent } from "./model_card.js";
import { startPastMoment } from "./past_moment.js";
import { PriceChart } from "./price_chart.js";
import { SkillCard } from "./skill.js";
import { VolatilityChart } from "./volatility_chart.js";

const PAST_S = 15, SKILL_S = 60, CALENDAR_S = 3_600, EXPLAIN_S = 20;

/** Start with the market: one that is not followed has no stream to wait for. */
async function start() {
  const shown = await chooseMarket();
  if (shown === null) return;
  setText("symbol", shown);
  $("content").hidden = false;
  const past = pastForecasts(), skill = new SkillCard(), asset = shown.split("/")[0];
  const price = new PriceChart(new Card("price"), past), volatility = new VolatilityChart(new Card("volatility"), past);
  const market = new MarketChart(new Card("market_now"), minuteBars(), asset);
  follow({
    forecast: (f) => { price.showForecast(f); showForecast(f, () => price.change()); },
    features: (f) => { market.showFeatures(f); showRecent(f); },
    health: showHealth,
  });
  let kinds = {};
  const cards = { model: new Card("models"), skill: new Card("skill"), explain: new Card("explain"), league: new Card("league") };
  keepFilled(cards.model, PAST_S, async () => { const answer = await getJson("model"); kinds = kindsOf(answer); return showModels(answer); });
  keepFilled(cards.skill, SKILL_S, async () => skill.show(await inTurn(() => getJson("skill", { hours: 24 })), kinds));
  const league = keepFilled(cards.league, SKILL_S, async () => showLeague(await inTurn(() => getJson("league", { days: leagueDays() }))));
  $("league_days").addEventListener("change", league);
  const order = getJson("features/order", {}, null).then((answer) => new Map(answer.features.map((f) => [f.name, f]))).catch(() => new Map());
  keepFilled(cards.explain, EXPLAIN_S, async () => showExplanation(await getJson("explain", { top: 5 }), await order));
  startPastMoment(order);
  keepFilled(new Card("health"), PAST_S, loadParts);
  every(CALENDAR_S, async () => { const usual = await inTurn(() => getJson("volatility/usual")); setUsual(usual); volatility.showUsual(usual); });
  every(CALENDAR_S, async () => setText("releases", volatility.showReleases(await getJson("releases", {}, null))));
  setInterval(() => { if (!document.hidden) { price.refresh(); volatility.refresh(); market.refresh(); } }, PAST_S * 1_000);
}

/** Load something that belongs to no card now and every `periodS` seconds; after a failure in a quarter of a minute. */
async function every(periodS, load) {
  let isLoaded = true;
  try { await load(); } catch (error) { isLoaded = false; console.warn(error.message); }
  setTimeout(every, (isLoaded ? periodS : PAST_S) * 1_000, periodS, load);
}

$("market").addEventListener("change", () => { if ($("market").value) location.search = `?symbol=${encodeURIComponent($("market").value)}`; });
start();
