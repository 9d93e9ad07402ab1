// What pages do beyond plain HTML. Everything here only makes easier what works without it.
"use strict";

(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const dark = matchMedia("(prefers-color-scheme: dark)");

  for (const hidden of document.querySelectorAll("[data-needs-js]")) hidden.hidden = false;

  // A form that came back: the reader starts at what is wrong.
  const summary = $("[data-focus]");
  if (summary) summary.focus();

  // Light and dark. The choice is a cookie, so that the server's first byte already knows it.
  const toggle = $("[data-theme-toggle]");
  const chosen = () => document.documentElement.dataset.theme || (dark.matches ? "dark" : "light");
  const offerOther = () => { toggle.value = chosen() === "dark" ? "light" : "dark"; };
  if (toggle) {
    offerOther();
    dark.addEventListener("change", offerOther);
    toggle.form.addEventListener("submit", (event) => {
      event.preventDefault();
      const theme = toggle.value;
      const body = new FormData(toggle.form);
      body.set("theme", theme);
      document.documentElement.dataset.theme = theme;
      $("meta[name=color-scheme]").content = theme;
      offerOther();
      fetch(toggle.form.action, { method: "POST", body });
    });
  }

  // Menus close as people expect.
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll("details[data-menu][open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // Questions: the page that asks is fetched, and its question shown here. Cancel has the focus.
  document.addEventListener("click", async (event) => {
    const link = event.target.closest("a[data-confirm]");
    const dialog = $("#confirm-dialog");
    if (!link || !dialog || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    try {
      const answer = await fetch(link.href, { headers: { Accept: "text/html" } });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const question = $("#confirm", page);
      if (!answer.ok || !question) throw new Error("no question there");
      dialog.replaceChildren(...question.childNodes);
    } catch {
      location.assign(link.href);
      return;
    }
    dialog.showModal();
    const cancel = $("[data-cancel]", dialog);
    cancel.addEventListener("click", (press) => { press.preventDefault(); dialog.close(); });
    cancel.focus();
    dialog.addEventListener("close", () => link.focus(), { once: true });
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-open-dialog]");
    if (opener) document.getElementById(opener.dataset.openDialog).showModal();
  });

  // A second press of the same button must not make two of what it makes.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (event.defaultPrevented || form.method !== "post") return;
    // What goes into a frame (a preview) makes nothing, and leaves the page as it is.
    if (event.submitter?.formTarget) return;
    if (form.dataset.sent) event.preventDefault();
    form.dataset.sent = "yes";
  });
  addEventListener("pageshow", () => {
    for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  });

  // What was written is not lost by a press of a link.
  for (const form of document.querySelectorAll("form[data-keep-typing]")) {
    // A form that came back holds what is saved nowhere.
    let unsaved = Boolean(summary || $("[aria-invalid=true], .is-invalid", form));
    form.addEventListener("input", (event) => { unsaved ||= !event.target.matches("[name=reader], [name=view]"); });
    form.addEventListener("submit", (event) => { if (!event.submitter?.formTarget) unsaved = false; });
    addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  }

  // A field with a list of choices shows all of them when it is entered, not only its own value.
  for (const input of document.querySelectorAll("input[data-choices]")) {
    let before = input.value;
    input.addEventListener("focus", () => { before = input.value; input.placeholder = before; input.value = ""; });
    input.addEventListener("blur", () => { if (!input.value) input.value = before; });
    input.form.addEventListener("submit", () => { if (!input.value) input.value = before; });
  }

  // A time zone one did not mean is found out too late: the device's own is one press away.
  const here = $("[data-zone-here]");
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (here && zone) {
    const input = here.closest("form").elements.timezone;
    const known = [...input.list.options].some((option) => option.value === zone);
    // Its place is kept while it says nothing: what is below must not move under a press.
    const offer = () => { here.style.visibility = input.value === zone ? "hidden" : "visible"; };
    here.hidden = !known;
    $("span", here).textContent = zone;
    $("button", here).addEventListener("click", () => { input.value = zone; offer(); input.focus(); });
    for (const event of ["input", "change", "blur"]) input.addEventListener(event, offer);
    offer();
  }

  for (const input of document.querySelectorAll("input[data-select-all]")) {
    input.addEventListener("focus", () => input.select());
  }

  // Keys: / searches, g c goes to campaigns, ? helps.
  const places = { h: "/", c: "/campaigns/", s: "/scenarios/" };
  let going = 0;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") {
      for (const menu of document.querySelectorAll("details[data-menu][open]")) {
        menu.open = false;
        $("summary", menu).focus();
      }
      return;
    }
    if (event.target.closest("input, textarea, select, [contenteditable], dialog[open]")) return;
    if (Date.now() - going < 1500 && places[event.key] && $(".mainnav")) {
      location.assign(places[event.key]);
    } else if (event.key === "/" && $("[data-search]")) {
      event.preventDefault();
      $("[data-search]").focus();
    } else if (event.key === "?" && $("#shortcuts")) {
      $("#shortcuts").showModal();
    }
    going = event.key === "g" ? Date.now() : 0;
  });
})();
