"""A delivery's contact and emailer are there, and stay, whoever writes SQL."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import Contact, Delivery
from mcs.services import planning
from mcs.services.queue import Queue
from tests.conftest import wait_until
from tests.people import add_campaign, add_contact, add_scenario


@pytest.fixture
def ann(session: Session) -> Contact:
    return add_contact(session, None, "Ann")


@pytest.fixture
def emailer_id(session: Session, now: datetime, queue: Queue) -> int:
    """Planned: nothing but Ann's delivery stands in its way."""
    campaign = add_campaign(session)
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    return emailer_id


@pytest.fixture
def anns(session: Session, now: datetime, ann: Contact, emailer_id: int) -> Delivery:
    delivery = Delivery(emailer_id=emailer_id, contact_id=ann.id, due_at=now)
    session.add(delivery)
    session.commit()
    return delivery


@pytest.mark.parametrize("missing", ["contact_id", "emailer_id"])
def test_no_delivery_without_its_parents(
    session: Session, now: datetime, ann: Contact, emailer_id: int, missing: str
) -> None:
    parents = {"emailer_id": emailer_id, "contact_id": ann.id}
    session.add(Delivery(due_at=now, **(parents | {missing: 999})))

    with pytest.raises(IntegrityError) as refused:
        session.commit()
    if session.get_bind().dialect.name == "postgresql":
        # As a key would be named, and which one it was.
        assert refused.value.orig.diag.constraint_name == f"fk_deliveries_{missing}"
        assert "999" in refused.value.orig.diag.message_primary


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM contacts",
        "UPDATE contacts SET id = 999",
        "DELETE FROM emailers",
        "UPDATE emailers SET id = 999",
        "UPDATE deliveries SET contact_id = 999",
        "UPDATE deliveries SET emailer_id = 999",
    ],
)
def test_no_parent_goes(session: Session, anns: Delivery, statement: str) -> None:
    with pytest.raises(IntegrityError):
        session.execute(text(statement))


def test_an_emailer_without_deliveries_may_go(session: Session, emailer_id: int) -> None:
    gone = session.execute(text("DELETE FROM emailers WHERE id = :id"), {"id": emailer_id})

    assert gone.rowcount == 1


def test_an_emailer_does_not_go_while_its_first_delivery_is_being_committed(
    engine: Engine,
    sessions: sessionmaker[Session],
    session: Session,
    now: datetime,
    ann: Contact,
    emailer_id: int,
) -> None:
    if engine.dialect.name != "postgresql":
        pytest.skip("SQLite has one writer at a time")
    session.add(Delivery(emailer_id=emailer_id, contact_id=ann.id, due_at=now))
    session.flush()

    def delete() -> None:
        with sessions() as another:
            another.execute(text("DELETE FROM emailers WHERE id = :id"), {"id": emailer_id})
            another.commit()

    def it_waits() -> bool:
        with engine.connect() as looking:
            return bool(
                looking.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                        " AND datname = current_database()"
                    )
                )
            )

    with ThreadPoolExecutor(1) as thread:
        deleted = thread.submit(delete)
        wait_until(it_waits)
        session.commit()
        with pytest.raises(IntegrityError):
            deleted.result()
