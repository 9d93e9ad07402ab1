"""The pages that only a fault or a second person leads to, looked at as all the others are."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from playwright.sync_api import Browser
from sqlalchemy.orm import Session

from mcs.extensions import db
from mcs.services import (
    api_tokens,
    deliveries,
    email_actions,
    email_starts,
    emailers,
    planning,
    rescues,
    schedules,
    sequences,
    slice_claims,
    users,
)
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.schedules import subject_of
from tests.browser.viewer import Viewer
from tests.people import add_campaign, add_contact, add_scenario

OWNER, PASSWORD = "olga@shop.example", "seven green kettles"
LEASE = timedelta(seconds=45)


@pytest.fixture
def doubtful(app: Flask, session: Session) -> int:
    """Ann's message is in doubt, Bob's failed."""
    now = datetime.now(UTC)
    today = now.date()
    days = {"start_date": today - timedelta(days=2), "end_date": today + timedelta(days=9)}
    campaign = add_campaign(session, name="Autumn sale", timezone="UTC", **days)
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    at = (now - timedelta(minutes=5)).replace(second=0, microsecond=0)
    add_scenario(session, campaign, name="Opening", date=at.date(), time=at.time())
    queue = app.extensions["jobqueue"]
    (emailer_id,) = planning.plan_campaign(session, now, queue, campaign.id)
    emailers.send(session, now, queue, emailer_id, timedelta(hours=2))
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    ann, bob = (due.id for due in slice_claims.load(session, now, claim))
    failed = deliveries.Outcome(bob, "failed", now, reason="the mailbox does not take mail")
    step = deliveries.Step(claim, starts=[ann], refusals=[failed])
    deliveries.advance(session, now, LEASE, [step])
    rescues.rescue(session, now + timedelta(minutes=1), "hold")
    emailers.finish(session, now, emailer_id)
    return emailer_id


@pytest.fixture
def held(session: Session) -> int:
    """The campaign of a sequence whose emails are held; Ann's is in doubt."""
    now = datetime.now(UTC)
    days = {
        "start_date": now.date() - timedelta(days=2),
        "end_date": now.date() + timedelta(days=9),
    }
    campaign = add_campaign(session, name="After purchase", timezone="UTC", **days)
    hello = add_scenario(session, campaign, name="Welcome", date=None, time=None, state="draft")
    step = Step("hello", SEND_EMAIL, "0days", config={"scenario": hello.id})
    sequences.define(session, now, campaign.id, [step])
    ann = add_contact(session, campaign, "Ann Adler")
    schedules.enrol(session, now, campaign.id, subject_of(ann.id))
    email_starts.start(session, now)
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    (due,) = slice_claims.load(session, now, claim)
    deliveries.advance(session, now, LEASE, [deliveries.Step(claim, starts=[due.id])])
    rescues.rescue(session, now + timedelta(minutes=1), "hold")
    email_actions.hold(session, now, campaign.id, "The mail server refuses this sender: 535 no")
    return campaign.id


@pytest.mark.browser
def test_pages_that_only_trouble_or_company_leads_to(
    chromium: Browser, app: Flask, base_url: str, doubtful: int, held: int
) -> None:
    now = datetime.now(UTC)
    with app.app_context():
        owner = users.create_user(db.session(), now, OWNER, PASSWORD, users.OWNER)
        marie = users.create_user(
            db.session(), now, "marie@shop.example", PASSWORD, users.MARKETER
        ).id
        assert owner.id != marie
        api_tokens.make(db.session(), now, "Web shop", "enrol", owner.id)
    folder = Path(__file__).parent / "shots" / "seldom"
    viewer = Viewer(chromium, base_url, folder)
    page = viewer.page
    page.goto("/login")
    page.get_by_label("Email").fill(OWNER)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("heading", name="Needs you").wait_for()
    for name, path in (
        ("home-doubt", "/"),
        ("emailer-doubt", f"/emailers/{doubtful}"),
        ("doubts", f"/emailers/{doubtful}/doubts"),
        ("retry", f"/emailers/{doubtful}/retry"),
        ("sequence-held", f"/campaigns/{held}/sequence"),
        ("sequence-doubts", f"/campaigns/{held}/sequence/doubts"),
        ("users", "/users/"),
        ("user-remove", f"/users/{marie}/remove"),
        ("token-revoke", "/api-tokens/1/revoke"),
        ("tokens", "/api-tokens/"),
        ("activity", "/activity/"),
    ):
        answer = page.goto(path)
        assert answer is not None
        assert answer.status == 200, path
        viewer.look(name)
    page.goto(f"/emailers/{doubtful}/doubts")
    page.get_by_role("button", name="It arrived (ann@people.example)").click()
    page.get_by_text("1 message settled as sent.").wait_for()
    assert viewer.complaints == []
    viewer.close()
