"""The home page, the health line, and the sample campaign."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from mcs import config
from mcs.app import create_app
from mcs.extensions import db
from mcs.models import Delivery, Emailer, Import, Scenario, Slice
from mcs.services import schedules, sequences
from mcs.services.definitions import SEND_EMAIL, Step
from mcs.services.schedules import subject_of
from tests.people import add_contact, add_scenario
from tests.web.test_campaigns import running
from tests.web.visitor import Visitor, words


def test_an_empty_home_offers_the_first_campaign_and_a_sample(olga: Visitor) -> None:
    page = words(olga.get("/"))
    assert "Create your first campaign" in page
    assert "Make a sample campaign" in page


def test_the_sample_goes_out_in_two_minutes(app: Flask, olga: Visitor) -> None:
    olga.get("/")
    before = datetime.now(UTC)
    answer = olga.post("/sample")
    assert answer.status_code == 303
    with app.app_context():
        scenario = db.session.query(Scenario).one()
        assert answer.location == f"/scenarios/{scenario.id}"
        emailer = db.session.query(Emailer).one()
        assert emailer.scenario_id == scenario.id
        assert timedelta(seconds=85) < emailer.scheduled_at - before < timedelta(seconds=155)
    home = words(olga.get("/"))
    assert "A first hello Sample campaign 12 recipients" in home
    olga.get("/campaigns/")
    assert olga.post("/sample").status_code == 303


def test_home_lists_the_next_seven_days_by_the_campaigns_own_calendar(
    app: Flask, olga: Visitor
) -> None:
    with app.app_context():
        campaign = running(timezone="Asia/Tokyo", end_date=datetime.now(UTC).date() + timedelta(30))
        today = datetime.now(ZoneInfo("Asia/Tokyo")).date()
        for name in ("Ann", "Bob"):
            add_contact(db.session(), campaign, name)
        for name, days in (("Tomorrow", 1), ("In a month", 29)):
            on = today + timedelta(days=days)
            add_scenario(db.session(), campaign, name=name, date=on, time=time(8, 0))
    page = words(olga.get("/"))
    assert "08:00 Tokyo Tomorrow" in page
    assert "2 recipients" in page
    assert "In a month" not in page


def test_home_names_what_needs_a_person(app: Flask, olga: Visitor) -> None:
    now = datetime.now(UTC)
    with app.app_context():
        campaign = running(name="Boxes", from_email="")
        ann = add_contact(db.session(), campaign, "Ann")
        on = now.date() + timedelta(days=2)
        add_scenario(db.session(), campaign, name="Soon", date=on, time=time(8, 0))
        states = {"Late": "missed", "Held": "paused", "Unsure": "sent"}
        for name, state in states.items():
            scenario = add_scenario(db.session(), campaign, name=name, date=now.date())
            emailer = Emailer(
                scenario_id=scenario.id,
                state=state,
                scheduled_at=now,
                recipients=1,
                notice="Too many bounces." if state == "paused" else "",
                created_at=now,
            )
            db.session.add(emailer)
        db.session.flush()
        db.session.add(
            Delivery(emailer_id=emailer.id, contact_id=ann.id, state="in_doubt", due_at=now)
        )
        db.session.add(
            Import(
                campaign_id=campaign.id,
                filename="visitors.csv",
                size=1,
                state="failed",
                error="There is no column with email addresses.",
                created_at=now,
            )
        )
        db.session.commit()
    page = words(olga.get("/"))
    for sentence in (
        "Late It did not go out at its time",
        "Held Too many bounces.",
        "Unsure For 1 message nobody knows",
        "Boxes It sends within a week, but the sender is not complete.",
        "visitors.csv for Boxes There is no column with email addresses.",
    ):
        assert sentence in page


def test_home_asks_once_for_what_all_steps_are_called(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        write_in_sequence(db.session(), "Ann", steps=1)
    few, page = statements(app, olga)
    assert "Email: For Ann 0" in page
    with app.app_context():
        for name in ("Bob", "Carol"):
            write_in_sequence(db.session(), name, steps=4)
    many, page = statements(app, olga)
    assert all(f"Email: For {name} 3" in page for name in ("Bob", "Carol"))
    # A campaign's actions are counted by its own calendar: one statement for each of the two.
    assert many == few + 2


def write_in_sequence(session: Session, name: str, steps: int) -> None:
    """A running campaign whose steps write to somebody, one an hour."""
    now = datetime.now(UTC)
    campaign = running(end_date=now.date() + timedelta(days=30))
    contact = add_contact(session, campaign, name)
    written = []
    for number in range(steps):
        message = add_scenario(
            session, campaign, name=f"For {name} {number}", date=None, time=None, state="draft"
        )
        config = {"scenario": message.id}
        written.append(Step(f"step{number}", SEND_EMAIL, f"{number + 1}hours", config=config))
    sequences.define(session, now, campaign.id, written)
    schedules.enrol(session, now, campaign.id, subject_of(contact.id))


def statements(app: Flask, visitor: Visitor) -> tuple[int, str]:
    """How many statements the home page sends to the database, and what it says."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_given: object) -> None:
        sent.append(statement)

    with app.app_context():
        engine = db.engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        page = words(visitor.get("/"))
    finally:
        event.remove(engine, "before_cursor_execute", note)
    return len(sent), page


