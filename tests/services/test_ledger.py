"""The ledger's transactions when something is cut off, held up, stopped or cancelled in between."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Delivery, Scenario, Slice
from mcs.services import (
    deliveries,
    due,
    emailers,
    headway,
    planning,
    rescues,
    slice_claims,
    suppressions,
)
from mcs.services.deliveries import Standing, Standings, Step
from mcs.services.slice_claims import Claim, Due
from mcs.services.steps import Outcome
from mcs.services.transactions import writing
from mcs.services.writers import is_plain, open_writer
from mcs.services.writers.postgres import TAKE
from mcs.services.writers.writer import Writer
from tests.conftest import wait_until
from tests.people import add_campaign, add_contact, add_scenario

LEASE = timedelta(seconds=45)


@pytest.fixture
def emailer_id(session: Session, now: datetime, queue: JobQueue) -> int:
    """Ann, Bob and Cleo are about to be written to."""
    campaign = add_campaign(session)
    for name in ("Ann", "Bob", "Cleo"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign)
    (emailer_id,) = planning.plan_day(session, now, queue)
    emailers.send(session, now, queue, emailer_id, timedelta(minutes=120))
    return emailer_id


@pytest.fixture
def held(session: Session, now: datetime, emailer_id: int) -> tuple[Claim, list[Due]]:
    """Their slice, claimed."""
    claim = slice_claims.claim(session, now, LEASE)
    assert claim is not None
    return claim, slice_claims.load(session, now, claim)


def counts(session: Session, emailer_id: int) -> dict[str, int]:
    """What the pages show, which is what the rows say."""
    session.rollback()
    shown = headway.progress(session, emailer_id)
    states = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")
    found = {state: getattr(shown, state) for state in states if getattr(shown, state)}
    rows = session.scalars(select(Delivery.state).where(Delivery.emailer_id == emailer_id)).all()
    assert found == {state: rows.count(state) for state in rows}
    return found


def test_a_commit_whose_answer_was_cut_off_is_not_done_twice(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, bob, cleo) = held
    first = Step(claim, starts=[ann.id])
    assert deliveries.advance(session, now, LEASE, [first])[first].started == {ann.id}
    step = Step(
        claim,
        outcomes=[Outcome(ann.id, "sent", now, reply_code=250)],
        refusals=[Outcome(cleo.id, "pending", now, due_at=now + timedelta(minutes=1))],
        starts=[bob.id],
    )
    for again in (False, True, True):
        standings = deliveries.advance(session, now, LEASE, [step], again=again)
        assert standings[step].started == {bob.id}
        assert counts(session, emailer_id) == {"sent": 1, "sending": 1, "pending": 1}
    attempts = select(Delivery.attempts).where(Delivery.emailer_id == emailer_id)
    assert session.scalars(attempts).all() == [1, 1, 1]


def test_a_commit_that_did_not_happen_is_done_the_second_time(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, bob, _cleo) = held
    step = Step(claim, starts=[ann.id], refusals=[Outcome(bob.id, "failed", now, reason="no")])
    standings = deliveries.advance(session, now, LEASE, [step], again=True)
    assert standings[step].started == {ann.id}
    assert counts(session, emailer_id) == {"sending": 1, "failed": 1, "pending": 1}


def test_a_slice_with_a_message_in_flight_is_not_given_back(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    """Nobody would record its answer any more, and nobody would rescue it."""
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    slice_claims.release(session, now, claim, None)
    assert rescues.rescue(session, now + LEASE * 2, "hold") == {slice_claims.Parent(emailer_id)}
    assert counts(session, emailer_id) == {"in_doubt": 1, "pending": 2}


def test_nothing_goes_back_to_pending_in_a_cancelled_emailer(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, dues = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[each.id for each in dues])])
    emailers.cancel(session, now, emailer_id)
    later = [Outcome(each.id, "pending", now, due_at=now) for each in dues]
    deliveries.advance(session, now, LEASE, [Step(claim, outcomes=later)])
    assert counts(session, emailer_id) == {"skipped": 3}
    assert headway.progress(session, emailer_id).skipped_by_reason == {"cancelled": 3}


def test_a_worker_that_dies_after_a_cancel_leaves_right_numbers(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
) -> None:
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    emailers.cancel(session, now, emailer_id)
    accepted = Step(claim, outcomes=[Outcome(ann.id, "sent", now, reply_code=250)])
    deliveries.advance(session, now, LEASE, [accepted])
    due.tick(session, now + LEASE * 2, queue, "hold")
    assert counts(session, emailer_id) == {"sent": 1, "skipped": 2}
    assert session.scalars(select(Scenario.contacts_served)).one() == 1


def test_a_late_acceptance_spares_the_second_message(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, *_rest) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    later = now + LEASE * 2
    rescues.rescue(session, later, "resend")
    assert counts(session, emailer_id) == {"pending": 3}
    rescues.settle_late(session, later, claim, [Outcome(ann.id, "sent", later, reply_code=250)])
    assert counts(session, emailer_id) == {"sent": 1, "pending": 2}


def test_the_token_proves_the_claim_even_after_its_lease(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    """A database that was away for longer than a lease: if nobody took the slice, it is ours."""
    claim, (ann, *_rest) = held
    later = now + LEASE * 2
    step = Step(claim, starts=[ann.id])
    assert deliveries.advance(session, later, LEASE, [step])[step].started == {ann.id}
    rescues.rescue(session, later, "hold")
    taken = replace(claim, token="somebody else's")
    step = Step(taken, starts=[ann.id])
    assert deliveries.advance(session, later, LEASE, [step]) == {}


def test_what_is_too_long_for_its_column_is_cut(
    session: Session, now: datetime, emailer_id: int, held: tuple[Claim, list[Due]]
) -> None:
    claim, (ann, *_rest) = held
    long = Outcome(
        ann.id, "failed", now, reason="why " * 100, reply_code=554, reply_text="x" * 9999
    )
    deliveries.advance(session, now, LEASE, [Step(claim, refusals=[long])])
    emailers.note(session, emailer_id, "oh " * 1000)
    emailers.pause(session, now, emailer_id, notice="oh " * 1000)
    assert counts(session, emailer_id) == {"failed": 1, "pending": 2}
    assert session.scalars(select(Slice.failed)).one() == 1


class Advance(Protocol):
    def __call__(
        self, now: datetime, steps: list[Step], /, lease: timedelta = LEASE
    ) -> Standings: ...


@pytest.fixture
def writer(engine: Engine) -> Iterator[Writer]:
    writer = open_writer(engine)
    yield writer
    writer.close()


@pytest.fixture
def written(writer: Writer) -> Iterator[Advance]:
    """What the writer does, in one loop as in a lane."""
    loop = asyncio.new_event_loop()

    def advance(now: datetime, steps: list[Step], /, lease: timedelta = LEASE) -> Standings:
        return loop.run_until_complete(writer.advance(now, now + lease, steps))

    yield advance
    writer.close()
    loop.close()


@pytest.fixture(params=["session", "writer"])
def advance(request: pytest.FixtureRequest, session: Session, written: Advance) -> Advance:
    """A plain step is written in either of two ways, which do the same."""
    if request.param == "session":
        return lambda now, steps, /, lease=LEASE: deliveries.advance(session, now, lease, steps)
    return written


def test_a_plain_commit_writes_answers_and_starts_whoever_writes_it(
    session: Session,
    now: datetime,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
    advance: Advance,
) -> None:
    claim, (ann, bob, cleo) = held
    step = Step(claim, starts=[ann.id, bob.id])
    assert advance(now, [step])[step].started == {ann.id, bob.id}
    assert counts(session, emailer_id) == {"sending": 2, "pending": 1}
    later = now + timedelta(seconds=1)
    said = 'é, "C:\\mail" {NULL}, NULL'
    answers = [
        Outcome(ann.id, "sent", later, reply_code=250, reply_text="2.0.0 Ok: queued as 4cX"),
        Outcome(bob.id, "failed", later, reason="no such address", reply_code=550, reply_text=said),
    ]
    step = Step(claim, outcomes=answers, starts=[cleo.id])
    assert is_plain(step)
    assert advance(later, [step])[step].started == {cleo.id}
    assert counts(session, emailer_id) == {"sent": 1, "failed": 1, "sending": 1}
    columns = ("state", "reason", "attempts", "due_at", "started_at", "sent_at", "reply_code",
               "reply_text", "exception")  # fmt: skip
    rows = session.execute(
        select(*(getattr(Delivery, name) for name in columns)).order_by(Delivery.id)
    )
    assert [tuple(row) for row in rows] == [
        ("sent", "", 1, later, now, later, 250, "2.0.0 Ok: queued as 4cX", None),
        ("failed", "no such address", 1, later, now, None, 550, said, "failed"),
        ("sending", "", 1, now, later, None, None, "", None),
    ]
    assert session.scalars(select(Slice.lease_until)).one() == later + LEASE


def test_a_plain_commit_of_nothing_renews_the_lease(
    session: Session, now: datetime, held: tuple[Claim, list[Due]], advance: Advance
) -> None:
    claim, _ = held
    later = now + timedelta(seconds=1)
    empty = Step(claim)
    assert advance(later, [empty]) == {empty: Standing(set(), claim.high_id)}
    assert session.scalars(select(Slice.lease_until)).one() == later + LEASE


def test_who_lost_the_lease_writes_nothing_and_the_other_slice_goes_on(
    session: Session,
    now: datetime,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
    advance: Advance,
) -> None:
    claim, (ann, bob, _cleo) = held
    lost = Step(replace(claim, token="taken over"), starts=[bob.id])
    held = Step(claim, starts=[ann.id])
    assert advance(now, [held, lost]) == {held: Standing({ann.id}, claim.high_id)}
    assert counts(session, emailer_id) == {"sending": 1, "pending": 2}


@pytest.mark.parametrize("change", ["unsubscribed", "paused", "cancelled"])
def test_a_start_is_refused_after_a_change_of_mind(
    session: Session,
    now: datetime,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
    advance: Advance,
    change: str,
) -> None:
    claim, (ann, bob, _cleo) = held
    if change == "unsubscribed":
        suppressions.suppress(session, now, ann.email_key, "unsubscribed")
    elif change == "paused":
        emailers.pause(session, now, emailer_id)
    else:
        emailers.cancel(session, now, emailer_id)
    step = Step(claim, starts=[ann.id, bob.id])
    assert advance(now, [step])[step].started == ({bob.id} if change == "unsubscribed" else set())
    assert (
        counts(session, emailer_id)
        == {
            "unsubscribed": {"skipped": 1, "sending": 1, "pending": 1},
            "paused": {"pending": 3},
            "cancelled": {"skipped": 3},
        }[change]
    )


def test_a_writer_that_waits_for_a_cancel_sees_what_it_did(
    session: Session,
    now: datetime,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
    written: Advance,
) -> None:
    """PostgreSQL takes a statement's snapshot before it waits for a lock."""
    claim, (ann, bob, _cleo) = held
    answer: list[Standings] = []
    step = Step(claim, starts=[ann.id, bob.id])
    waiting = threading.Thread(target=lambda: answer.append(written(now, [step])))
    with writing(session):
        session.execute(select(Slice.id).with_for_update())
        session.execute(
            text("UPDATE deliveries SET state = 'skipped', reason = 'cancelled' WHERE id = :id"),
            {"id": ann.id},
        )
        session.execute(text("UPDATE slices SET pending = pending - 1, skipped = skipped + 1"))
        waiting.start()
        waiting.join(0.3)
        assert not answer
    waiting.join()
    assert answer == [{step: Standing({bob.id}, claim.high_id)}]
    assert counts(session, emailer_id) == {"skipped": 1, "sending": 1, "pending": 1}


