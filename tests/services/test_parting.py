"""Workers that are done take a share of what others hold; the ledger stays right for both."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from mcs.models import Delivery, Emailer, Slice
from mcs.services import (
    deliveries,
    emailers,
    lane,
    parting,
    rescues,
    slice_claims,
    snapshots,
    suppressions,
)
from mcs.services.deliveries import Standing, Step
from mcs.services.slice_claims import Claim, Due
from mcs.services.steps import Outcome
from mcs.services.writers import is_plain, open_writer
from tests.mail import free_port
from tests.services.conftest import LEASE, Scene

COUNTS = ("pending", "sending", "sent", "failed", "in_doubt", "skipped")


def take(scene: Scene, *mine: int, have: int = 0, least: int = 1) -> Claim | None:
    with scene.given.sessions() as other:
        return parting.take_share(other, scene.now, LEASE, mine, have, least)


def advance(scene: Scene, step: Step) -> Standing:
    return deliveries.advance(scene.session, scene.now, LEASE, [step])[step]


def slices(scene: Scene) -> list[dict[str, int]]:
    """Each slice's counts, which are those of the deliveries in its range."""
    scene.counted()
    found = []
    for one in scene.session.scalars(select(Slice).order_by(Slice.low_id)):
        its_own = Delivery.id.between(one.low_id, one.high_id)
        ledger = select(Delivery.state, func.count()).where(its_own).group_by(Delivery.state)
        counts = {state: getattr(one, state) for state in COUNTS if getattr(one, state)}
        assert counts == dict(scene.session.execute(ledger).all())
        found.append(counts)
    return found


@pytest.fixture
def held(scene: Scene) -> tuple[Claim, list[Due]]:
    """Ten people, whom a worker has claimed."""
    scene.add_many(10)
    scene.start()
    return scene.claim()


def accepted(due: Due, scene: Scene) -> Outcome:
    return Outcome(due.id, "sent", scene.now, reply_code=250)


@pytest.mark.parametrize(("have", "share"), [(0, 5), (1, 4), (2, 4), (3, 3), (8, 1)])
def test_both_have_as_much_left(
    scene: Scene, held: tuple[Claim, list[Due]], have: int, share: int
) -> None:
    taken = take(scene, have=have)
    assert taken is not None
    assert slices(scene) == [{"pending": 10 - share}, {"pending": share}]


def test_both_go_on_with_their_own(scene: Scene, held: tuple[Claim, list[Due]]) -> None:
    claim, people = held
    advance(scene, Step(claim, starts=[people[0].id]))
    taken = take(scene, have=1)
    assert taken is not None
    assert (taken.low_id, taken.high_id) == (people[6].id, people[9].id)
    assert slices(scene) == [{"sending": 1, "pending": 5}, {"pending": 4}]
    assert slice_claims.load(scene.session, scene.now, taken) == people[6:]

    # Each goes on with its own, and gives it back when it is done.
    advance(scene, Step(taken, starts=[people[6].id]))
    advance(scene, Step(claim, outcomes=[accepted(people[0], scene)], starts=[people[5].id]))
    advance(scene, Step(taken, outcomes=[accepted(people[6], scene)]))
    assert slices(scene) == [{"sent": 1, "sending": 1, "pending": 4}, {"sent": 1, "pending": 3}]
    slice_claims.release(scene.session, scene.now, taken, None)
    assert scene.claim()[0].slice_id == taken.slice_id


@pytest.mark.parametrize("writer", ["session", "plain"])
def test_what_was_taken_does_not_start_and_its_holder_hears_of_it(
    scene: Scene, held: tuple[Claim, list[Due]], writer: str
) -> None:
    claim, people = held
    assert take(scene) is not None
    step = Step(claim, starts=[one.id for one in people])
    assert is_plain(step)
    if writer == "session":
        standing = advance(scene, step)
    else:
        standing = asyncio.run(written(scene, step))
    assert standing == Standing({one.id for one in people[:5]}, people[4].id)
    assert slices(scene) == [{"sending": 5}, {"pending": 5}]


