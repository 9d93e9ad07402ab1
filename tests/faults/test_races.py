"""People act while it is being sent: unsubscribe, cancel, edit, delete, upload."""

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import text

from mcs.core.tokens import Recipient
from mcs.models import Campaign, Contact
from mcs.services import contacts, emailers, suppressions
from tests.faults import auditor
from tests.faults.conftest import Begin
from tests.faults.world import World
from tests.people import add_contact

Seeds = Callable[[int, int], range]


@pytest.mark.short
def test_unsubscribing_while_it_is_being_sent(world: Begin, seeds: Seeds, tmp_path: Path) -> None:
    """Nobody's message starts after their unsubscribe was committed."""
    races, people = len(seeds(1000, 50)), max(800, 6 * len(seeds(1000, 50)))
    here = world()
    here.people(people)
    here.begin(workers=2)
    emailer_id = here.scenario()
    here.wait_sent(emailer_id, 1)
    dice = random.Random(1)
    with ThreadPoolExecutor(4) as threads:
        chosen = dice.sample(range(people), races)
        out = dict(threads.map(lambda number: _unsubscribe(here, number), chosen))
    here.wait_over(emailer_id, 300)
    here.audit(emailer_id, 0)
    took = {message.recipient for message in auditor.accepted(tmp_path)}
    with here.engine.connect() as connection:
        rows = connection.execute(
            text(
                "SELECT c.email, d.state, d.started_at FROM deliveries d"
                " JOIN contacts c ON c.id = d.contact_id"
            )
        ).all()
    skipped = 0
    for email, state, started_at in rows:
        if email not in out:
            continue
        if state == "skipped":
            skipped += 1
            assert email not in took
        else:
            assert state == "sent"
            assert _instant(started_at) <= out[email]
    print(f"{races} races: {skipped} were in time")
    assert skipped


def _unsubscribe(here: World, number: int) -> tuple[str, datetime]:
    """The address, and the moment at which its suppression was committed."""
    email = f"p{number}@people.example"
    with here.sessions() as session:
        uid = session.query(Contact.uid).filter(Contact.email_key == email).scalar()
        campaign_uid = session.get_one(Campaign, here.campaign_id).uid
        session.commit()
        link = Recipient(uid, campaign_uid)
        assert suppressions.unsubscribe(session, datetime.now(UTC), link)
    return email, datetime.now(UTC)


def _instant(value: object) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    assert isinstance(value, datetime)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


@pytest.mark.short
def test_start_and_cancel(world: Begin, seeds: Seeds) -> None:
    here = world()
    here.people(2000)
    here.begin(workers=2)
    for seed in seeds(20, 2):
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
            assert last is None or _instant(last) <= cancelled_at


def _released(here: World, emailer_id: int) -> bool:
    with here.engine.connect() as connection:
        return not connection.scalar(
            text("SELECT COUNT(*) FROM slices WHERE emailer_id = :id AND claim_token IS NOT NULL"),
            {"id": emailer_id},
        )


def test_deleting_adding_and_unsubscribing_contacts_all_the_while(
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
            acts = [threads.submit(_meddle, here, dice.randrange(3), n) for n in numbers]
            book_of += [here.scenario(), here.scenario()]
            for act in acts:
                act.result()
        for emailer_id in book_of:
            here.wait_over(emailer_id)
            here.audit(emailer_id, 0)


def _meddle(here: World, kind: int, number: int) -> None:
    email = f"p{number}@people.example"
    with here.sessions() as session:
        if kind == 2:
            add_contact(session, here.campaign(session), f"New{number}")
        elif kind == 1:
            suppressions.suppress(session, datetime.now(UTC), email, "blocked")
        else:
            contact_id = session.query(Contact.id).filter(Contact.email_key == email).scalar()
            contacts.delete(session, datetime.now(UTC), "secret", contact_id)
    time.sleep(0.02)
