"""The main job as a person does it, in a real browser, with a look at every page on the way.

It runs on real time, since real processes cannot be told another.
"""

import re
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from playwright.sync_api import FrameLocator, Page, expect
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

from mcs.config import ROOT
from mcs.models import Emailer
from tests.browser.conftest import Catcher
from tests.browser.viewer import Viewer
from tests.conftest import wait_until
from tests.flows.installation import OWNER, Installation, next_minute

pytestmark = pytest.mark.browser

BERLIN = ZoneInfo("Europe/Berlin")
EXAMPLES = ROOT / "examples" / "contacts.csv"
NO_TABLE = ROOT / "tests" / "files" / "contacts" / "picture.csv"
SUBJECT = "{{ first_name }}, autumn bulbs are in"
CONTENT = """Dear {{ first_name }},

the first crates came in this morning: tulips, crocuses, and the dark hyacinths that were gone in a
week last year. {% if company %}We keep a box for {{ company }} until Friday.{% else %}We keep a box
for you until Friday.{% endif %}

See you in the shop
Ada"""
# Answers that are no page of their own: parts of pages, frames, files.
NO_PAGES = {
    "emailers.ledger_file",
    "emailers.progress",
    "health.show",
    "home.sending",
    "imports.progress",
    "imports.example",
    "imports.rejected",
    "contacts.export",
    "mailbox.html",
    "scenarios.preview_empty",
    "scenarios.preview_saved",
    "scenarios.readers",
    "static",
}
# These need a fault, or a second person who signs in.
NOT_ON_THE_WAY = {
    "api_tokens.revoke",
    "doubts.ask_retry",
    "doubts.show",
    "doubts.show_of_sequence",
    "users.remove",
}
# tests/browser/test_sequence.py looks at these.
ELSEWHERE = ("sequences.", "steps.", "subjects.", "campaigns.ask_activate")
NO_LOOKS = ("api.",)
# The page beneath is looked at before it opens.
DIALOG = "dialog[open]"


def test_a_campaign_from_the_first_link_to_an_unsubscribe(
    installation: Installation, viewer: Viewer, ledger: Engine, catcher: Catcher, app: Flask
) -> None:
    set_up(viewer, installation)
    see_what_is_empty(viewer)
    campaign = create_campaign(viewer)
    upload_contacts(viewer, campaign)
    scenario, at = write_scenario(viewer, campaign)
    look_around(viewer, campaign, scenario)
    watch_it_go_out(viewer, scenario, at, catcher, ledger)
    leave_by_the_link_in_a_message(viewer)
    decide_what_was_missed(viewer, ledger, campaign)
    put_away(viewer, campaign, scenario)
    assert viewer.complaints == []
    assert pages(app) - endpoints(app, viewer) == set()
    print(f"{len(viewer.seen)} looks at {len(endpoints(app, viewer))} kinds of page")


def set_up(viewer: Viewer, installation: Installation) -> None:
    page = viewer.page
    link = installation.setup_path()
    wait_until(lambda: viewer.context.request.get("/healthz").status == 200, 60)
    page.goto("/setup?token=mistyped")
    viewer.look("setup-bad-link")
    page.goto(link)
    viewer.look("setup")
    page.get_by_label("Email").fill(OWNER["email"])
    page.get_by_label("Password").fill("short")
    page.get_by_role("button", name="Start").click()
    viewer.look("setup-refused")
    page.get_by_label("Password").fill(OWNER["password"])
    page.get_by_role("button", name="Start").click()
    expect(page).to_have_url(re.compile("/$"))
    viewer.look("home-empty")
    page.get_by_label("Account:").click()
    viewer.look("account-menu")
    page.get_by_role("button", name="Sign out").click()
    page.goto("/login")
    viewer.look("login")
    page.get_by_label("Email").fill(OWNER["email"])
    page.get_by_label("Password").fill("not this one")
    page.get_by_role("button", name="Sign in").click()
    viewer.look("login-refused")
    page.get_by_label("Password").fill(OWNER["password"])
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(re.compile("/$"))


def see_what_is_empty(viewer: Viewer) -> None:
    for noun in ("campaigns", "scenarios", "contacts", "mailbox", "emailers"):
        viewer.page.goto(f"/{noun}/")
        viewer.look(f"{noun}-empty")


