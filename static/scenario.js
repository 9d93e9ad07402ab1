// Beside the form: the preview follows what is typed, fields are put in by a press.
"use strict";

(() => {
  const form = document.getElementById("scenario-form");
  const button = form.querySelector("[data-preview]");
  let writing = form.elements.content;

  for (const name of ["subject", "content"]) {
    form.elements[name].addEventListener("focus", (event) => { writing = event.target; });
  }
  form.addEventListener("click", (event) => {
    const chip = event.target.closest("[data-insert]");
    if (!chip) return;
    writing.setRangeText(chip.dataset.insert, writing.selectionStart, writing.selectionEnd, "end");
    writing.focus();
    writing.dispatchEvent(new Event("input", { bubbles: true }));
  });

  // A complaint about what stood in a field says nothing of what is typed there now.
  form.addEventListener("input", ({ target }) => {
    const place = target.closest(".field-bad");
    if (!place) return;
    const stale = [...place.querySelectorAll(".field-error")];
    const described = (target.getAttribute("aria-describedby") || "").split(" ")
      .filter((id) => id && !stale.some((error) => error.id === id));
    if (described.length) target.setAttribute("aria-describedby", described.join(" "));
    else target.removeAttribute("aria-describedby");
    target.removeAttribute("aria-invalid");
    target.classList.remove("is-invalid");
    place.classList.remove("field-bad");
    for (const error of stale) error.remove();
    const summary = document.querySelector(".error-summary");
    for (const link of summary?.querySelectorAll(`a[href="#${target.id}"]`) ?? []) link.closest("li").remove();
    if (summary && !summary.querySelector("li")) summary.remove();
  });

  // Each preview gets a frame of its own, shown once it is there: nothing flickers, and the
  // browser's back button does not lead through old previews.
  let count = 0;
  const refresh = () => {
    const old = form.querySelector(".preview-frame iframe:last-of-type");
    const fresh = old.cloneNode();
    fresh.removeAttribute("src");
    fresh.name = `preview-${++count}`;
    fresh.className = "coming";
    old.after(fresh);
    fresh.addEventListener("load", () => {
      fresh.className = "";
      for (const frame of [...form.querySelectorAll(".preview-frame iframe")]) {
        if (frame === fresh) break;
        frame.remove();
      }
    });
    button.formTarget = fresh.name;
    form.requestSubmit(button);
  };
  let waiting;
  form.addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(refresh, event.target.name === "view" ? 0 : 500);
  });

  // The button says the number and the time that are typed, or that it would be refused. It can be
  // pressed all the same: the answer says at each field what is wrong.
  // The message of a sequence's step has no such button: its sequence says when it goes out.
  const schedule = document.getElementById("schedule-button");
  new MutationObserver(() => {
    const said = document.querySelector("[data-button-words]");
    if (!said || !schedule) return;
    schedule.querySelector("span").textContent = said.dataset.buttonWords;
    schedule.classList.toggle("not-yet", "notYet" in said.dataset);
  }).observe(document.getElementById("check"), { childList: true, subtree: true });
})();
