"""Unsubscribe links: Charlie wants no more mail (RFC 8058)."""

import re
from datetime import datetime

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from mcs.config import Settings
from mcs.core.tokens import RESUBSCRIBE, UNSUBSCRIBE, Recipient, Signer
from mcs.models import Campaign, Contact, Suppression
from tests.people import add_campaign, add_contact
from tests.web.visitor import Visitor, words

ONE_CLICK = {"List-Unsubscribe": "One-Click"}


@pytest.fixture
def charlie(session: Session) -> Contact:
    return add_contact(session, add_campaign(session, uid="autumn", name="Autumn sale"), "Charlie")


@pytest.fixture
def link(settings: Settings, charlie: Contact) -> str:
    return "/u/" + token(settings, charlie)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A mail program: it keeps no cookies and is nobody."""
    return app.test_client(use_cookies=False)


def token(settings: Settings, contact: Contact, purpose: str = UNSUBSCRIBE) -> str:
    return Signer(settings.unsubscribe_keys, purpose).sign(Recipient(contact.uid, "autumn"))


def suppressed(session: Session) -> list[tuple[str, int | None, str]]:
    session.rollback()
    rows = session.scalars(select(Suppression).order_by(Suppression.id))
    return [(row.email_key, row.campaign_id, row.reason) for row in rows]


EVERYWHERE = [("charlie@people.example", None, "unsubscribed")]


def plain(answer: TestResponse) -> None:
    """200, nothing kept in the browser, nowhere else to go."""
    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert "Location" not in answer.headers


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_at_the_link_changes_nothing(
    client: FlaskClient, session: Session, link: str, method: str, slash: str
) -> None:
    answer = client.open(link + slash, method=method)
    plain(answer)
    assert suppressed(session) == []
    if method == "GET":
        assert "Unsubscribe from Ada's Shop?" in words(answer)
        assert "Sign in" not in answer.text and "<nav" not in answer.text


@pytest.mark.parametrize(
    ("name", "ends"), [("Jo's Shop, Ltd.", "from Jo's Shop, Ltd."), ("Jo", "from Jo.")]
)
def test_a_sentence_ends_with_one_dot_whatever_the_senders_name(
    client: FlaskClient, session: Session, link: str, name: str, ends: str
) -> None:
    session.scalars(select(Campaign)).one().from_name = name
    session.commit()
    asked = words(client.get(link))
    assert f"no more marketing emails {ends} It takes effect at once." in asked
    done = words(client.post(link))
    assert f"no more marketing emails {ends} One that was already" in done
    again = words(client.get(link))
    assert f"no more marketing emails {ends} Pressed by mistake?" in again


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data"])
def test_one_click_unsubscribes_everywhere_and_may_be_said_twice(
    client: FlaskClient, session: Session, link: str, kind: str, slash: str
) -> None:
    for _ in range(2):
        plain(client.post(link + slash, data=ONE_CLICK, content_type=kind))
        assert suppressed(session) == EVERYWHERE


def test_the_button_offers_only_this_campaign(
    client: FlaskClient, session: Session, charlie: Contact, link: str
) -> None:
    assert "Only from “Autumn sale”" in words(client.get(link))
    answer = client.post(link, data={"from": "campaign"})
    plain(answer)
    assert [row[1] is not None for row in suppressed(session)] == [True]
    assert "Unsubscribe from everything" in words(answer)


def test_a_signed_press_takes_it_back(
    client: FlaskClient, session: Session, settings: Settings, charlie: Contact, link: str
) -> None:
    answer = client.post(link, data=ONE_CLICK)
    undo = f"/u/{token(settings, charlie, RESUBSCRIBE)}/undo"
    assert f'action="{undo}"' in answer.text
    assert client.get(undo).status_code in (404, 405)
    assert suppressed(session) == EVERYWHERE
    again = client.post(undo)
    plain(again)
    assert suppressed(session) == []
    assert "You are subscribed again" in words(again)


@pytest.mark.parametrize("scope", ["everywhere", "campaign"])
def test_charlie_opens_the_link_again_and_may_take_it_back(
    client: FlaskClient, session: Session, link: str, scope: str
) -> None:
    client.post(link, data={"from": scope})
    before = suppressed(session)
    for _ in range(2):
        answer = client.get(link)
        plain(answer)
        assert "You are unsubscribed already" in words(answer)
        assert ("Unsubscribe from everything" in words(answer)) is (scope == "campaign")
    assert suppressed(session) == before
    undo = re.search(r'action="(/u/[^"]+/undo)"', answer.text)
    assert undo is not None
    plain(client.post(undo[1]))
    assert suppressed(session) == []
    assert "Unsubscribe from Ada's Shop?" in words(client.get(link))


def test_who_was_held_back_by_others_is_asked_still(
    client: FlaskClient, session: Session, now: datetime, charlie: Contact, link: str
) -> None:
    session.add(Suppression(email_key=charlie.email_key, reason="bounced", created_at=now))
    session.commit()
    assert "Unsubscribe from Ada's Shop?" in words(client.get(link))


def test_a_token_is_good_for_its_purpose_only(
    client: FlaskClient, session: Session, settings: Settings, charlie: Contact, link: str
) -> None:
    client.post(link, data=ONE_CLICK)
    assert client.post(link + "/undo").status_code == 404
    other = client.post(f"/u/{token(settings, charlie, RESUBSCRIBE)}")
    assert other.status_code == 404
    assert suppressed(session) == EVERYWHERE


def test_a_wrong_token_gets_the_same_body_always(client: FlaskClient, link: str) -> None:
    answers = [
        client.open(path, method=method)
        for path in (
            "/u/nothing",
            "/u/a.b.c",
            link[:-4],
            "/u/" + "x" * 2000,
            "/u/%00",
            "/u/preview",
        )
        for method in ("GET", "POST")
    ]
    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.data for answer in answers}) == 1
    assert all("Set-Cookie" not in answer.headers for answer in answers)


def test_somebody_who_is_signed_in_gets_no_cookie_either(olga: Visitor, link: str) -> None:
    plain(olga.client.get(link))
    plain(olga.client.post(link, data=ONE_CLICK))


def test_a_contact_that_is_gone_gets_a_friendly_answer(
    client: FlaskClient, session: Session, settings: Settings, charlie: Contact
) -> None:
    stranger = Signer(settings.unsubscribe_keys, UNSUBSCRIBE).sign(Recipient("gone", "autumn"))
    plain(client.post(f"/u/{stranger}", data=ONE_CLICK))
    assert suppressed(session) == []
