"""People act while it is being sent: unsubscribe, cancel, edit, delete, upload."""

import itertools
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from mcs.core.tokens import Recipient
from mcs.models import Campaign, Contact, Scenario
from mcs.services import contacts, emailers, imports, scenarios, suppressions
from mcs.services.transactions import persistently
from tests.faults import auditor
from tests.faults.conftest import Begin
from tests.faults.world import World
from tests.people import add_contact

Seeds = Callable[[int, int], range]


@pytest.mark.short
def test_unsubscribing_while_it_is_being_sent(world: Begin, seeds: Seeds) -> None:
    """Who unsubscribes is always among those whose turn is about to come. Nobody's message starts
    after their unsubscribe was committed, of this emailer or of a later one."""
    races = 50 * len(seeds(20, 1))
    here = world()
    here.people(3000)
    here.begin(workers=2)
    out: dict[str, datetime] = {}
    before_it = 0
    # An emailer may be over before all sixty of its races are run.
    for seed in range(races // 10):
        if len(out) >= races:
            break
        emailer_id = here.scenario()
        here.wait_sent(emailer_id, 1)
        dice = [random.Random(10 * seed + number) for number in range(5)]
        with ThreadPoolExecutor(5) as people:
            each = [people.submit(_unsubscribe_ahead, here, emailer_id, its) for its in dice]
        for some in each:
            out |= some.result()
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        before_it += _audit_unsubscribed(here, emailer_id, out)
    print(f"{len(out)} races: {before_it} mails were not sent")
    assert len(out) >= races
    assert before_it


AHEAD = text(
    "SELECT c.email FROM deliveries d JOIN contacts c ON c.id = d.contact_id"
    " WHERE d.emailer_id = :id AND d.state = 'pending' ORDER BY d.id LIMIT 100"
)


def _unsubscribe_ahead(here: World, emailer_id: int, dice: random.Random) -> dict[str, datetime]:
    """Unsubscribe some who are about to be written to; their addresses, and when it was done."""
    out = {}
    while len(out) < 12:
        with here.engine.connect() as connection:
            ahead = connection.scalars(AHEAD, {"id": emailer_id}).all()
        if not ahead:
            break
        email = dice.choice(ahead)
        out[email] = _unsubscribe(here, email)
    return out


def _unsubscribe(here: World, email: str) -> datetime:
    """The moment by which its suppression was committed. Nobody gives up because of a busy file."""

    def press(_again: bool) -> None:
        with here.sessions() as session:
            uid = session.query(Contact.uid).filter(Contact.email_key == email).scalar()
            campaign_uid = session.get_one(Campaign, here.campaign_id).uid
            session.commit()
            link = Recipient(uid, campaign_uid)
            assert suppressions.unsubscribe(session, datetime.now(UTC), link)

    persistently(press)
    return datetime.now(UTC)


def _audit_unsubscribed(here: World, emailer_id: int, out: dict[str, datetime]) -> int:
    """How many of those who unsubscribed did so before their message started."""
    query = (
        "SELECT c.email, d.message_id, d.state, d.started_at FROM deliveries d"
        " JOIN contacts c ON c.id = d.contact_id WHERE d.emailer_id = :id"
    )
    with here.engine.connect() as connection:
        rows = connection.execute(text(query), {"id": emailer_id}).all()
    taken = {message.delivery for message in auditor.accepted(here.folder)}
    skipped = [row for row in rows if row.email in out and row.state == "skipped"]
    assert not [row.email for row in skipped if row.message_id in taken or row.started_at]
    started = [row for row in rows if row.email in out and row.state != "skipped"]
    assert not [row for row in started if auditor.instant(row.started_at) > out[row.email]]
    return len(skipped)


@pytest.mark.short
def test_start_and_cancel(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(2000)
    here.begin(workers=2)
    for seed in seeds(8, 2):
        emailer_id = here.scenario()
        if seed % 4:
            here.wait_sent(emailer_id, 1 + 40 * seed)
        with here.sessions() as session:
            emailers.cancel(session, datetime.now(UTC), emailer_id)
        cancelled_at = datetime.now(UTC)
        here.wait_over(emailer_id)
        if here.book(emailer_id).rows:
            here.wait_for(lambda on=emailer_id: _released(here, on))
            here.audit(emailer_id, 0)
            with here.engine.connect() as connection:
                last = connection.scalar(
                    text("SELECT MAX(started_at) FROM deliveries WHERE emailer_id = :id"),
                    {"id": emailer_id},
                )
            assert last is None or auditor.instant(last) <= cancelled_at


def _released(here: World, emailer_id: int) -> bool:
    with here.engine.connect() as connection:
        return not connection.scalar(
            text("SELECT COUNT(*) FROM slices WHERE emailer_id = :id AND claim_token IS NOT NULL"),
            {"id": emailer_id},
        )


def test_editing_while_it_is_being_started(world: Begin, seeds: Seeds) -> None:
    """Everybody gets the same words, and they are those that the scenario has afterwards."""
    here = world()
    here.people(600)
    here.begin(workers=2)
    for _seed in seeds(3, 1):
        scenario_id = here.scenario_due()
        edits = _edit_until_frozen(here, scenario_id)
        emailer_id = here.emailer_of(scenario_id)
        here.wait_over(emailer_id)
        here.audit(emailer_id, 0)
        mine = {message_id for message_id, _state, _email in here.book(emailer_id).rows}
        subjects = auditor.subjects(here.folder)
        assert {subjects[message_id] for message_id in mine} == {f"Edit {edits}"}


def _edit_until_frozen(here: World, scenario_id: int) -> int:
    """Edit it again and again until that is refused; how many edits were taken."""
    for number in itertools.count(1):
        with here.sessions() as session:
            fields = scenarios.fields_of(session.get_one(Scenario, scenario_id))
            now, written = datetime.now(UTC), replace(fields, subject=f"Edit {number}")
            try:
                scenarios.edit(session, now, here.queue, scenario_id, written, draft=False)
            except scenarios.Frozen:
                return number - 1
    raise AssertionError("never frozen")


def test_deleting_adding_importing_and_suppressing_contacts_all_the_while(
    world: Begin, seeds: Seeds
) -> None:
    here = world()
    here.people(1500)
    here.begin(workers=2, clocks=2)
    for seed in seeds(3, 1):
        dice = random.Random(seed)
        book_of = [here.scenario()]
        with ThreadPoolExecutor(4) as threads:
            numbers = dice.sample(range(500 * seed, 500 * seed + 500), 60)
            acts = [threads.submit(_meddle, here, dice.randrange(4), n) for n in numbers]
            book_of += [here.scenario(), here.scenario()]
            for act in acts:
                act.result()
        for emailer_id in book_of:
            here.wait_over(emailer_id)
            here.audit(emailer_id, 0)


def _meddle(here: World, kind: int, number: int) -> None:
    email = f"p{number}@people.example"
    with here.sessions() as session:
        if kind == 3:
            _upload(here, session, number)
        elif kind == 2:
            add_contact(session, here.campaign(session), f"New{number}")
        elif kind == 1:
            suppressions.suppress(session, datetime.now(UTC), email, "blocked")
        else:
            contact_id = session.query(Contact.id).filter(Contact.email_key == email).scalar()
            contacts.delete(session, datetime.now(UTC), "secret", contact_id)
    time.sleep(0.02)


def _upload(here: World, session: Session, number: int) -> None:
    lines = [f"{name}-{number}@people.example,{name}" for name in ("ann", "bob")]
    file = "\n".join(["email,name", *lines]).encode()
    now, name = datetime.now(UTC), "people.csv"
    imports.upload(session, now, here.queue, here.campaign_id, name, [file], False, secret="secret")
