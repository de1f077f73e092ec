/* The horizons of the forecasts, which the page names in its first element. */

const { horizonsMin, headline } = document.documentElement.dataset;

export const HORIZONS_MIN = horizonsMin.split(",").map(Number);
/** The longest horizon, which single figures and scores are about, in minutes, in seconds and in words. */
export const HEADLINE_MIN = HORIZONS_MIN.at(-1), HEADLINE_S = 60 * HEADLINE_MIN, HEADLINE = headline;