def test_a_writer_whose_connection_is_cut_says_so_and_has_written_nothing(
    session: Session,
    now: datetime,
    emailer_id: int,
    held: tuple[Claim, list[Due]],
    written: Advance,
) -> None:
    claim, (ann, *_rest) = held
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("SQLite has no connection to cut")
    others = "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
    session.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
    with pytest.raises(OperationalError):
        written(now, [Step(claim, starts=[ann.id])])
    assert counts(session, emailer_id) == {"pending": 3}


@pytest.mark.parametrize(
    "url", ["sqlite:////there/is/no/such/folder/mcs.db", "postgresql+psycopg://127.0.0.1:1/mcs"]
)
def test_a_writer_that_finds_no_database_says_so_as_everybody_does(url: str) -> None:
    with pytest.raises(OperationalError):
        open_writer(create_engine(url))


@pytest.fixture
def bob_after_ann(session: Session, now: datetime, held: tuple[Claim, list[Due]]) -> Step:
    """Ann's message was accepted, and Bob's may go."""
    claim, (ann, bob, _cleo) = held
    deliveries.advance(session, now, LEASE, [Step(claim, starts=[ann.id])])
    accepted = Outcome(ann.id, "sent", now, reply_code=250)
    return Step(claim, outcomes=[accepted], starts=[bob.id])


