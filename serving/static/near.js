/* What waits until a person comes near it: charts and tables below the first screen. Before that, the page loads neither the
   library of charts nor their past. What does not belong here: the charts. */

const NEAR_PX = 100, RETRY_MS = 15_000;

let library = null;

/** Call `begin` once, as soon as the element of this id comes near the visible part of the page. */
export function whenNear(id, begin) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    begin();
  }, { rootMargin: `${NEAR_PX}px` });
  observer.observe(document.getElementById(id));
}

/** Load the module and the library that a chart needs once its card is near, then draw it. */
export function drawWhenNear(id, importModule, draw) {
  whenNear(id, async function attempt() {
    let module;
    try {
      [module] = await Promise.all([importModule(), loadLibrary()]);
    } catch (error) {
      console.warn(`${id}: ${error.message}`);
      setTimeout(attempt, RETRY_MS);
      return;
    }
    setTimeout(draw, 0, module);  // each chart is a task of its own, so that the page can answer in between
  });
}

/** Load the library of charts once. It is a script and no module. */
function loadLibrary() {
  library ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = document.body.dataset.library;
    script.onload = resolve;
    script.onerror = () => { library = null; reject(new Error("the library of charts could not be loaded")); };
    document.head.append(script);
  });
  return library;
}
