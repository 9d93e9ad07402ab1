"""What Olga sees of a sending, and what she can do to it: Ann, Bob, and Charlie who left."""

import csv
import io
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from html import unescape

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from werkzeug.http import parse_options_header
from werkzeug.test import TestResponse

from mcs.gateways import clock
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Delivery, Emailer, Slice, Suppression
from mcs.services import emailers, ledger, planning
from mcs.web.downloads import in_a_filename
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.visitor import Visitor, words

LIMIT = timedelta(hours=2)


@pytest.fixture(autouse=True)
def at_monday(monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    monkeypatch.setattr(clock, "now", lambda: now)


@pytest.fixture
def queue(app: Flask) -> JobQueue:
    queue: JobQueue = app.extensions["jobqueue"]
    return queue


@pytest.fixture
def planned(session: Session, queue: JobQueue, now: datetime) -> int:
    """An emailer for 10:00 Berlin, which is now; Charlie unsubscribed before."""
    campaign = add_campaign(session, name="Autumn sale")
    for name in ("Ann", "Bob", "Charlie"):
        add_contact(session, campaign, name)
    session.add(
        Suppression(email_key="charlie@people.example", reason="unsubscribed", created_at=now)
    )
    session.commit()
    add_scenario(session, campaign, name="Opening")
    (emailer_id,) = planning.plan_campaign(session, now, queue, campaign.id)
    return emailer_id


@pytest.fixture
def sending(session: Session, queue: JobQueue, now: datetime, planned: int) -> int:
    """Sending, and Ann has got hers."""
    emailers.send(session, now, queue, planned, LIMIT)
    part = session.scalars(select(Slice)).one()
    ann = session.scalars(select(Delivery).order_by(Delivery.id).limit(1)).one()
    ann.state, ann.sent_at, ann.attempts = "sent", now, 1
    ann.reply_code, ann.reply_text = 250, "2.0.0 Ok: queued as 4F1A"
    part.pending, part.sent = part.pending - 1, 1
    session.commit()
    return planned


def state(session: Session, emailer_id: int) -> str:
    session.rollback()
    return session.get_one(Emailer, emailer_id, populate_existing=True).state


def test_the_numbers_are_shown_as_a_sum(olga: Visitor, sending: int) -> None:
    page = words(olga.get(f"/emailers/{sending}"))
    assert "3 recipients = 1 sent + 0 failed + 1 skipped + 0 in doubt + 1 still to go" in page
    assert "Skipped: 1 unsubscribed." in page
    assert "Began Mon 23 Nov 2026, 10:00 Berlin , on time." in page


def test_the_ledger_says_what_became_of_each(olga: Visitor, sending: int) -> None:
    path = f"/emailers/{sending}"
    page = words(olga.get(path))
    assert "250 2.0.0 Ok: queued as 4F1A" in page
    for query, seen in (
        ("outcome=sent", {"Ann"}),
        ("outcome=skipped", {"Charlie"}),
        ("outcome=pending", {"Bob"}),
        ("outcome=failed", set()),
        ("q=BOB@people", {"Bob"}),
        ("q=charl", {"Charlie"}),
        ("q=%25", set()),
        ("outcome=nonsense", {"Ann", "Bob", "Charlie"}),
    ):
        text = olga.get(f"{path}?{query}").text
        found = {name for name in ("Ann", "Bob", "Charlie") if f">{name}</a>" in text}
        assert found == seen, query


def test_the_ledger_is_downloaded_as_a_csv(olga: Visitor, sending: int) -> None:
    answer = olga.get(f"/emailers/{sending}/ledger.csv")
    assert (answer.status_code, answer.content_type) == (200, "text/csv; charset=utf-8")
    assert answer.is_streamed
    assert filename(answer) == "autumn-sale-opening-2026-11-23.csv"
    head, ann, bob, charlie = csv.reader(io.StringIO(answer.data.decode("utf-8-sig")))
    assert tuple(head) == ledger.COLUMNS
    assert ann[:3] == ["ann@people.example", "Ann", "Sent"]
    assert ann[7:10] == ["2026-11-23T09:00:00Z", "250", "2.0.0 Ok: queued as 4F1A"]
    assert bob[2:6] == ["Pending", "", "0", "2026-11-23T09:00:00Z"]
    assert charlie[2:4] == ["Skipped", "unsubscribed"]


@pytest.mark.parametrize(
    ("query", "found", "name"),
    [
        ("?outcome=skipped", {"Charlie"}, "autumn-sale-opening-2026-11-23-skipped.csv"),
        ("?outcome=pending&q=bob", {"Bob"}, "autumn-sale-opening-2026-11-23-pending.csv"),
        ("?q=ann", {"Ann"}, "autumn-sale-opening-2026-11-23.csv"),
    ],
)
def test_the_download_is_of_what_the_page_lists(
    olga: Visitor, sending: int, query: str, found: set[str], name: str
) -> None:
    page = olga.get(f"/emailers/{sending}{query}").text
    link = re.search(r'href="([^"]+/ledger\.csv[^"]*)"', page)
    assert link
    answer = olga.get(unescape(link[1]))
    _head, *rows = csv.reader(io.StringIO(answer.data.decode("utf-8-sig")))
    assert {row[1] for row in rows} == found
    assert filename(answer) == name


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("Łódź 50 %", "d-50"),
        ('"; x="\r\nSet-Cookie: a', "x-set-cookie-a"),
        ("Ваза", "campaign"),
        ("very " * 30, ("very-" * 12).rstrip("-")),
    ],
)
def test_a_files_name_is_plain(given: str, name: str) -> None:
    assert in_a_filename(given, "campaign") == name


