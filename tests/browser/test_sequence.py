"""The pages of a sequence, looked at as all the others are: steps, enrolling, subjects, actions."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from playwright.sync_api import Browser, Error, Page, expect
from sqlalchemy.orm import Session

from mcs.extensions import db
from mcs.models import Campaign
from mcs.services import editing, exchanges, schedules, users
from mcs.services.definitions import Step
from mcs.services.endings import Ended
from mcs.services.scenarios import Fields
from tests.browser.viewer import Viewer
from tests.people import add_campaign, add_contact

OWNER, PASSWORD = "olga@shop.example", "seven green kettles"
HOOK = {"url": "https://hooks.shop.example/orders", "secret": "a secret of 24 characters"}
WELCOME = Fields("Welcome", "Welcome, {{ first_name }}", "Dear {{ name }},\n\nit is on its way.")
HOW = Fields("How is it growing?", "Two days on, {{ first_name }}", "Dear {{ name }},\n\nwell?")
WRONG = 'Traceback (most recent call last):\n  File "webhook.py", line 88, in _post\n'
WRONG += "mcs.gateways.callbacks.webhook.WebhookFailed: https://hooks.shop.example answered 503"
PEOPLE = ("Ann Adler", "Bob Brandt", "Carol Cox", "Dan Dietz", "Erika Ende", "Finn Falk")
# Parts of pages.
NO_PAGES = {"steps.check"}


@pytest.fixture
def campaign(app: Flask, session: Session) -> Campaign:
    """Six people, a day apart from each other; a webhook failed for the third of them."""
    now = datetime.now(UTC)
    days = {
        "start_date": (now - timedelta(days=9)).date(),
        "end_date": (now + timedelta(days=60)).date(),
    }
    campaign = add_campaign(session, name="After purchase", **days)
    began = now - timedelta(days=6)
    table = app.extensions["callbacks"]
    for step, message in (
        (Step("welcome", "send_email", "0days"), WELCOME),
        (Step("order", "webhook", "1day", "09:30", config=HOOK), None),
        (Step("how", "send_email", "2days", "10:00", "mon-fri"), HOW),
        (Step("ask", "webhook", "4days", "10:00-15:00", after="how", config=HOOK), None),
    ):
        editing.put(session, began, campaign.id, step, new=True, message=message, known=table)
    for number, name in enumerate(PEOPLE):
        contact = add_contact(session, campaign, name.replace(" ", "."))
        contact.name = name
        session.commit()
        who = schedules.subject_of(contact.id)
        schedules.enrol(session, began + timedelta(days=number), campaign.id, who)
    add_contact(session, campaign, "Gisela")
    schedules.unschedule(session, now, campaign.id, "contact", "2")
    _run(session, now)
    return campaign


def _run(session: Session, now: datetime) -> None:
    """What is due by now, as it would have ended: one webhook does not get through."""
    lease, table = timedelta(minutes=1), ["send_email", "webhook"]
    given: dict[str, Any] = {"lease": lease, "room": 100, "die": 0.5, "callbacks": table}
    at = now - timedelta(days=6)
    while at < now:
        at += timedelta(hours=1)
        claimed = exchanges.exchange(session, at, [], **given)
        ended = [
            Ended(one, error=WRONG if one.key == "order" and one.subject_id == "3" else None)
            for one in claimed
        ]
        exchanges.exchange(session, at, ended, **(given | {"room": 0}))


@pytest.fixture
def viewer(chromium: Browser, app: Flask, base_url: str) -> Iterator[Viewer]:
    with app.app_context():
        users.create_user(db.session(), datetime.now(UTC), OWNER, PASSWORD, users.OWNER)
    viewer = Viewer(chromium, base_url, Path(__file__).parent / "shots" / "sequence")
    page = viewer.page
    page.goto("/login")
    page.get_by_label("Email").fill(OWNER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Running").wait_for()
    yield viewer
    print("\n".join(viewer.complaints))
    viewer.close()


@pytest.mark.browser
def test_a_sequence_in_a_browser(
    viewer: Viewer, app: Flask, session: Session, campaign: Campaign
) -> None:
    page = viewer.page
    here = f"/campaigns/{campaign.id}/sequence"
    empty = add_campaign(session, name="Nothing yet").id
    visit(viewer, f"/campaigns/{empty}/sequence", "sequence-empty")
    visit(viewer, here, "sequence")
    write_a_step(viewer, page, here)
    edit_a_step(viewer, page, here)
    visit(viewer, f"{here}/steps/ask/remove", "step-remove")
    visit(viewer, f"{here}/enrol", "enrol")
    visit(viewer, f"{here}/subjects", "subjects")
    visit(viewer, f"{here}/subjects/3", "subject")
    visit(viewer, f"{here}/subjects/3/withdraw", "subject-withdraw")
    visit(viewer, f"{here}/subjects/3/restart", "subject-restart")
    visit(viewer, f"{here}/actions?state=failed", "actions-failed")
    visit(viewer, f"{here}/actions", "actions")
    visit(viewer, f"{here}/retry", "actions-retry")
    visit(viewer, f"/campaigns/{campaign.id}", "campaign-with-sequence")
    visit(viewer, "/contacts/1", "contact-in-sequence")
    visit(viewer, "/", "home-with-sequence")
    visit(viewer, f"/campaigns/{campaign.id}/activate", "campaign-activate")
    sign_out_at_the_question(page, here)
    assert viewer.complaints == []
    assert pages(app) - endpoints(app, viewer) == set()


def visit(viewer: Viewer, path: str, name: str) -> None:
    answer = viewer.page.goto(path)
    assert answer is not None
    assert answer.status == 200, path
    viewer.look(name)


def write_a_step(viewer: Viewer, page: Page, here: str) -> None:
    page.goto(f"{here}/steps/new")
    page.get_by_label("How long after").fill("2 dogs")
    page.get_by_label("Name", exact=True).fill("A last word")
    page.get_by_label("Subject").fill("Goodbye, {{ first_name }}")
    page.get_by_label("Content").fill("Dear {{ name }},\n\nthat was all.")
    expect(page.locator("#check")).to_contain_text("is no unit")
    page.get_by_role("button", name="Add the step").click()
    expect(page.get_by_role("alert")).to_be_focused()
    viewer.look("step-refused")
    page.get_by_label("How long after").fill("9days")
    expect(page.locator("#check")).to_contain_text("9 days later, at 10:00")
    expect(page.locator("#check")).to_contain_text("Goodbye, Ann")
    viewer.look("step-new")


def edit_a_step(viewer: Viewer, page: Page, here: str) -> None:
    page.goto(f"{here}/steps/order")
    viewer.look("step-webhook")
    page.goto(f"{here}/steps/how")
    page.get_by_label("How long after").fill("1day")
    page.get_by_role("button", name="Save the step").click()
    expect(
        page.get_by_role("heading", name="Save the step “Email: How is it growing?”?")
    ).to_be_visible()
    viewer.look("step-confirm")
    page.get_by_label(re.compile("Run it at once")).check()
    page.get_by_role("button", name="Save the step").click()
    expect(page.get_by_text("The step “Email: How is it growing?” is saved.")).to_be_visible()
    back_through_what_was_asked(page)


def back_through_what_was_asked(page: Page) -> None:
    """No "confirm form resubmission" stands in the way, neither at the question nor at the form."""
    page.go_back()
    expect(
        page.get_by_role("heading", name="Save the step “Email: How is it growing?”?")
    ).to_be_visible()
    page.go_back()
    expect(page.get_by_label("How long after")).to_be_visible()


def sign_out_at_the_question(page: Page, here: str) -> None:
    """Whoever goes back after her, on the same computer, is not shown what she was asked."""
    page.goto(f"{here}/steps/how")
    page.get_by_label("How long after").fill("3days")
    page.get_by_role("button", name="Save the step").click()
    expect(page.get_by_role("heading", name="Save the step")).to_be_visible()
    page.locator("form[action='/logout'] button").evaluate("button => button.click()")
    expect(page).to_have_url(re.compile("/login$"))
    with contextlib.suppress(Error):  # Chromium's own page, in place of what it no longer has.
        page.go_back()
    expect(page.get_by_role("heading", name="Save the step")).to_have_count(0)


def pages(app: Flask) -> set[str]:
    """Every kind of page of these blueprints that can be opened."""
    readable = (rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ()))
    nouns = ("sequences.", "steps.", "subjects.", "campaigns.ask_activate")
    return {rule.endpoint for rule in readable if rule.endpoint.startswith(nouns)} - NO_PAGES


def endpoints(app: Flask, viewer: Viewer) -> set[str]:
    adapter = app.url_map.bind("")
    return {str(adapter.match(seen, "GET")[0]) for seen in viewer.seen.values()}