def create_campaign(viewer: Viewer) -> str:
    """The campaign's path."""
    page = viewer.page
    today = datetime.now(BERLIN).date()
    page.goto("/campaigns/")
    page.get_by_role("link", name="New campaign").click()
    viewer.look("campaign-new")
    page.get_by_label("First day").fill(str(today))
    page.get_by_label("Last day").fill(str(today - timedelta(days=3)))
    page.get_by_role("button", name="Create campaign").click()
    expect(page.get_by_role("alert")).to_be_focused()
    viewer.look("campaign-refused")
    page.get_by_label("Name", exact=True).fill("Autumn bulbs")
    page.get_by_label("Description").fill(
        "Everyone who bought bulbs last year, twice before frost."
    )
    page.get_by_label("Last day").fill(str(today + timedelta(days=12)))
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_label("From name").fill("Ada’s Garden Shop")
    page.get_by_label("From address").fill("ada@shop.example")
    page.get_by_label("Postal address").fill("Ada’s Garden Shop\nLindenstraße 4\n10969 Berlin")
    page.get_by_role("button", name="Create campaign").click()
    expect(page).to_have_url(re.compile(r"/campaigns/\d+$"))
    viewer.look("campaign-begun")
    return path(page)


def upload_contacts(viewer: Viewer, campaign: str) -> None:
    page = viewer.page
    page.goto(f"{campaign}/contacts")
    viewer.look("contacts-of-campaign-empty")
    page.goto(campaign)
    page.get_by_role("link", name="Upload a CSV").click()
    viewer.look("upload")
    page.get_by_label("CSV file").set_input_files(NO_TABLE)
    page.get_by_role("button", name="Continue").click()
    viewer.look("upload-refused")
    page.get_by_label("CSV file").set_input_files(EXAMPLES)
    page.get_by_role("button", name="Continue").click()
    expect(page.get_by_role("heading", name="Is this right?")).to_be_visible()
    viewer.look("review")
    page.get_by_role("button", name="Import 200 rows").click()
    expect(page.get_by_role("heading", name="could not be taken")).to_be_visible()
    viewer.look("import")
    page.goto(f"{campaign}/contacts/upload")
    viewer.look("upload-again")
    page.goto(f"{campaign}/contacts/new")
    viewer.look("contact-new")
    page.get_by_label("Email address").fill("not an address")
    page.get_by_role("button", name="Add the contact").click()
    viewer.look("contact-refused")


def write_scenario(viewer: Viewer, campaign: str) -> tuple[str, datetime]:
    """The scenario's path, and when it goes out."""
    page = viewer.page
    page.goto(campaign)
    viewer.look("campaign-with-contacts")
    page.get_by_role("link", name="New scenario").click()
    viewer.look("scenario-new")
    page.get_by_label("Name", exact=True).fill("First crates")
    page.get_by_label("Subject").fill("Bulbs for {{ firstname }}")
    page.get_by_label("Content").fill(CONTENT)
    expect(page.locator("#check")).to_contain_text("firstname")
    viewer.look("scenario-unknown-field")
    page.get_by_label("Subject").fill(SUBJECT)
    expect(page.locator("#check")).to_contain_text("Ada, autumn bulbs are in")
    expect(the_email(page).locator("body")).to_contain_text(
        "We keep a box for Tall Trees until Friday."
    )
    page.get_by_label("Markdown").check()
    page.get_by_role("radio", name="Phone").check()
    viewer.look("scenario-written")
    page.get_by_role("button", name="Send me a test").click()
    expect(page.locator("#notice")).to_contain_text("on its way")
    at = next_minute(timedelta(seconds=25))
    local = at.astimezone(BERLIN)
    page.get_by_label("Date").fill(str(local.date()))
    page.get_by_label("Time", exact=True).fill(f"{local:%H:%M}")
    button = page.locator("#schedule-button")
    expect(button).to_have_text(
        re.compile(
            rf"Schedule 19\d emails for {local:%a} {local.day} {local:%b}, {local:%H:%M} Berlin"
        )
    )
    button.click()
    expect(page).to_have_url(re.compile(r"/scenarios/\d+$"))
    viewer.look("scenario-scheduled")
    return path(page), at


def look_around(viewer: Viewer, campaign: str, scenario: str) -> None:
    """While it waits for its minute."""
    page = viewer.page
    page.goto("/emailers/")
    viewer.look("emailers-planned")
    page.get_by_role("link", name="First crates").click()
    viewer.look("emailer-planned")
    ask_and_cancel(viewer, "Cancel", "Cancel “First crates”?", "dialog-cancel-planned")