def test_a_download_is_named_after_the_campaigns_date(
    olga: Visitor, session: Session, sending: int
) -> None:
    emailer = session.get_one(Emailer, sending)
    emailer.scenario.campaign.timezone = "Pacific/Auckland"
    emailer.scheduled_at = datetime(2026, 11, 23, 20, tzinfo=UTC)
    session.commit()
    answer = olga.get(f"/emailers/{sending}/ledger.csv")
    assert filename(answer) == "autumn-sale-opening-2026-11-24.csv"


def test_a_stranger_gets_no_ledger(stranger: Visitor, sending: int) -> None:
    answer = stranger.get(f"/emailers/{sending}/ledger.csv")
    assert answer.status_code == stranger.get(f"/emailers/{sending}").status_code == 303
    assert b"people.example" not in answer.data


def filename(answer: TestResponse) -> str:
    return parse_options_header(answer.headers["Content-Disposition"])[1]["filename"]


def test_the_part_that_is_polled_stops_when_it_is_over(
    olga: Visitor, session: Session, queue: JobQueue, now: datetime, sending: int
) -> None:
    at = round(now.timestamp() * 1000)
    part = olga.get(f"/emailers/{sending}/progress")
    assert f'data-poll="/emailers/{sending}/progress?seen={at}-1"' in part.text
    emailers.cancel(session, now, sending)
    part = olga.get(f"/emailers/{sending}/progress")
    assert "data-poll" not in part.text and "<html" not in part.text


