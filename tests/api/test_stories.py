"""What a shop does over HTTP, from its campaign to what became of each customer."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.calls import Call
from mcs.models import Action, ActionDefinition, AuditEntry, Contact, Schedule
from mcs.services import contacts, definitions, runners
from mcs.services.definitions import Step
from mcs.services.runners import Surroundings
from mcs.services.transactions import writing
from tests.api.conftest import AUTUMN, CONFIG, Clock, Shop
from tests.conftest import MONDAY

DAY = timedelta(days=1)


@pytest.fixture
def run(sessions: sessionmaker[Session], at: Clock) -> Callable[[], list[Call]]:
    """Runs what is due, as a worker does; which calls it made."""

    def run_due() -> list[Call]:
        calls: list[Call] = []
        runners.run_due(Surroundings(sessions, {"webhook": calls.append}, at, 60))
        return calls

    return run_due


def enrol(shop: Shop, name: str, status: int = 201, **more: Any) -> Any:
    email = f"{name.lower()}@people.example"
    body = {"contact": {"email": email, "name": name}, **more}
    return shop.post("/campaigns/after-purchase/schedules", body, status)


def states(shop: Shop, query: str) -> list[tuple[str, str]]:
    found = shop.get(f"/actions?{query}")["items"]
    return [(one["action_id"], one["state"]) for one in found]


def test_the_seeds_story(shop: Shop, autumn: str, at: Clock, run: Callable[[], list[Call]]) -> None:
    bought = {1: "Jane", 2: "Julie", 5: "Jenny"}
    happened: dict[int, list[str]] = {}
    for day in range(1, 11):
        if day in bought:
            enrol(shop, bought[day])
        for _ in range(24):
            for call in run():
                assert call.contact is not None
                happened.setdefault(day, []).append(f"{call.contact['name']} {call.action_id}")
            at.at += timedelta(hours=1)
    assert {day: sorted(lines) for day, lines in happened.items()} == {
        1: ["Jane action1"],
        2: ["Julie action1"],
        3: ["Jane action2"],
        4: ["Julie action2"],
        5: ["Jane action3", "Jenny action1"],
        6: ["Julie action3"],
        7: ["Jenny action2"],
        9: ["Jenny action3"],
    }
    status = shop.get("/campaigns/after-purchase/status")
    assert status["counts"]["completed"] == 9
    assert status["drift"] == {"p50": 0, "p95": 0, "max": 0}
    assert status["next_due"] is None
    jane = shop.get("/contacts?email=JANE@people.example")["items"][0]
    (hers,) = shop.get(f"/schedules?contact_id={jane['id']}")["items"]
    timeline = shop.get(f"/schedules/{hers['id']}")["actions"]
    assert [one["completed_at"] for one in timeline] == [
        "2026-11-23T09:00:00Z",
        "2026-11-25T10:00:00Z",
        "2026-11-27T10:00:00Z",
    ]


def test_one_call_takes_a_customer_in_and_enrols_them(
    shop: Shop, autumn: str, session: Session
) -> None:
    jane = enrol(shop, "Jane", subject="order", subject_id=17)
    assert jane["did"] == "began" and jane["started_at"] == "2026-11-23T09:00:00Z"
    assert (jane["subject"], jane["subject_id"]) == ("order", "17")
    # The same order again, now with what else is known of her.
    told = {"email": "Jane@People.example", "attributes": {"company": "Kettles"}}
    again = shop.post(
        f"/campaigns/{autumn}/schedules",
        {"subject": "order", "subject_id": "17", "contact": told},
    )
    assert again == {**jane, "did": "nothing"}
    contact = session.scalars(select(Contact)).one()
    assert (contact.name, contact.attributes) == ("Jane", {"company": "Kettles"})


def test_nobody_is_taken_in_who_cannot_be_enrolled(
    shop: Shop, autumn: str, session: Session
) -> None:
    for path, status in (("nowhere", 404), (autumn, 422)):
        body = {"subject": "order", "subject_id": "x" * 255, "contact": {"email": "a@b.example"}}
        if status == 422:
            body["contact"]["email"] = "nobody"
        assert shop.ask("POST", f"/campaigns/{path}/schedules", body).status_code == status
    assert session.scalar(select(func.count()).select_from(Contact)) == 0
    assert session.scalar(select(func.count()).select_from(Schedule)) == 0


def test_a_step_that_sends_email_needs_somebody_to_write_to(
    shop: Shop, session: Session, autumn: str
) -> None:
    with writing(session):
        definitions.write(session, MONDAY, 1, [Step("hello", "send_email", "0days")])
    one = {"subject": "order", "subject_id": "1"}
    refused = shop.post(f"/campaigns/{autumn}/schedules", one, 422)
    assert refused["errors"][0]["pointer"] == "#/contact"
    many = {"subjects": [{**one, "contact": {"email": "ann@people.example"}}, one]}
    refused = shop.post(f"/campaigns/{autumn}/schedules/bulk", many, 422)
    assert [error["pointer"] for error in refused["errors"]] == ["#/subjects/1"]
    assert shop.get("/contacts")["items"] == [], "both or neither"


def test_the_life_of_a_schedule(
    shop: Shop, autumn: str, at: Clock, run: Callable[[], list[Call]]
) -> None:
    first = enrol(shop, "Ann")
    run()
    at.at += DAY
    whom = {"contact": {"email": "ann@people.example"}}
    assert shop.post(f"/campaigns/{autumn}/unschedule", whom) == {"unscheduled": True}
    assert shop.post(f"/campaigns/{autumn}/unschedule", whom) == {"unscheduled": False}
    nobody = {"contact": {"email": "nobody@people.example"}}
    assert shop.post(f"/campaigns/{autumn}/unschedule", nobody) == {"unscheduled": False}
    assert shop.get("/contacts?email=nobody@people.example")["items"] == []
    ended = [("action1", "completed"), ("action2", "cancelled"), ("action3", "cancelled")]
    assert states(shop, f"campaign={autumn}") == ended
    assert shop.get("/schedules?active=true")["items"] == []
    back = enrol(shop, "Ann", 200)
    assert (back["did"], back["id"], back["started_at"]) == (
        "resumed",
        first["id"],
        first["started_at"],
    )
    assert states(shop, "state=pending") == [("action2", "pending"), ("action3", "pending")]
    again = enrol(shop, "Ann", restart=True)
    assert (again["did"], again["run"]) == ("began", 2)
    assert again["started_at"] == "2026-11-24T09:00:00Z"
    assert states(shop, "state=pending&active=true") == [
        (f"action{number}", "pending") for number in (1, 2, 3)
    ]


def test_a_campaign_is_switched_off_and_on(shop: Shop, autumn: str, session: Session) -> None:
    enrol(shop, "Ann")
    off = shop.post(f"/campaigns/{autumn}/deactivate")
    assert (off["active"], off["state"]) == (False, "inactive")
    assert shop.get(f"/campaigns/{autumn}/status")["counts"]["cancelled"] == 3
    # What is left out of an upsert stays.
    named = shop.put(f"/campaigns/{autumn}", {"name": "After any purchase"})
    assert (named["active"], named["name"]) == (False, "After any purchase")
    assert shop.put(f"/campaigns/{autumn}", {"active": True})["active"]
    assert shop.get(f"/campaigns/{autumn}/status")["counts"]["pending"] == 3
    assert shop.post(f"/campaigns/{autumn}/archive")["archived"]
    assert not shop.post(f"/campaigns/{autumn}/unarchive")["active"]
    of_campaigns = select(AuditEntry).where(AuditEntry.noun == "campaign")
    entries = session.scalars(of_campaigns.order_by(AuditEntry.id))
    said = [(entry.verb, entry.detail.get("token")) for entry in entries]
    verbs = ["created", "edited the steps of", "enrolled a subject of", "deactivated", "edited"]
    verbs += ["activated", "archived", "unarchived"]
    assert said == [(verb, "manage shop") for verb in verbs]


@pytest.mark.parametrize("verb", ["deactivate", "archive"])
def test_who_is_enrolled_while_nothing_runs_is_told_so(shop: Shop, autumn: str, verb: str) -> None:
    off = "the campaign was switched off"
    assert enrol(shop, "Ann")["reason"] == ""
    shop.post(f"/campaigns/{autumn}/{verb}")
    told = shop.get(f"/campaigns/{autumn}/outlook?subject=order&subject_id=A-17")
    assert [one["reason"] for one in told["actions"]] == [off, off, off]
    bob = enrol(shop, "Bob")
    assert (bob["did"], bob["reason"]) == ("began", off)
    assert enrol(shop, "Ann", 200)["reason"] == off
    many = {"subjects": [{"contact": {"email": "charlie@people.example"}}]}
    told = shop.post(f"/campaigns/{autumn}/schedules/bulk", many)
    assert told == {"began": 1, "resumed": 0, "nothing": 0, "reason": off}
    assert states(shop, "state=pending") == []
    if verb == "archive":
        assert shop.post(f"/campaigns/{autumn}/unarchive")["state"] == "inactive"
    shop.post(f"/campaigns/{autumn}/activate")
    assert len(states(shop, "state=pending")) == 9


def test_who_is_enrolled_when_all_is_over_is_told_so(shop: Shop, autumn: str, at: Clock) -> None:
    at.at += 60 * DAY
    told = shop.get(f"/campaigns/{autumn}/outlook?subject=order&subject_id=A-17")
    late = "after the campaign's last day"
    assert {one["reason"] for one in told["actions"]} == {late}
    assert enrol(shop, "Ann")["reason"] == late
    assert {one["reason"] for one in shop.get("/actions")["items"]} == {late}


def test_an_edit_is_told_before_it_is_saved(shop: Shop, autumn: str, session: Session) -> None:
    enrol(shop, "Ann")
    steps = shop.get(f"/campaigns/{autumn}/definitions")["action_defs"]
    changed = {"action_defs": [steps[0], {**steps[1], "interval": "3days"}]}
    path = f"/campaigns/{autumn}/definitions"
    told = shop.put(f"{path}?dry_run=true", changed)
    assert not told["saved"]
    assert told["consequences"] == {
        "subjects": 1,
        "appear": 0,
        "move": 1,
        "never": 0,
        "vanish": 1,
        "skipped": 0,
        "at_once": 0,
        "by_key": {"action2": {"move": 1}, "action3": {"vanish": 1}},
    }
    assert shop.get(path)["action_defs"] == steps
    saved = shop.put(path, changed)
    assert saved == {**told, "saved": True}
    assert shop.get("/schedules/1")["actions"][1]["expected_at"] == "2026-11-26T09:00:00Z"


def test_secrets_are_not_shown_and_not_lost(shop: Shop, autumn: str, session: Session) -> None:
    path = f"/campaigns/{autumn}/definitions"
    step = {"id": "tell", "callback": "webhook", "interval": "1day"}
    config = {"url": CONFIG["url"]}
    shop.put(path, {"action_defs": [{**step, "config": CONFIG}]})
    (shown,) = shop.get(path)["action_defs"]
    assert shown["config"] == config
    shop.put(path, {"action_defs": [{**shown, "interval": "2days"}]})
    kept = session.scalars(select(ActionDefinition)).one()
    assert kept.config == CONFIG
    assert kept.offset == "2days"


def test_a_webhook_is_tried_as_often_as_on_the_page(shop: Shop, autumn: str) -> None:
    step = {"id": "told", "callback": "webhook", "interval": "1day", "config": CONFIG}
    path = f"/campaigns/{autumn}/definitions"
    told = shop.put(path, {"action_defs": [step, {**step, "id": "once", "attempts": 1}]})
    assert [one["attempts"] for one in told["action_defs"]] == [5, 1]


def test_what_would_be_is_told_without_saving(shop: Shop, autumn: str) -> None:
    path = f"/campaigns/{autumn}/outlook?subject=order&subject_id=A-17"
    told = shop.get(path)
    assert [(one["action_id"], one["expected_at"]) for one in told["actions"]] == [
        ("action1", "2026-11-23T09:00:00Z"),
        ("action2", "2026-11-25T10:00:00Z"),
        ("action3", "2026-11-27T10:00:00Z"),
    ]
    assert shop.get("/schedules")["items"] == []
    assert shop.ask("GET", f"/campaigns/{autumn}/outlook?subject=order").status_code == 422


@pytest.mark.parametrize("lines", [False, True])
def test_many_are_enrolled_in_one_call(
    shop: Shop, autumn: str, session: Session, lines: bool
) -> None:
    many = [
        {"subject": "order", "subject_id": number, "contact": {"email": f"p{number}@p.example"}}
        for number in range(2500)
    ]
    many += [{"contact": {"email": "p7@p.example"}}, many[3]]
    path = f"/campaigns/{autumn}/schedules/bulk"

    def ask() -> Any:
        if not lines:
            return shop.post(path, {"subjects": many})
        data = "\n".join(json.dumps(one) for one in many)
        return shop.post(path, data=data, content_type="application/x-ndjson")

    assert ask() == {"began": 2501, "resumed": 0, "nothing": 1, "reason": ""}
    assert ask() == {"began": 0, "resumed": 0, "nothing": 2502, "reason": ""}
    assert session.scalar(select(func.count()).select_from(Contact)) == 2500
    assert session.scalar(select(func.count()).select_from(Action)) == 3 * 2501


@pytest.mark.parametrize("bad", [{"contact": {"email": "no address"}}, {"contact_id": 999}])
def test_a_bad_one_among_many_keeps_all_of_them_out(
    shop: Shop, autumn: str, session: Session, bad: dict[str, Any]
) -> None:
    """Also those that another commit would have enrolled before it was met."""
    many = [{"subject": "order", "subject_id": number} for number in range(2500)]
    answer = shop.ask("POST", f"/campaigns/{autumn}/schedules/bulk", {"subjects": [*many, bad]})
    assert answer.status_code == 422
    assert "2500" in answer.text
    assert session.scalar(select(func.count()).select_from(Schedule)) == 0


def test_what_a_program_does_is_written_down_as_what_people_do(
    shop: Shop, autumn: str, session: Session, sessions: sessionmaker[Session], at: Clock
) -> None:
    path = f"/campaigns/{autumn}"
    enrol(shop, "Jane")
    enrol(shop, "Jane", 200)
    shop.post(f"{path}/schedules/bulk", {"subjects": [{"subject": "order", "subject_id": 1}]})
    shop.post(f"{path}/unschedule", {"subject": "contact", "subject_id": "1"})
    shop.post(f"{path}/unschedule", {"subject": "contact", "subject_id": "1"})
    enrol(shop, "Jane", 200)
    enrol(shop, "Jane", 201, restart=True)
    given = shop.get(f"{path}/definitions")
    for _ in range(2):
        shop.put(f"{path}/definitions", {"action_defs": given["action_defs"][:2]})

    def fail(_call: Call) -> None:
        raise RuntimeError

    runners.run_due(Surroundings(sessions, {"webhook": fail}, at, 60))
    failed = shop.get("/actions?state=failed")["items"][0]["id"]
    shop.post(f"/actions/{failed}/retry")
    entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    steps = ["action1", "action2", "action3"]
    assert [(one.verb, one.detail) for one in entries if one.noun == "campaign"][1:] == [
        (verb, {"token": "manage shop", **detail})
        for verb, detail in (
            ("edited the steps of", {"steps": steps}),
            ("enrolled a subject of", {"who": "contact 1"}),
            ("enrolled subjects of", {"began": 1}),
            ("withdrew a subject of", {"who": "contact 1"}),
            ("resumed a subject of", {"who": "contact 1"}),
            ("restarted a subject of", {"who": "contact 1"}),
            ("edited the steps of", {"steps": steps[:2]}),
            ("retried actions of", {"actions": 1}),
        )
    ]


def test_what_a_callback_of_one_s_own_keeps_secret_is_not_shown(
    app: Flask, shop: Shop, make_shop: Callable[[str], Shop], autumn: str, session: Session
) -> None:
    class Fax:
        secrets = ("pin",)

        def __call__(self, call: Call) -> None:
            """Nothing."""

    path = f"/campaigns/{autumn}/definitions"
    app.extensions["callbacks"] = app.extensions["callbacks"] | {"fax": Fax()}
    step = {"id": "fax", "callback": "fax", "interval": "1day"}
    config = {"number": "030 1234", "pin": "4711"}
    shop.put(path, {"action_defs": [{**step, "config": config}]})
    (shown,) = make_shop("read").get(path)["action_defs"]
    assert shown["config"] == {"number": "030 1234"}
    shop.put(path, {"action_defs": [shown]})
    assert session.scalars(select(ActionDefinition.config)).one() == config
    # Its package was taken out: nobody knows any more what of it is secret.
    known = app.extensions["callbacks"]
    app.extensions["callbacks"] = {name: known[name] for name in known if name != "fax"}
    (shown,) = make_shop("read").get(path)["action_defs"]
    assert shown["config"] == {}


def test_a_failed_action_is_tried_again(
    shop: Shop, autumn: str, at: Clock, sessions: sessionmaker[Session], run: Callable[[], Any]
) -> None:
    def fail(call: Call) -> None:
        raise RuntimeError("the shop is closed")

    enrol(shop, "Ann")
    runners.run_due(Surroundings(sessions, {"webhook": fail}, at, 60))
    (failed,) = shop.get("/actions?state=failed")["items"]
    assert failed["error"] == "the shop is closed", "without the traceback and its paths"
    shop.post(f"/campaigns/{autumn}/deactivate")
    refused = shop.post(f"/actions/{failed['id']}/retry", status=409)
    assert "Nobody wants it" in refused["detail"]
    shop.post(f"/campaigns/{autumn}/activate")
    again = shop.post(f"/actions/{failed['id']}/retry")
    assert (again["state"], again["due_at"]) == ("pending", "2026-11-23T09:00:00Z")
    assert len(run()) == 1
    refused = shop.post(f"/actions/{failed['id']}/retry", status=409)
    assert "It is completed" in refused["detail"]
    assert shop.get(f"/actions/{failed['id']}")["state"] == "completed"


def test_lists_are_paged_without_gap_or_double(shop: Shop, autumn: str) -> None:
    many = [{"subject": "order", "subject_id": number} for number in range(7)]
    shop.post(f"/campaigns/{autumn}/schedules/bulk", {"subjects": many})
    seen: list[str] = []
    path: str | None = f"/schedules?campaign={autumn}&limit=3"
    while path:
        page = shop.get(path.removeprefix("/api/v1"))
        assert len(page["items"]) <= 3
        seen += [one["subject_id"] for one in page["items"]]
        path = page["next"]
    assert seen == [str(number) for number in range(7)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", 9),
        ("state=pending&state=failed", 9),
        ("state=completed", 0),
        ("action_id=action2", 3),
        ("action_id=action2&action_id=action3", 6),
        ("due_to=2026-11-23T09:00:00Z", 3),
        ("due_from=2026-11-25T11:00:00%2B01:00&due_to=2026-11-25T10:00:00Z", 3),
        ("due_from=2026-11-28T00:00:00Z", 0),
        ("subject=order&subject_id=1", 3),
        ("subject=contact", 0),
        ("contact_id=1", 0),
        ("active=false", 0),
        ("campaign=after-purchase", 9),
        ("campaign=1", 9),
    ],
)
def test_actions_are_asked_for_by_what_they_are(
    shop: Shop, autumn: str, query: str, found: int
) -> None:
    many = [{"subject": "order", "subject_id": number} for number in range(3)]
    shop.post(f"/campaigns/{autumn}/schedules/bulk", {"subjects": many})
    assert len(shop.get(f"/actions?{query}")["items"]) == found


def test_a_contact_who_left_is_told_of_and_who_was_deleted_is_not(
    shop: Shop, session: Session, app: Any
) -> None:
    charlie = shop.post("/contacts", {"email": "charlie@people.example", "name": "Charlie"}, 201)
    assert shop.post("/contacts", {"email": "CHARLIE@people.example"}) == charlie
    contacts.suppress(session, MONDAY, charlie["id"], None)
    assert shop.get(f"/contacts/{charlie['id']}")["suppressed"] == "blocked"
    secret = app.config["SETTINGS"].secret_key
    contacts.delete(session, MONDAY, secret, charlie["id"])
    assert shop.ask("GET", f"/contacts/{charlie['id']}").status_code == 404
    # He bought again: the same contact, and still not written to.
    back = shop.post("/contacts", {"email": "charlie@people.example"}, 200)
    assert (back["id"], back["name"], back["suppressed"]) == (charlie["id"], "", "blocked")


def test_a_key_is_taken_once(shop: Shop, autumn: str) -> None:
    refused = shop.post("/campaigns", {**AUTUMN, "key": autumn}, 409)
    assert refused["type"] == "urn:mcs:problem:conflict"
    made = shop.ask("POST", "/campaigns", AUTUMN)
    assert made.status_code == 201 and made.json["key"] is None
    assert made.headers["Location"] == f"/api/v1/campaigns/{made.json['id']}"
    listed = shop.get("/campaigns?active=true")["items"]
    assert [one["key"] for one in listed] == [autumn, None]