async def written(scene: Scene, step: Step) -> Standing:
    writer = open_writer(scene.session.get_bind().engine)
    try:
        standings = await writer.advance(scene.now, scene.now + LEASE, [step])
    finally:
        writer.close()
    return standings[step]


def test_a_commit_that_waits_for_one_who_takes_starts_nothing_of_it(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    """PostgreSQL takes a statement's snapshot before it waits for a lock."""
    claim, people = held
    step = Step(claim, starts=[people[0].id, people[9].id])
    answer: list[Standing] = []
    waiting = threading.Thread(target=lambda: answer.append(asyncio.run(written(scene, step))))

    def meanwhile(
        session: Session, now: datetime, lease: timedelta, held: Slice, from_id: int
    ) -> Claim:
        waiting.start()
        waiting.join(0.3)
        assert not answer
        return parted(session, now, lease, held, from_id)

    parted = parting._parted
    scene.patch.setattr(parting, "_parted", meanwhile)
    assert take(scene) is not None
    waiting.join()
    assert answer == [Standing({people[0].id}, people[4].id)]
    assert slices(scene) == [{"sending": 1, "pending": 4}, {"pending": 5}]


def test_what_is_not_taken(scene: Scene, held: tuple[Claim, list[Due]]) -> None:
    claim, people = held
    assert take(scene, claim.slice_id) is None, "one's own"
    assert take(scene, have=9) is None, "no share as large as wanted"
    assert take(scene, least=6) is None, "no share as large as wanted"
    scene.passed = LEASE + timedelta(seconds=1)
    assert take(scene) is None, "what nobody holds any more: it is rescued first"
    scene.passed = timedelta()

    of_an_older_release = update(Slice).values(claim_token="c2VjcmV0")
    scene.session.execute(of_an_older_release)
    scene.session.commit()
    assert take(scene) is None, "its holder would not hear of it"
    scene.session.execute(update(Slice).values(claim_token=claim.token))
    scene.session.commit()

    # Nine were put off; by now they are due again, but nobody of this worker knows them.
    put_off = [
        Outcome(one.id, "pending", scene.now, due_at=scene.now + timedelta(seconds=20))
        for one in people[:9]
    ]
    advance(scene, Step(claim, refusals=put_off, starts=[people[9].id]))
    assert take(scene) is None, "none is due"
    scene.passed = timedelta(seconds=20)
    assert take(scene) is None, "who is in flight would be counted elsewhere"
    advance(scene, Step(claim, outcomes=[accepted(people[9], scene)]))

    emailers.pause(scene.session, scene.now, scene.emailer_id)
    assert take(scene) is None, "paused"
    emailers.resume(scene.session, scene.now, scene.queue, scene.emailer_id, LEASE)
    assert take(scene) is not None
    assert slices(scene) == [{"pending": 5}, {"pending": 4, "sent": 1}]


@pytest.mark.parametrize("started", [True, False])
def test_a_commit_that_was_cut_off_does_not_claim_what_another_has(
    scene: Scene, held: tuple[Claim, list[Due]], started: bool
) -> None:
    """It did not happen; before it is tried again, another worker has taken whom it was to start,
    and may have started them: they are not to be written to twice."""
    claim, people = held
    taken = take(scene)
    assert taken is not None
    if started:
        advance(scene, Step(taken, starts=[people[9].id]))
    again = Step(claim, starts=[people[0].id, people[9].id])
    for _ in range(2):
        standings = deliveries.advance(scene.session, scene.now, LEASE, [again], again=True)
        assert standings[again].started == {people[0].id}
    theirs = {"sending": 1, "pending": 4} if started else {"pending": 5}
    assert slices(scene) == [{"sending": 1, "pending": 4}, theirs]


def test_who_gives_back_before_it_heard_gives_back_its_own(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    claim, people = held
    later = scene.now + timedelta(minutes=5)
    put_off = [Outcome(one.id, "pending", scene.now, due_at=later) for one in people[:3]]
    advance(scene, Step(claim, refusals=put_off))
    answers = [accepted(one, scene) for one in people[3:5]]
    advance(scene, Step(claim, starts=[answer.delivery_id for answer in answers]))
    advance(scene, Step(claim, outcomes=answers))
    taken = take(scene, least=2)
    assert taken is not None
    advance(scene, Step(claim, starts=[one.id for one in people[5:8]]))
    advance(scene, Step(claim, outcomes=[accepted(one, scene) for one in people[5:8]]))
    slice_claims.release(scene.session, scene.now, claim, None)
    assert slices(scene) == [{"pending": 3, "sent": 5}, {"pending": 2}]
    due_at = select(Slice.due_at).where(Slice.id == claim.slice_id)
    assert scene.session.scalars(due_at).one() == later


def test_the_dead_and_the_living_keep_their_own(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    """Who had claimed the ten dies; who took five lives, and nobody doubts what it sends."""
    claim, people = held
    taken = take(scene)
    assert taken is not None
    scene.passed = timedelta(seconds=30)
    advance(scene, Step(taken, starts=[people[5].id]))
    scene.passed = LEASE + timedelta(seconds=1)
    assert rescues.rescue(scene.session, scene.now, "hold") == {claim.parent}
    assert slices(scene) == [{"pending": 5}, {"sending": 1, "pending": 4}]
    assert scene.claim()[1] == people[:5]


def test_a_rescue_that_looked_before_leaves_what_was_taken_meanwhile(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    """At the very end of a lease, by two clocks."""
    claim, people = held
    looked = rescues._expired

    def look_and_wait(session: Session, now: datetime) -> Sequence[Any]:
        found = looked(session, now)
        scene.passed = LEASE - timedelta(milliseconds=1)
        taken = take(scene)
        assert taken is not None
        advance(scene, Step(taken, starts=[people[9].id]))
        return found

    scene.patch.setattr(rescues, "_expired", look_and_wait)
    advance(scene, Step(claim, starts=[people[0].id]))
    a_moment_later = scene.begins + LEASE + timedelta(milliseconds=1)
    assert rescues.rescue(scene.session, a_moment_later, "hold") == {claim.parent}
    assert slices(scene) == [{"in_doubt": 1, "pending": 5}, {"sending": 1, "pending": 3}]


def test_a_late_acceptance_counts_where_the_delivery_is_now(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    frozen, people = held
    advance(scene, Step(frozen, starts=[people[9].id]))
    scene.passed = LEASE + timedelta(seconds=1)
    rescues.rescue(scene.session, scene.now, "hold")
    scene.claim()
    assert take(scene) is not None
    assert slices(scene) == [{"pending": 5}, {"pending": 4, "in_doubt": 1}]
    rescues.settle_late(scene.session, scene.now, frozen, [accepted(people[9], scene)])
    assert slices(scene) == [{"pending": 5}, {"pending": 4, "sent": 1}]


def test_who_unsubscribes_is_skipped_on_either_side(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    _claim, people = held
    assert take(scene) is not None
    for one in (people[0], people[9]):
        suppressions.suppress(scene.session, scene.now, one.email_key, suppressions.UNSUBSCRIBED)
    assert slices(scene) == [{"skipped": 1, "pending": 4}, {"skipped": 1, "pending": 4}]
    emailers.cancel(scene.session, scene.now, scene.emailer_id)
    assert slices(scene) == [{"skipped": 5}, {"skipped": 5}]


def test_the_fullest_that_waits_does_not_hide_the_next(scene: Scene) -> None:
    scene.slices_of(10)
    scene.patch.setattr(snapshots, "SMALLEST_SLICE", 10)
    scene.add_many(19)
    scene.start()
    first, people = scene.claim()
    second, _others = scene.claim()
    later = scene.now + timedelta(minutes=5)
    put_off = [Outcome(one.id, "pending", scene.now, due_at=later) for one in people]
    advance(scene, Step(first, refusals=put_off))
    taken = take(scene)
    assert taken is not None
    assert second.low_id < taken.low_id <= taken.high_id == second.high_id


def test_no_share_of_what_a_rate_holds_back(scene: Scene, held: tuple[Claim, list[Due]]) -> None:
    scene.campaign.send_rate = 1
    scene.session.commit()
    assert take(scene) is None


def test_who_pauses_does_not_wait_for_one_who_would_take_from_the_frozen(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    """PostgreSQL only: a worker that froze in the middle of a commit holds its slice's row."""
    if scene.session.get_bind().dialect.name != "postgresql":
        pytest.skip("elsewhere the whole database is held")
    claim, _people = held
    with scene.given.sessions() as frozen, scene.given.sessions() as impatient:
        frozen.execute(select(Slice.id).where(Slice.id == claim.slice_id).with_for_update())
        assert parting.take_share(impatient, scene.now, LEASE, [], 0, 1) is None
        emailers.pause(impatient, scene.now, scene.emailer_id)


def test_who_parts_waits_for_who_counts_in_the_slices_and_they_for_him(
    scene: Scene, held: tuple[Claim, list[Due]]
) -> None:
    """PostgreSQL only. The lock that they share is the emailer's: who looked for the slice of a
    delivery must not count in it when that delivery is another slice's by then."""
    if scene.session.get_bind().dialect.name != "postgresql":
        pytest.skip("elsewhere one at a time writes")
    frozen, people = held
    advance(scene, Step(frozen, starts=[people[0].id]))
    scene.passed = LEASE + timedelta(seconds=1)
    rescues.rescue(scene.session, scene.now, "hold")
    scene.claim()
    its_emailer = select(Emailer.id).where(Emailer.id == scene.emailer_id)
    with scene.given.sessions() as counting:
        counting.execute(its_emailer.with_for_update(read=True))
        assert take(scene) is None
    late = [accepted(people[0], scene)]
    with scene.given.sessions() as parts, scene.given.sessions() as hears:
        parts.execute(its_emailer.with_for_update(key_share=True))
        settling = threading.Thread(
            target=rescues.settle_late, args=(hears, scene.now, frozen, late)
        )
        settling.start()
        settling.join(0.3)
        assert settling.is_alive()
        parts.rollback()
        settling.join()
    assert slices(scene) == [{"sent": 1, "pending": 9}]


@pytest.mark.parametrize("connections", [1, 3])
def test_a_second_worker_takes_half_and_everybody_gets_one(scene: Scene, connections: int) -> None:
    """The first has 250 people to write to, and waits at its tenth until the second, which is done
    with its fifty, has taken some of them."""
    held = {f"p{number}@people.example" for number in range(250)}
    served = 0
    helper = threading.Thread(target=lambda: lane.deliver(scene.given, scene.slice_ids()[-1]))

    def answer(recipient: str) -> str:
        nonlocal served
        served += recipient in held
        if served == 5 and not helper.ident:
            helper.start()
        return ""

    async def think(recipient: str) -> None:
        while recipient in held and served == 10 and len(scene.slice_ids()) == 2:
            await asyncio.sleep(0.05)

    scene.mailbox.at_dot, scene.mailbox.thinks = answer, think
    scene.set(smtp_connections=connections)
    scene.add_many(300)
    scene.start()
    lane.deliver(scene.given, scene.slice_ids()[0])
    helper.join()
    assert len(scene.slice_ids()) > 2
    assert scene.claimed() == []
    assert sum(counts["sent"] for counts in slices(scene)) == 300
    assert len(set(scene.mailbox.recipients)) == len(scene.mailbox.recipients) == 300
    assert scene.emailer.state == "sent"
    # None that the server had told "go on" had to be closed because its letter was another's.
    assert len(scene.mailbox.begun) <= 2 * connections


def test_who_cannot_reach_the_server_takes_nothing_from_who_can(scene: Scene) -> None:
    scene.add_many(251)
    scene.start()
    claim, _people = scene.claim()
    nowhere = replace(scene.given.server, port=free_port())
    lane.deliver(replace(scene.given, server=nowhere), scene.slice_ids()[1])
    assert scene.slice_ids() == [claim.slice_id, claim.slice_id + 1]
    assert scene.claimed() == [claim.slice_id]


def test_who_is_held_to_a_rate_takes_nothing(scene: Scene) -> None:
    scene.set(send_rate=1000.0)
    scene.add_many(251)
    scene.start()
    scene.claim()
    lane.deliver(scene.given, scene.slice_ids()[1])
    assert scene.counted() == {"sent": 1, "pending": 250}
    assert len(scene.slice_ids()) == 2