def ask_and_cancel(viewer: Viewer, link: str, question: str | re.Pattern[str], name: str) -> None:
    """The dialog opens with the focus on Cancel, closes with Escape, and gives the focus back."""
    page = viewer.page
    opener = page.get_by_role("link", name=link, exact=True)
    opener.click()
    dialog = page.get_by_role("dialog", name=question)
    expect(dialog.get_by_text(re.compile("^(Cancel|Keep it)$"))).to_be_focused()
    viewer.look(name, part=DIALOG)
    # The question is that of a page of its own, shown here.
    viewer.seen[name] = str(opener.get_attribute("href")).partition("?")[0]
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(opener).to_be_focused()


def watch_it_go_out(
    viewer: Viewer, scenario: str, at: datetime, catcher: Catcher, ledger: Engine
) -> None:
    """The mail server holds its breath, so that there is time to look and to pause."""
    page = viewer.page
    catcher.hold()
    assert datetime.now(UTC) < at, "the looks before took too long"
    until = (at - datetime.now(UTC)).total_seconds()
    wait_for_state(page, "sending", int(until) + 45)
    while count(ledger, "SELECT count(*) FROM deliveries WHERE state = 'sent'") < 12:
        catcher.breathe()
        page.wait_for_timeout(100)
    expect(page.get_by_role("link", name=re.compile(r"^[1-9]\d* sent"))).to_be_visible()
    viewer.look("emailer-sending")
    page.goto("/")
    viewer.look("home-sending")
    page.get_by_role("link", name="First crates").first.click()
    page.get_by_role("button", name="Pause").click()
    catcher.go_on()
    wait_for_state(page, "paused", 30)
    page.wait_for_timeout(2500)  # The messages that were in flight arrive, the page follows.
    viewer.look("emailer-paused")
    ask_and_cancel(viewer, "Cancel", "Cancel “First crates”?", "dialog-cancel-paused")
    page.goto("/")
    viewer.look("home-paused")
    page.get_by_role("link", name="First crates").first.click()
    page.get_by_role("button", name="Resume").click()
    wait_for_state(page, "sent", 90)
    viewer.look("emailer-sent")
    page.goto(scenario)
    viewer.look("scenario-sent")
    page.goto(f"{scenario}/edit")
    viewer.look("scenario-frozen")


def count(ledger: Engine, query: str) -> int:
    with ledger.connect() as connection:
        return int(connection.scalar(text(query)) or 0)


def wait_for_state(page: Page, state: str, seconds: int) -> None:
    expect(page.locator("#progress")).to_have_attribute("data-state", state, timeout=seconds * 1000)


def leave_by_the_link_in_a_message(viewer: Viewer) -> None:
    page = viewer.page
    page.goto("/mailbox/")
    viewer.look("mailbox")
    page.get_by_role("link", name="zoe.adler@mail.example").first.click()
    viewer.look("message")
    page.get_by_role("link", name="See its row of the ledger").click()
    expect(page.get_by_role("heading", name="First crates")).to_contain_text("Sent")
    viewer.look("delivery")
    page.get_by_role("link", name="See it in the mailbox").click()
    for view in ("Text", "Headers", "Source"):
        page.get_by_role("link", name=view).click()
        viewer.look(f"message-{view.lower()}")
    page.get_by_role("link", name="As a person sees it").click()
    with page.expect_popup() as opened:
        the_email(page).get_by_role("link", name=re.compile("unsubscribe", re.IGNORECASE)).click()
    farewell = opened.value
    viewer.look("unsubscribe", farewell)
    press(farewell, "Unsubscribe")
    viewer.look("unsubscribed", farewell)
    press(farewell, "Undo, keep me subscribed")
    viewer.look("subscribed-again", farewell)
    press(farewell, "Unsubscribe")
    farewell.goto("/u/cut-off")
    viewer.look("unsubscribe-unknown", farewell)
    farewell.close()
    page.goto("/contacts/?q=zoe.adler")
    viewer.look("contacts-found")
    page.get_by_role("link", name="Zoe Adler").click()
    expect(page.get_by_text("Gets no email.")).to_be_visible()
    viewer.look("contact-unsubscribed")
    ask_and_cancel(
        viewer,
        "Write to them again",
        "Write to zoe.adler@mail.example again?",
        "dialog-write-again",
    )
    ask_and_cancel(viewer, "Delete", "Delete zoe.adler@mail.example?", "dialog-delete-contact")
    page.goto("/contacts/?q=yusuf.adler")
    page.get_by_role("link", name="Yusuf Adler").click()
    viewer.look("contact")
    ask_and_cancel(
        viewer,
        "Write to them no more",
        "Write to yusuf.adler@work.example no more?",
        "dialog-write-no-more",
    )
    page.get_by_label("What to do in Autumn bulbs").click()
    page.get_by_role("link", name="Remove from it").click()
    viewer.look("dialog-remove-contact", part=DIALOG)
    page.keyboard.press("Escape")
    page.goto(f"{path(page)}/remove")
    viewer.look("question-as-a-page")


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()
    page.wait_for_load_state()


