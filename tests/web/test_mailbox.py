"""The mailbox: what the catcher holds, and the test that Olga sends herself."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.app import create_app
from mcs.config import Settings
from mcs.gateways import clock
from mcs.gateways.catcher import Box
from mcs.models import Campaign, Contact, Delivery, Emailer, Scenario
from tests.mail import Mailbox, MailServer
from tests.people import MADE_AT, add_campaign, add_contact, add_scenario
from tests.web.visitor import OWNER_EMAIL, Visitor, make_owner, words

LETTER = (
    b"From: Ada <ada@shop.example>\r\nTo: ann@people.example\r\n"
    b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello Ann\r\n"
    b"--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    b'<p>Hello <b>Ann</b></p><script>alert(1)</script><a href="https://shop.example/">Shop</a>\r\n'
    b"--b--\r\n"
)


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def box(settings: Settings, now: datetime) -> Path:
    Box(settings.instance).add(now, "ada@shop.example", ["ann@people.example"], LETTER)
    return settings.instance


def test_an_empty_mailbox_says_what_to_do(olga: Visitor) -> None:
    assert "Nothing has been caught yet." in words(olga.get("/mailbox/"))


def test_a_message_is_seen_as_a_person_sees_it(olga: Visitor, box: Path) -> None:
    assert "Grüße" in words(olga.get("/mailbox/"))
    page = olga.get("/mailbox/1")
    assert 'sandbox="allow-popups' in page.text and "alert(1)" not in page.text
    frame = olga.get("/mailbox/1/html")
    policy = frame.headers["Content-Security-Policy"]
    assert "sandbox allow-popups" in policy and "default-src 'none'" in policy
    assert "script-src" not in policy and "allow-scripts" not in policy
    assert '<base target="_blank">' in frame.text
    assert "Hello Ann" in words(olga.get("/mailbox/1?view=text"))
    headers = words(olga.get("/mailbox/1?view=headers"))
    assert "Subject Grüße" in headers
    source = olga.get("/mailbox/1?view=source").text
    assert "=?utf-8?q?" in source and "<script>alert" not in source


@pytest.mark.parametrize("path", ["/mailbox/2", "/mailbox/2/html", "/mailbox/..%2f1", "/mailbox/x"])
def test_what_is_not_there_is_not_found(olga: Visitor, box: Path, path: str) -> None:
    assert olga.get(path).status_code == 404


def test_without_the_catcher_there_is_no_mailbox(olga: Visitor, app: Flask) -> None:
    app.config["SETTINGS"] = replace(app.config["SETTINGS"], embedded_mail=False)
    assert olga.get("/mailbox/").status_code == 404
    assert 'href="/mailbox/"' not in olga.get("/scenarios/").text


def follow_up(session: Session, campaign: Campaign) -> Scenario:
    """What goes to those added since Ann was written to: to Bob."""
    session.rollback()  # Olga's requests have written since this session's look.
    first = add_scenario(session, campaign)
    emailer = Emailer(
        scenario_id=first.id, state="sending", scheduled_at=MADE_AT, created_at=MADE_AT
    )
    session.add(emailer)
    session.flush()
    ann = session.scalars(select(Contact)).one()
    session.add(Delivery(emailer_id=emailer.id, contact_id=ann.id, due_at=MADE_AT))
    add_contact(session, campaign, "Bob")
    return add_scenario(session, campaign, excludes_id=first.id, date=None, state="draft")


def test_olga_sends_herself_a_test(settings: Settings, session: Session) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    mailbox = Mailbox()
    with MailServer(mailbox) as server:
        app = create_app(replace(settings, embedded_mail=False, mail_port=server.port))
        make_owner(app)
        olga = Visitor(app)
        olga.sign_in()
        fields = {"name": "Hi", "subject": "Hello {{ name }}", "content": "Dear {{ name }}"}
        path = f"/campaigns/{campaign.id}/scenarios/test"
        answer = olga.post(path, fields)
        assert f"A test is on its way to {OWNER_EMAIL}." in words(answer)
        assert "Dear {{ name }}" in answer.text
        (caught,) = mailbox.caught
        assert caught.recipient == OWNER_EMAIL
        assert caught.message["Subject"] == "[Test] Hello Ann"
        assert "/u/preview" in caught.message["List-Unsubscribe"]
        bob_only = follow_up(session, campaign)
        assert "is on its way" in words(olga.post(f"{path}?scenario={bob_only.id}", fields))
        assert mailbox.caught[-1].message["Subject"] == "[Test] Hello Bob"
        mailbox.at_rcpt = lambda recipient: "451 4.7.1 come back later"
        refused = words(olga.post(path, fields))
        assert "The test was not sent. The mail server refused it: 451 4.7.1" in refused
    gone = words(olga.post(path, fields))
    assert "The test was not sent." in gone and "cannot be reached" in gone
    session.rollback()  # Olga's requests have written since this session's look.
    campaign.postal_address = ""
    session.commit()
    assert "no postal address" in words(olga.post(path, fields))