def test_a_commit_that_is_not_answered_within_a_lease_is_given_up_and_made_once(
    session: Session,
    now: datetime,
    emailer_id: int,
    bob_after_ann: Step,
    writer: Writer,
    written: Advance,
) -> None:
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("SQLite answers, or is locked")
    with writing(session):
        session.execute(select(Slice.id).with_for_update())
        with pytest.raises(OperationalError):
            written(now, [bob_after_ann], lease=timedelta(seconds=0.3))
        writer.close()
    # The server goes on with what was given up, before this or after it.
    standings = deliveries.advance(session, now, LEASE, [bob_after_ann], again=True)
    assert len(standings[bob_after_ann].started) == 1
    wait_until(lambda: not others_at_work(session))
    assert counts(session, emailer_id) == {"sent": 1, "sending": 1, "pending": 1}


@pytest.mark.parametrize(
    ("became", "then"),
    [
        ("", {"sent": 1, "sending": 1, "pending": 1}),
        ("sent", {"sent": 2, "pending": 1}),
        ("pending", {"sent": 1, "pending": 2}),
    ],
)
def test_a_commit_that_comes_after_the_one_in_its_place_changes_nothing(
    session: Session,
    now: datetime,
    emailer_id: int,
    bob_after_ann: Step,
    written: Advance,
    became: str,
    then: dict[str, int],
) -> None:
    """Whatever became of Bob's message in the meantime."""
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("none comes late")
    later = now + LEASE + timedelta(seconds=1)
    deliveries.advance(session, later, LEASE, [bob_after_ann], again=True)
    if became:
        answer = Outcome(bob_after_ann.starts[0], became, later)
        deliveries.advance(session, later, LEASE, [Step(bob_after_ann.claim, outcomes=[answer])])
    assert written(now, [bob_after_ann])[bob_after_ann].started == set()
    assert counts(session, emailer_id) == then
    assert session.scalars(select(Slice.lease_until)).one() == later + LEASE
    assert rescues.rescue(session, later, "hold") == set()