@pytest.fixture
def brisk(
    session: Session, now: datetime, sending: int, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """10,000 sent in the first thousand seconds, and 3,000 to go; what the page says then."""
    part = session.scalars(select(Slice)).one()
    part.pending, part.sent = 3_000, 10_000
    session.commit()
    later = now + timedelta(seconds=1000)
    monkeypatch.setattr(clock, "now", lambda: later)

    def page(olga: Visitor, seen: str = "") -> str:
        return words(olga.get(f"/emailers/{sending}/progress{seen}"))

    return page


def test_the_pace_is_what_the_page_saw_last(
    olga: Visitor, now: datetime, brisk: Callable[..., str]
) -> None:
    def seen(ago: int, sent: int) -> str:
        at = now + timedelta(seconds=1000 - ago)
        return f"?seen={round(at.timestamp() * 1000)}-{sent}"

    assert "600 a minute; at this pace done in 5 minutes 1 second." in brisk(olga)
    assert "300 a minute; at this pace done in 10 minutes" in brisk(olga, seen(40, 9_800))
    assert "a minute" not in brisk(olga, seen(40, 10_000))
    for nonsense in (
        "?seen=",
        "?seen=-",
        "?seen=1-",
        "?seen=9999999999999-9999999999",
        "?seen=٣-٣",
    ):
        assert "600 a minute" in brisk(olga, nonsense)


def test_the_pace_is_never_more_than_a_limit_allows(
    olga: Visitor, session: Session, brisk: Callable[..., str]
) -> None:
    """As after the campaign's rate was lowered."""
    session.scalars(select(Campaign)).one().send_rate = 2
    session.commit()
    assert "120 a minute; at this pace done in 25 minutes" in brisk(olga)


def test_what_waits_for_another_try_has_no_pace(
    olga: Visitor, session: Session, now: datetime, brisk: Callable[..., str]
) -> None:
    part = session.scalars(select(Slice)).one()
    part.due_at = now + timedelta(hours=1)
    session.commit()
    page = brisk(olga)
    assert "3,000 waiting to be tried again" in page
    assert "at this pace" not in page

    values = {"low_id": 1, "high_id": 1, "due_at": now, "pending": 600, "sent": 0}
    session.add(Slice(emailer_id=part.emailer_id, **values))
    session.commit()
    assert "at this pace done in 1 minute 1 second, but for those that wait." in brisk(olga)


def test_pause_and_resume(olga: Visitor, session: Session, sending: int) -> None:
    path = f"/emailers/{sending}"
    olga.get(path)
    answer = olga.post(f"{path}/pause")
    assert (answer.status_code, answer.location) == (303, path)
    assert state(session, sending) == "paused"
    assert olga.post(f"{path}/pause").status_code == 409
    assert olga.post(f"{path}/resume").status_code == 303
    assert state(session, sending) == "sending"


def test_cancel_says_the_consequence_in_numbers_first(
    olga: Visitor, session: Session, sending: int
) -> None:
    path = f"/emailers/{sending}"
    asked = words(olga.get(f"{path}/cancel"))
    assert "1 contact already got it; that cannot be taken back." in asked
    assert "1 contact still to go will not get it." in asked
    assert "on the way" not in asked
    assert state(session, sending) == "sending"
    assert olga.post(f"{path}/cancel").status_code == 303
    assert state(session, sending) == "cancelled"
    page = words(olga.get(path))
    assert "3 recipients = 1 sent + 0 failed + 2 skipped + 0 in doubt + 0 still to go" in page


def test_cancel_says_what_is_on_the_way(olga: Visitor, session: Session, sending: int) -> None:
    session.execute(update(Slice).values(pending=0, sending=1))
    session.commit()
    asked = words(olga.get(f"/emailers/{sending}/cancel"))
    assert "1 message on the way right now may still arrive." in asked


@pytest.fixture
def missed(session: Session, queue: JobQueue, now: datetime, planned: int) -> int:
    emailers.send(session, now + timedelta(hours=3), queue, planned, LIMIT)
    assert state(session, planned) == "missed"
    return planned


def test_a_missed_one_can_be_sent_now(olga: Visitor, session: Session, missed: int) -> None:
    page = words(olga.get(f"/emailers/{missed}"))
    assert "It was missed. What now?" in page
    assert olga.post(f"/emailers/{missed}/send-now").status_code == 303
    assert state(session, missed) == "sending"


def test_a_missed_one_can_have_a_new_time(olga: Visitor, session: Session, missed: int) -> None:
    path = f"/emailers/{missed}/new-time"
    olga.get(f"/emailers/{missed}")
    for fields in (
        {},
        {"date": "2026-11-24", "time": "x"},
        {"date": "2026-12-24", "time": "10:00"},
    ):
        assert olga.post(path, fields).status_code == 422
    assert olga.post(path, {"date": "2026-11-24", "time": "11:30"}).status_code == 303
    assert state(session, missed) == "planned"
    scenario = session.get_one(Emailer, missed).scenario
    assert (scenario.date, scenario.time) == (date(2026, 11, 24), time(11, 30))


def test_a_missed_one_can_be_skipped(olga: Visitor, session: Session, missed: int) -> None:
    olga.get(f"/emailers/{missed}")
    assert olga.post(f"/emailers/{missed}/skip").status_code == 303
    assert state(session, missed) == "cancelled"


def test_the_list_is_filtered(olga: Visitor, sending: int) -> None:
    assert "Opening" in words(olga.get("/emailers/"))
    assert "Opening" in words(olga.get("/emailers/?state=sending&q=autumn"))
    assert "No emailer matches" in words(olga.get("/emailers/?state=missed"))


@pytest.mark.parametrize("verb", ["", "/ledger.csv", "/progress", "/cancel"])
def test_what_is_not_there_is_not_found(olga: Visitor, verb: str) -> None:
    assert olga.get(f"/emailers/77{verb}").status_code == 404
    assert olga.get(f"/emailers/99999999999999999999{verb}").status_code == 404


@pytest.mark.parametrize("verb", ["pause", "resume", "cancel", "send-now", "skip", "new-time"])
def test_nothing_is_done_to_what_is_not_there(olga: Visitor, verb: str) -> None:
    olga.get("/emailers/")
    assert olga.post(f"/emailers/77/{verb}").status_code == 404


def test_a_second_press_of_pause_says_that_it_is_paused_already(
    olga: Visitor, sending: int
) -> None:
    olga.get("/")
    assert olga.post(f"/emailers/{sending}/pause").status_code == 303
    again = olga.post(f"/emailers/{sending}/pause")
    assert again.status_code == 409
    assert "cannot be paused: it is paused already." in words(again)
