"""Other ways to use the pages: without JavaScript, and with the keyboard alone."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser, Page, expect

from mcs.config import ROOT
from mcs.extensions import db
from mcs.services import users
from tests.browser.viewer import Viewer
from tests.conftest import wait_until
from tests.flows.installation import OWNER
from tests.mail import MailServer

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("ways")]

EXAMPLES = ROOT / "examples" / "contacts.csv"
# Whether the focused element shows that it is: an outline, or the one of what stands for it.
SHOWS_FOCUS = """() => {
  const shown = [document.activeElement, document.activeElement.nextElementSibling];
  return shown.some((each) => each && getComputedStyle(each).outlineStyle !== "none");
}"""


@pytest.fixture
def owned(app: Flask, base_url: str, mail_server: MailServer) -> str:
    """The address of an installation with an owner. Nothing but a test is sent here, so the web
    process and a mail server are enough."""
    settings = replace(app.config["SETTINGS"], embedded_mail=False, mail_port=mail_server.port)
    app.config["SETTINGS"] = settings
    with app.app_context():
        now = datetime.now(UTC)
        users.create_user(db.session(), now, OWNER["email"], OWNER["password"], users.OWNER)
    return base_url


def test_everything_works_without_javascript(chromium: Browser, owned: str, tmp_path: Path) -> None:
    viewer = Viewer(chromium, owned, tmp_path, scripts=False)
    page = viewer.page
    sign_in(page)
    page.get_by_role("link", name="New campaign").click()
    page.get_by_role("button", name="Create campaign").click()
    expect(page.get_by_role("alert")).to_contain_text("Give the campaign a name.")
    page.get_by_label("Name", exact=True).fill("Without scripts")
    page.get_by_label("Last day").fill(str(datetime.now(UTC).date() + timedelta(days=9)))
    page.get_by_label("From address").fill("ada@shop.example")
    page.get_by_label("Postal address").fill("Lindenstraße 4, Berlin")
    page.get_by_role("button", name="Create campaign").click()
    page.get_by_role("link", name="Upload a CSV").click()
    page.get_by_label("CSV file").set_input_files(EXAMPLES)
    page.get_by_role("button", name="Continue").click()
    page.get_by_role("button", name="Import 200 rows").click()
    expect(page.get_by_role("heading", name="3 rows could not be taken")).to_be_visible()
    page.get_by_role("link", name="Go to the campaign").click()
    page.get_by_role("link", name="New scenario").click()
    page.get_by_label("Name", exact=True).fill("Plain")
    page.get_by_label("Subject").fill("Hello {{ first_name }}")
    page.get_by_label("Content").fill("Dear {{ first_name }}, spring is near.")
    page.get_by_role("button", name="Preview").click()
    email = page.frame_locator("iframe[name=preview]")
    expect(email.get_by_text("Dear Ada, spring is near.")).to_be_visible()
    page.get_by_role("button", name="Send me a test").click()
    expect(page.get_by_role("status").get_by_text("on its way")).to_be_visible()
    expect(page.get_by_label("Subject")).to_have_value("Hello {{ first_name }}")
    page.locator("#schedule-button").click()
    expect(page.get_by_text("“Plain” is scheduled for")).to_be_visible()
    page.get_by_role("link", name="Without scripts").first.click()
    page.get_by_role("link", name="Deactivate").click()
    expect(page.get_by_text("1 planned email to 196 recipients will not go out.")).to_be_visible()
    page.get_by_role("button", name="Deactivate").click()
    expect(page.get_by_text("nothing more is started by itself")).to_be_visible()
    page.get_by_label("Account:").click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    viewer.close()


def test_everything_is_reached_by_the_keyboard(
    chromium: Browser, owned: str, tmp_path: Path
) -> None:
    viewer = Viewer(chromium, owned, tmp_path)
    page, keyboard = viewer.page, viewer.page.keyboard
    page.goto("/login")
    keyboard.type(OWNER["email"])
    keyboard.press("Tab")
    keyboard.type(OWNER["password"])
    keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/$"))
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    keyboard.press("Enter")
    keyboard.press("Tab")
    expect(page.get_by_role("link", name="New campaign")).to_be_focused()
    keyboard.press("Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    keyboard.type("By keyboard")
    walk(page)
    page.get_by_label("Last day").fill(str(datetime.now(UTC).date() + timedelta(days=9)))
    page.get_by_role("button", name="Create campaign").press("Enter")
    expect(page.get_by_role("heading", name="By keyboard")).to_be_visible()
    walk(page)
    question(page)
    menu(page)
    keyboard.press("g")
    keyboard.press("c")
    expect(page).to_have_url(re.compile("/campaigns/$"))
    page.wait_for_load_state()  # The shortcuts are there once its scripts have run.
    keyboard.press("/")
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.get_by_role("link", name="By keyboard").press("Enter")
    page.get_by_role("link", name="Write the first one").press("Enter")
    expect(page.get_by_label("Name", exact=True)).to_be_visible()
    walk(page)
    assert viewer.complaints == []
    viewer.close()


def test_nothing_moves_for_those_who_ask_for_rest(
    chromium: Browser, owned: str, tmp_path: Path
) -> None:
    viewer = Viewer(chromium, owned, tmp_path)
    sign_in(viewer.page)
    viewer.page.get_by_role("link", name="New campaign").hover()
    moving = "[...document.querySelectorAll('*')].filter((each) => getComputedStyle(each)"
    durations = f"{moving}.transitionDuration.split(', ').some((time) => parseFloat(time) > 0.001))"
    assert viewer.page.evaluate(f"{durations}.length") == 0
    assert viewer.page.evaluate("document.getAnimations().length") == 0
    viewer.close()


def sign_in(page: Page) -> None:
    page.goto("/login")
    page.get_by_label("Email").fill(OWNER["email"])
    page.get_by_label("Password").fill(OWNER["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/$"))


def walk(page: Page) -> None:
    """Tab through the whole page: the focus is seen at every stop, and nothing holds it."""
    page.wait_for_load_state("load")
    page.evaluate("document.activeElement.blur()")
    stops = []
    for _ in range(120):
        page.keyboard.press("Tab")
        here = page.evaluate("document.activeElement.outerHTML.slice(0, 240)")
        if here.startswith("<body"):
            break
        # What a browser itself draws inside an element, such as a calendar, only it can see.
        if not re.search('^<iframe|type="(date|time)"', here):
            assert page.evaluate(SHOWS_FOCUS), f"the focus is not seen at {here}"
        stops.append(here)
    else:
        pytest.fail(f"the focus does not come out again: {stops[-5:]}")
    assert len(stops) > 10


def question(page: Page) -> None:
    """A dialog starts at Cancel, keeps the focus inside, and gives it back."""
    opener = page.get_by_role("link", name="Deactivate")
    opener.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("link", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Deactivate")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


def menu(page: Page) -> None:
    account = page.get_by_label("Account:")
    account.press("Enter")
    expect(page.get_by_role("link", name="Activity")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("link", name="Activity")).to_be_hidden()
    expect(account).to_be_focused()
    page.evaluate("document.activeElement.blur()")


def test_what_is_typed_is_not_lost_and_no_button_moves(
    chromium: Browser, owned: str, tmp_path: Path
) -> None:
    viewer = Viewer(chromium, owned, tmp_path)
    page = viewer.page
    sign_in(page)
    page.goto("/campaigns/new")
    page.get_by_label("Name", exact=True).fill("Kept")
    page.get_by_label("Last day").fill(str(datetime.now(UTC).date() + timedelta(days=9)))
    button = page.get_by_role("button", name="Create campaign")
    page.get_by_label("Time zone").fill("Europe/Berlin")
    expect(page.get_by_text("Use that")).to_be_hidden()
    stood = button.bounding_box()
    page.get_by_label("Time zone").fill("tokyo")
    expect(page.get_by_text("Use that")).to_be_visible()
    assert button.bounding_box() == stood
    button.click()
    expect(page.get_by_text("Asia/Tokyo")).to_be_visible()
    page.get_by_role("link", name="New scenario").click()
    expect(page.locator("#schedule-button")).to_have_text("Cannot be scheduled yet: see above")
    page.locator("#schedule-button").click()
    wrong = page.locator("#name-error")
    expect(wrong).to_be_visible()
    page.get_by_label("Name", exact=True).fill("Written")
    expect(wrong).to_have_count(0)
    asked: list[str] = []
    page.once("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.get_by_role("link", name="Kept").first.click(no_wait_after=True)
    wait_until(lambda: bool(page.evaluate("1")) and asked == ["beforeunload"], 10)
    expect(page.get_by_label("Name", exact=True)).to_have_value("Written")
    page.get_by_role("button", name="Save draft").click()
    expect(page.get_by_text("is kept as a draft")).to_be_visible()
    viewer.close()
