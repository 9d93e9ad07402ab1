// Progress: one part of the page is asked for again while something can happen, less often in a
// hidden tab, and not at all once it is over.
"use strict";

(() => {
  const SHOWN = 2000, HIDDEN = 30000;
  let wait;
  const later = () => {
    clearTimeout(wait);
    const part = document.getElementById("progress");
    if (part?.dataset.poll) wait = setTimeout(ask, document.hidden ? HIDDEN : SHOWN);
  };
  const ask = async () => {
    const part = document.getElementById("progress");
    const before = part.dataset.state;
    try {
      await htmx.ajax("GET", part.dataset.poll, { target: "#progress", swap: "outerMorph" });
    } catch {
      // The server is away for a moment: what is shown stays, and the next time asks again.
    }
    // Another state has other buttons: the page they stand on is asked for, once.
    if (document.getElementById("progress")?.dataset.state !== before) location.reload();
    else later();
  };
  document.addEventListener("visibilitychange", () => { if (!document.hidden) later(); });
  later();
})();
