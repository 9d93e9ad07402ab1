"""The ledger as a file: what it says of each recipient, and how it is read."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from mcs.models import Contact, Delivery, Slice, Suppression
from mcs.services import contacts, ledger
from mcs.services.unknown import Unknown
from tests.people import add_scenario
from tests.services.conftest import Scene

SOON = timedelta(minutes=5)
BEGAN, ANSWERED = "2026-11-23T09:00:00Z", "2026-11-23T09:00:01.500000Z"


def became(scene: Scene, name: str, state: str, **fields: Any) -> None:
    """A recipient's message has come to this; the slice's counts say so, too."""
    delivery = scene.session.scalars(
        select(Delivery)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.email_key == f"{name}@people.example")
    ).one()
    part = scene.session.scalars(
        select(Slice).where(Slice.low_id <= delivery.id, Slice.high_id >= delivery.id)
    ).one()
    setattr(part, delivery.state, getattr(part, delivery.state) - 1)
    setattr(part, state, getattr(part, state) + 1)
    for field, value in {"state": state, "message_id": name, **fields}.items():
        setattr(delivery, field, value)
    scene.session.commit()


@pytest.fixture
def told(scene: Scene) -> Scene:
    """One of each state, in slices of two; Charlie unsubscribed before, Greta was deleted since."""
    added = scene.add("Ann", "Bob", "Charlie", "Dora", "Erik", "Fay", "Greta", "Hugo")
    scene.session.add(
        Suppression(email_key="charlie@people.example", reason="unsubscribed", created_at=scene.now)
    )
    scene.session.commit()
    scene.slices_of(2)
    scene.start()
    begun = {"attempts": 1, "started_at": scene.now}
    answered = {**begun, "sent_at": scene.now + timedelta(seconds=1.5)}
    became(scene, "ann", "sent", **answered, reply_code=250, reply_text="2.0.0 Ok: 4F1A")
    became(scene, "bob", "failed", **begun, reply_code=550, reply_text="5.1.1 No such user, sorry")
    became(scene, "dora", "in_doubt", **begun, reason="the connection was lost")
    again = {"due_at": scene.now + SOON, "reply_code": 451, "reply_text": "4.7.1 Greylisted"}
    became(scene, "erik", "pending", **begun | again)
    became(scene, "fay", "sending", **begun)
    became(scene, "greta", "sent", **answered, reply_code=250, reply_text="=ok")
    became(scene, "charlie", "skipped")
    became(scene, "hugo", "pending")
    contacts.delete(scene.session, scene.now, "a secret of this story", added[6].id)
    return scene


def rows(scene: Scene, outcome: str = "", search: str = "") -> list[list[str]]:
    _head, *found = ledger.table(scene.session, scene.emailer_id, outcome, search)
    return found


def test_a_row_says_what_became_of_the_message(told: Scene) -> None:
    head, *found = ledger.table(told.session, told.emailer_id)
    assert head == [
        *("email", "name", "state", "reason", "attempts", "due_at", "started_at", "sent_at"),
        *("reply_code", "reply_text", "message_id"),
    ]
    again = "2026-11-23T09:05:00Z"
    lost = "the connection was lost"
    nobody, no_user = ["", "Deleted contact"], "5.1.1 No such user, sorry"
    assert found == [
        [*who("Ann"), "Sent", "", "1", "", BEGAN, ANSWERED, "250", "2.0.0 Ok: 4F1A", "ann"],
        [*who("Bob"), "Failed", "", "1", "", BEGAN, "", "550", no_user, "bob"],
        [*who("Charlie"), "Skipped", "unsubscribed", "0", "", "", "", "", "", "charlie"],
        [*who("Dora"), "In doubt", lost, "1", "", BEGAN, "", "", "", "dora"],
        [*who("Erik"), "Pending", "", "1", again, BEGAN, "", "451", "4.7.1 Greylisted", "erik"],
        [*who("Fay"), "Sending", "", "1", "", BEGAN, "", "", "", "fay"],
        [*nobody, "Sent", "", "1", "", BEGAN, ANSWERED, "250", "'=ok", "greta"],
        [*who("Hugo"), "Pending", "", "0", BEGAN, "", "", "", "", "hugo"],
    ]


def who(name: str) -> list[str]:
    return [f"{name.lower()}@people.example", name]


@pytest.mark.parametrize(
    ("outcome", "search", "found"),
    [
        ("sent", "", ["ann", "greta"]),
        ("failed", "", ["bob"]),
        ("skipped", "", ["charlie"]),
        ("in_doubt", "", ["dora"]),
        ("pending", "", ["erik", "hugo"]),
        ("sending", "", ["fay"]),
        ("", "DORA@people.example", ["dora"]),
        ("pending", "hug", ["hugo"]),
        ("sent", "hug", []),
    ],
)
def test_the_filter_is_that_of_the_page(
    told: Scene, outcome: str, search: str, found: list[str]
) -> None:
    assert [row[-1] for row in rows(told, outcome, search)] == found
    page = ledger.ledger(told.session, told.emailer_id, outcome, search)
    assert [entry.delivery.message_id for entry in page.rows] == found


def test_nothing_in_it_is_a_formula(scene: Scene) -> None:
    names = ["=cmd|calc", "+1", "-1", "@SUM(1)", "\tTab", "\rReturn", "Łódź, =1"]
    for person, name in zip(scene.add(*"abcdefg"), names, strict=True):
        person.name = name
    scene.session.commit()
    scene.start()
    assert [row[1] for row in rows(scene)] == [*(f"'{name}" for name in names[:-1]), names[-1]]


def test_the_rows_of_an_emailer_that_began_in_the_same_moment_are_not_in_it(scene: Scene) -> None:
    people = scene.add("Ann", "Bob", "Cleo", "Dora")
    add_scenario(scene.session, scene.campaign, name="Another")
    both = scene.plan()
    ids: dict[int, list[int]] = {emailer_id: [] for emailer_id in both}
    for person in people:
        for emailer_id in both:
            row = Delivery(emailer_id=emailer_id, contact_id=person.id, due_at=scene.now)
            scene.session.add(row)
            scene.session.flush()
            ids[emailer_id].append(row.id)
    for emailer_id, (first, second, third, fourth) in ids.items():
        for low, high in ((third, fourth), (first, second)):
            ends = {"low_id": low, "high_id": high, "due_at": scene.now, "pending": 2}
            scene.session.add(Slice(emailer_id=emailer_id, **ends))
    scene.session.commit()
    for scene.emailer_id in both:
        assert [row[1] for row in rows(scene)] == ["Ann", "Bob", "Cleo", "Dora"]
        own = select(Delivery.message_id).where(Delivery.emailer_id == scene.emailer_id)
        assert [row[-1] for row in rows(scene, "pending")] == list(
            scene.session.scalars(own.order_by(Delivery.id))
        )


@pytest.fixture
def asked(engine: Engine) -> Iterator[list[str]]:
    """The statements about deliveries."""
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "FROM deliveries" in statement:
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)


def test_it_is_read_a_slice_at_a_time_and_no_transaction_waits_for_the_reader(
    scene: Scene, asked: list[str]
) -> None:
    scene.add_many(5)
    scene.slices_of(2)
    scene.start()
    asked.clear()
    seen = []
    for _row in ledger.table(scene.session, scene.emailer_id):
        assert not scene.session.in_transaction()
        seen.append(len(asked))
    assert seen == [0, 1, 1, 2, 2, 3]
    assert not any("OFFSET" in statement for statement in asked)


def test_of_an_outcome_only_the_slices_that_have_it_are_read(told: Scene, asked: list[str]) -> None:
    asked.clear()
    assert len(rows(told, "in_doubt")) == 1
    assert len(asked) == 1


def test_before_it_begins_there_is_nobody_and_of_none_there_is_no_ledger(scene: Scene) -> None:
    scene.add("Ann")
    (emailer_id,) = scene.plan()
    assert list(ledger.table(scene.session, emailer_id)) == [list(ledger.COLUMNS)]
    with pytest.raises(Unknown):
        next(ledger.table(scene.session, 77))