def test_a_clock_that_was_set_back_leaves_no_lease_that_lasts_for_hours(
    session: Session, now: datetime, bob_after_ann: Step, advance: Advance
) -> None:
    """Or nobody would rescue what a worker holds that dies then."""
    earlier = now - timedelta(hours=3)
    assert advance(earlier, [bob_after_ann])[bob_after_ann].started
    assert session.scalars(select(Slice.lease_until)).one() == earlier + LEASE


def others_at_work(session: Session) -> int:
    session.rollback()  # a new look, not the old snapshot
    others = "pid <> pg_backend_pid() AND datname = current_database() AND state <> 'idle'"
    found = session.execute(text(f"SELECT count(*) FROM pg_stat_activity WHERE {others}"))
    return found.scalar_one()


def test_postgresql_finds_the_rows_of_a_commit_by_their_index(
    session: Session, emailer_id: int
) -> None:
    """A scan of the ledger took 3 ms of each commit at 20,000 recipients, and more at more."""
    if session.get_bind().dialect.name != "postgresql":
        pytest.skip("its planner chooses otherwise")
    session.execute(text(_MANY_CONTACTS))
    session.execute(text(_MANY_DELIVERIES), {"emailer_id": emailer_id})
    session.execute(text("ANALYZE deliveries, slices"))
    session.execute(text(f"PREPARE take AS {TAKE}"))
    session.execute(text("SET plan_cache_mode = force_generic_plan"))
    nobody = "1, 'token', now(), 1, '{1}', '{sending}', '{x}', '{now}', '{NULL}', '{x}'"
    plan = "\n".join(session.scalars(text(f"EXPLAIN EXECUTE take({nobody})")))
    assert "pk_deliveries" in plan
    assert "Seq Scan on deliveries" not in plan


_MANY_CONTACTS = """
INSERT INTO contacts (uid, email, email_key, name, attributes, created_at, updated_at)
SELECT n, n, n, n, '{}', now(), now() FROM generate_series(1, 20000) AS n
"""
_MANY_DELIVERIES = """
INSERT INTO deliveries (emailer_id, contact_id, state, reason, attempts, due_at, message_id,
reply_text) SELECT :emailer_id, id, 'pending', '', 0, now(), uid, '' FROM contacts
WHERE uid ~ '^[0-9]+$' AND id NOT IN (SELECT contact_id FROM deliveries)
"""