def decide_what_was_missed(viewer: Viewer, ledger: Engine, campaign: str) -> None:
    """A row stands in for an outage that lasted longer than the late limit."""
    page = viewer.page
    page.goto(f"{campaign}/scenarios/new")
    page.get_by_label("Name", exact=True).fill("Last call before frost")
    page.get_by_label("Subject").fill("Plant them before Sunday, {{ first_name }}")
    page.get_by_label("Content").fill("Dear {{ first_name }},\n\nfrost comes on Sunday.")
    page.locator("#schedule-button").click()
    expect(page).to_have_url(re.compile(r"/scenarios/\d+$"))
    viewer.look("scenario-for-fewer")
    earlier = datetime.now(UTC) - timedelta(hours=5)
    with Session(ledger) as session:
        missed = Emailer(scenario_id=int(path(page).rsplit("/", 1)[-1]), state="missed")
        missed.scheduled_at = missed.created_at = earlier
        session.add(missed)
        session.commit()
    page.goto("/")
    viewer.look("home-needs-a-person")
    page.get_by_role("link", name="Last call before frost").first.click()
    expect(page.get_by_role("button", name="Send 195 emails now")).to_be_visible()
    viewer.look("emailer-missed")
    page.get_by_role("button", name="Skip it").click()
    expect(page.get_by_text("Skipped: nobody gets it.")).to_be_visible()
    viewer.look("emailer-skipped")


def put_away(viewer: Viewer, campaign: str, scenario: str) -> None:
    page = viewer.page
    page.goto(scenario)
    page.get_by_role("button", name="Duplicate").click()
    viewer.look("scenario-edit")
    page.get_by_role("button", name="Save draft").click()
    viewer.look("scenario-draft")
    ask_and_cancel(viewer, "Delete", re.compile("Delete “.*”?"), "dialog-delete-scenario")
    page.goto("/scenarios/")
    viewer.look("scenarios")
    page.goto(f"{campaign}/scenarios/")
    viewer.look("scenarios-of-campaign")
    page.goto(f"{campaign}/contacts")
    viewer.look("contacts-of-campaign")
    page.goto("/contacts/")
    viewer.look("contacts")
    page.goto("/emailers/")
    viewer.look("emailers")
    page.goto(campaign)
    viewer.look("campaign")
    ask_and_cancel(viewer, "Deactivate", "Deactivate Autumn bulbs?", "dialog-deactivate")
    ask_and_cancel(viewer, "Archive", "Archive Autumn bulbs?", "dialog-archive")
    page.goto(f"{campaign}/edit")
    viewer.look("campaign-edit")
    page.goto("/campaigns/")
    viewer.look("campaigns")
    page.goto("/")
    viewer.look("home")
    page.keyboard.press("?")
    viewer.look("dialog-shortcuts", part=DIALOG)
    page.goto("/account")
    viewer.look("account")
    page.goto("/activity/")
    viewer.look("activity")
    page.goto("/users/")
    page.get_by_label("Email").fill("ben@shop.example")
    page.get_by_role("button", name="Make a link").click()
    viewer.look("users")
    page.goto("/api-tokens/")
    viewer.look("api-tokens")
    page.get_by_label("What uses it").fill("Web shop")
    page.get_by_role("button", name="Make a token").dblclick()
    expect(page.get_by_role("heading", name="Copy it now")).to_be_visible()
    viewer.look("api-token-made")
    page.get_by_role("link", name="I have copied it").click()
    expect(page.get_by_role("link", name="Revoke")).to_have_count(1)
    page.goto("/campaigns/404")
    viewer.look("not-found")


def the_email(page: Page) -> FrameLocator:
    return page.frame_locator(".preview-frame iframe:not(.coming)")


def path(page: Page) -> str:
    return re.sub(r"^https?://[^/]+", "", page.url)


def pages(app: Flask) -> set[str]:
    """Every kind of page a person can open on this way."""
    readable = (rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()))
    found = {rule.endpoint for rule in readable} - NO_PAGES - NOT_ON_THE_WAY
    return {endpoint for endpoint in found if not endpoint.startswith((*ELSEWHERE, *NO_LOOKS))}


def endpoints(app: Flask, viewer: Viewer) -> set[str]:
    """The kinds of page that were looked at."""
    adapter = app.url_map.bind("")
    readable = (seen for seen in viewer.seen.values() if adapter.test(seen, "GET"))
    return {str(adapter.match(seen, "GET")[0]) for seen in readable}
