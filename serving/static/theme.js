"use strict";
/* The colours of the pages: those of the system, light or dark. A script of its own, so that it runs before the first paint. */

const THEMES = ["system", "light", "dark"];

function storedTheme() {
  try { const name = localStorage.getItem("theme"); return THEMES.includes(name) ? name : "system"; } catch { return "system"; }  // storage may be blocked
}

document.documentElement.dataset.theme = storedTheme();

addEventListener("DOMContentLoaded", () => {
  for (const input of document.querySelectorAll("#theme input")) {
    input.checked = input.value === storedTheme();
    input.addEventListener("change", () => {
      document.documentElement.dataset.theme = input.value;
      try { localStorage.setItem("theme", input.value); } catch { /* the choice then lasts as long as the page */ }
      dispatchEvent(new Event("themechange"));
    });
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));
});
