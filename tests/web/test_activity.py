"""Olga reads who did what: every noun leaves its line, in one tense and in words."""

import io
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Campaign, Contact, Scenario
from mcs.services import api_tokens, emailers, planning
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.test_scenarios import HELLO
from tests.web.visitor import Visitor, words


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def autumn(session: Session) -> Campaign:
    return add_campaign(session, name="Autumn sale")


def noted(session: Session, noun: str) -> list[str]:
    session.rollback()
    entries = session.scalars(
        select(AuditEntry).where(AuditEntry.noun == noun).order_by(AuditEntry.id)
    )
    return [entry.verb for entry in entries]


def test_what_is_done_to_a_scenario_is_noted(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    olga.post(f"/campaigns/{autumn.id}/scenarios/new", HELLO | {"draft": "1"})
    session.rollback()
    path = f"/scenarios/{session.scalars(select(Scenario.id)).one()}"
    olga.post(f"{path}/edit", HELLO | {"name": "Opening day", "draft": "1"})
    for verb in ("schedule", "unschedule", "duplicate", "delete"):
        assert olga.post(f"{path}/{verb}").status_code == 303
    said = ["created", "edited", "scheduled", "unscheduled", "created", "deleted"]
    assert noted(session, "scenario") == said
    page = words(olga.get("/activity/"))
    assert "name: Opening day" in page and "olga@shop.example" in page


def test_what_is_done_to_contacts_is_noted_without_their_names(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    olga.post(f"/campaigns/{autumn.id}/contacts/new", {"email": "ann@people.example"})
    session.rollback()
    path = f"/contacts/{session.scalars(select(Contact.id)).one()}"
    for verb in ("suppress", "suppress", "allow", f"remove?campaign={autumn.id}", "delete"):
        assert olga.post(f"{path}/{verb}").status_code == 303
    assert noted(session, "contact") == ["added", "blocked", "allowed", "removed", "deleted"]
    olga.get("/")  # What was flashed is read here.
    assert "ann@people.example" not in words(olga.get("/activity/"))


def test_an_upload_is_noted_with_its_file_and_rows(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    file = (io.BytesIO(b"email\nann@people.example\nbob@people.example\n"), "people.csv")
    form = {"csrf_token": olga.token, "review": "1", "file": file}
    answer = olga.client.post(f"/campaigns/{autumn.id}/contacts/upload", data=form)
    olga.post(f"{answer.location}/confirm", {"use": "email"})
    assert noted(session, "import") == ["uploaded", "confirmed"]
    assert "file: people.csv, rows: 2" in words(olga.get("/activity/"))


def test_a_changed_field_is_named_as_its_form_names_it(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    form = {
        "name": "Autumn sale",
        "start_date": "2026-11-23",
        "end_date": "2026-11-30",
        "timezone": "Europe/Berlin",
        "from_name": "Ada's Shop",
        "from_email": "ada@shop.example",
        "postal_address": "Ada's Shop, 1 Main Street, 10115 Berlin",
        "send_rate": "5",
    }
    assert olga.post(f"/campaigns/{autumn.id}/edit", form).status_code == 303
    assert "edited campaign" in (page := words(olga.get("/activity/")))
    assert "changed messages a second" in page


def test_programs_and_the_command_line_have_names(
    app: Flask, olga: Visitor, session: Session, autumn: Campaign, now: datetime
) -> None:
    token = api_tokens.make(session, now, "Web shop", "manage", None)
    bearer = {"Authorization": f"Bearer {token}"}
    path = f"/api/v1/campaigns/{autumn.id}/deactivate"
    assert app.test_client().post(path, headers=bearer).status_code == 200
    made = app.test_cli_runner().invoke(args=["mcs", "create-token", "other"])
    assert made.exit_code == 0
    page = words(olga.get("/activity/"))
    assert f"Web shop deactivated campaign {autumn.id}" in page
    assert "command line made api token" in page
    assert "token: Web shop" not in page and "program:" not in page


def test_a_sending_is_started_paused_and_resumed(
    app: Flask, session: Session, autumn: Campaign, now: datetime, olga: Visitor
) -> None:
    add_contact(session, autumn, "Ann")
    add_scenario(session, autumn)
    queue: JobQueue = app.extensions["jobqueue"]
    (emailer_id,) = planning.plan_campaign(session, now, queue, autumn.id)
    emailers.send(session, now, queue, emailer_id, timedelta(hours=2))
    for verb in ("pause", "resume"):
        assert olga.post(f"/emailers/{emailer_id}/{verb}").status_code == 303
    assert noted(session, "emailer") == ["started", "paused", "resumed"]