@pytest.mark.parametrize(
    ("counts", "said", "bar"),
    [
        (
            {"pending": 1200, "sending": 8, "sent": 1049, "skipped": 53},
            "1,049 of 2,310 sent, 53 skipped",
            'value="1049" max="2257"',
        ),
        (
            {"pending": 2277, "skipped": 33},
            "0 of 2,310 sent, 33 skipped",
            'value="0" max="2277"',
        ),
        (
            {"pending": 7, "sent": 2300, "failed": 2, "in_doubt": 1},
            "2,300 of 2,310 sent, 2 failed, 1 in doubt",
            'value="2300" max="2310"',
        ),
    ],
)
def test_what_is_being_sent_shows_its_progress_until_it_is_done(
    app: Flask, olga: Visitor, counts: dict[str, int], said: str, bar: str
) -> None:
    now = datetime.now(UTC)
    with app.app_context():
        scenario = add_scenario(db.session(), running(), name="Door 1")
        campaign_id = scenario.campaign_id
        emailer = Emailer(
            scenario_id=scenario.id,
            state="sending",
            scheduled_at=now,
            recipients=2310,
            created_at=now,
        )
        db.session.add(emailer)
        db.session.flush()
        db.session.add(Slice(emailer_id=emailer.id, low_id=1, high_id=9, due_at=now, **counts))
        db.session.commit()
    part = olga.get("/sending")
    assert said in words(part) and bar in part.text
    assert "every 2s" in part.text
    with app.app_context():
        db.session.query(Emailer).update({"state": "sent"})
        db.session.commit()
    assert "every 2s" not in olga.get("/sending").text
    for state in ("sending", "paused", "sent"):
        with app.app_context():
            db.session.query(Emailer).update({"state": state})
            db.session.commit()
        assert said in words(olga.get(f"/campaigns/{campaign_id}")), state


def test_a_home_page_that_was_opened_before_notices_that_a_sending_begins(
    app: Flask, olga: Visitor
) -> None:
    """Olga opens the page over breakfast; the doors open at ten."""
    with app.app_context():
        scenario = add_scenario(db.session(), running(), name="Door 1")
        now = datetime.now(UTC)
        emailer = Emailer(scenario_id=scenario.id, scheduled_at=now, created_at=now)
        db.session.add(emailer)
        db.session.commit()
    looks = {"seldom": 'hx-trigger="every 15s"', "often": 'hx-trigger="every 2s"'}
    assert looks["seldom"] in olga.get("/").text
    for state, look in (
        ("planned", "seldom"),
        ("sending", "often"),
        ("paused", "seldom"),
        ("sending", "often"),
        ("sent", "seldom"),
    ):
        with app.app_context():
            db.session.query(Emailer).update({"state": state})
            db.session.commit()
        part = olga.get("/sending").text
        assert looks[look] in part, state
        assert ("Under way" in part) == (state in ("sending", "paused"))


def test_the_health_line_says_in_words_what_is_away(olga: Visitor) -> None:
    page = words(olga.get("/"))
    assert "Database Alive" in page
    assert "Redis Alive" in page
    assert "Worker Emails wait until one runs" in page


def test_healthz_is_for_everybody_and_says_ok(stranger: Visitor) -> None:
    answer = stranger.get("/healthz")
    assert answer.status_code == 200
    assert answer.json == {"ok": True, "web": True, "database": True, "redis": True}
    assert "Set-Cookie" not in answer.headers


def test_healthz_answers_503_when_redis_is_away(settings: config.Settings) -> None:
    lost = config.load(
        {
            "DATABASE_URL": settings.database_url,
            "REDIS_URL": "unix:///nowhere/redis.sock",
            "MCS_INSTANCE": str(settings.instance),
        }
    )
    answer = create_app(lost).test_client().get("/healthz")
    assert answer.status_code == 503
    assert answer.json is not None
    assert (answer.json["ok"], answer.json["redis"]) == (False, False)
