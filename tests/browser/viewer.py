"""Somebody who looks at pages in Chromium, and at each with care: light, dark, on a phone."""

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, expect

VENDOR = Path(__file__).parent / "vendor"
DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 390, "height": 844}
# Pictures are for people who look at them: ``MCS_TEST_PICTURES=no`` takes none, a third faster.
PICTURES = os.environ.get("MCS_TEST_PICTURES") != "no"
# A list of fifty lines looks the same further down.
LONGEST = 2600
# What a browser says of an answer that is meant to be a refusal; its page is looked at, too.
MEANT = "responded with a status of 4"
# The rules that a theme has a say in; the others see the same document in light and dark.
COLOURS = ["color-contrast", "link-in-text-block"]
ASK_AXE = "async ([part, options]) => (await axe.run(part, options)).violations"


@cache
def axe() -> str:
    """axe-core as it was published: the manifest's bytes, or nothing."""
    (entry,) = json.loads((VENDOR / "manifest.json").read_text())
    content = (VENDOR / entry["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    return content.decode()


class Viewer:
    """A browser window. ``seen`` maps the name of each look to the path it was at. ``complaints``
    are those of the looks, and errors on the console, the content security policy's among them.
    """

    def __init__(
        self, browser: Browser, base_url: str, folder: Path, *, scripts: bool = True
    ) -> None:
        self.context = browser.new_context(
            base_url=base_url,
            viewport=DESKTOP,
            locale="en-GB",
            timezone_id="Europe/Berlin",
            reduced_motion="reduce",
            java_script_enabled=scripts,
        )
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seen: dict[str, str] = {}
        self.complaints: list[str] = []
        self.context.on("console", self._listen)
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.page = self.context.new_page()
        self.page.set_default_timeout(15_000)

    def close(self) -> None:
        self.context.close()

    def _listen(self, message: ConsoleMessage) -> None:
        if message.type == "error" and MEANT not in message.text:
            self.complaints.append(f"console: {message.text} ({message.location})")

    def look(self, name: str, page: Page | None = None, part: str = "html") -> None:
        """Keep a picture in light, dark and on a phone; ``complaints`` gets what axe finds in
        either theme, and what is wider than a phone. Axe reads that ``part`` (a selector), for
        pages of which the rest was just looked at."""
        page = page or self.page
        page.wait_for_load_state()
        # A dialog's question is fetched when it is opened.
        expect(page.locator(part)).to_be_visible()
        page.evaluate("document.fonts.ready.then(() => true)")
        self._unroll(page, DESKTOP)
        self._shoot(page, f"{name}-light")
        self._ask_axe(page, f"{name}, light", part, [])
        page.emulate_media(color_scheme="dark")
        self._shoot(page, f"{name}-dark")
        self._ask_axe(page, f"{name}, dark", part, COLOURS)
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(PHONE)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > PHONE["width"]:
            self.complaints.append(f"{name} is {width} pixels wide on a phone")
        if PICTURES:
            self._unroll(page, PHONE)
            self._shoot(page, f"{name}-phone")
        page.set_viewport_size(DESKTOP)
        self.seen[name] = urlsplit(page.url).path

    def _unroll(self, page: Page, size: ViewportSize) -> None:
        """As high as the page: what sticks to the window's edge then covers nothing."""
        height = page.evaluate("document.documentElement.scrollHeight")
        if height > size["height"]:
            page.set_viewport_size({"width": size["width"], "height": min(height, LONGEST)})

    def _shoot(self, page: Page, name: str) -> None:
        if not PICTURES:
            return
        # JPEG takes half the time of PNG.
        page.screenshot(path=self.folder / f"{name}.jpg", type="jpeg", quality=85)

    def _ask_axe(self, page: Page, name: str, part: str, rules: list[str]) -> None:
        """By these rules, or by all. A frame with an email in it is somebody else's page."""
        if page.evaluate("typeof axe") == "undefined":
            # Playwright's own evaluate reads a text of this length twice more.
            browser = page.context.new_cdp_session(page)
            browser.send("Runtime.evaluate", {"expression": axe()})
            browser.detach()
        options: dict[str, Any] = {"iframes": False, "resultTypes": ["violations"]}
        if rules:
            options["runOnly"] = rules
        found = page.evaluate(ASK_AXE, [part, options])
        self.complaints.extend(f"{name}: {_said(each)}" for each in found)


def _said(violation: dict[str, Any]) -> str:
    first = violation["nodes"][0]
    where = [node["html"][:160] for node in violation["nodes"][:4]]
    return f"{violation['id']}: {violation['help']} at {where} {first.get('failureSummary', '')}"
