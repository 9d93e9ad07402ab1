"""What dead and frozen workers left: taken over once, and heeded where they hear of it late."""

import pytest
from sqlalchemy import select

from mcs.models import Scenario
from mcs.services import due, emailers, rescues, slice_claims, suppressions
from mcs.services.deliveries import Step, advance
from mcs.services.slice_claims import Claim, Due
from mcs.services.steps import Outcome
from tests.services.conftest import LEASE, Scene


@pytest.fixture
def in_flight(scene: Scene) -> tuple[Claim, Due]:
    """Ann's message is on its way."""
    scene.add("Ann")
    scene.start()
    claim, (ann,) = scene.claim()
    advance(scene.session, scene.now, LEASE, [Step(claim, starts=[ann.id])])
    return claim, ann


def accepted(due: Due, scene: Scene) -> Outcome:
    return Outcome(due.id, "sent", scene.now, reply_code=250)


@pytest.mark.parametrize("why", ["unsubscribed", "cancelled"])
def test_what_may_have_arrived_is_in_doubt_though_nobody_wants_it_to_go_again(
    scene: Scene, in_flight: tuple[Claim, Due], why: str
) -> None:
    """It must not be resent; but to call it skipped would say that she did not get it."""
    claim, ann = in_flight
    if why == "cancelled":
        emailers.cancel(scene.session, scene.now, scene.emailer_id)
    else:
        suppressions.suppress(scene.session, scene.now, ann.email_key, why)
    scene.passed = LEASE * 2
    rescues.rescue(scene.session, scene.now, "resend")
    assert scene.counted() == {"in_doubt": 1}
    rescues.settle_late(scene.session, scene.now, claim, [accepted(ann, scene)])
    assert scene.counted() == {"sent": 1}


def test_who_unsubscribes_in_flight_does_not_go_again(
    scene: Scene, in_flight: tuple[Claim, Due]
) -> None:
    claim, ann = in_flight
    suppressions.suppress(scene.session, scene.now, ann.email_key, "unsubscribed")
    put_off = Outcome(ann.id, "pending", scene.now, "later", 450, due_at=scene.now + LEASE)
    advance(scene.session, scene.now, LEASE, [Step(claim, outcomes=[put_off])])
    assert scene.counted() == {"skipped": 1}


def test_a_late_acceptance_is_counted_though_the_emailer_is_over(
    scene: Scene, in_flight: tuple[Claim, Due]
) -> None:
    claim, ann = in_flight
    scene.passed = LEASE * 2
    due.tick(scene.session, scene.now, scene.queue, "hold")
    assert (scene.counted(), scene.emailer.state) == ({"in_doubt": 1}, "sent")
    rescues.settle_late(scene.session, scene.now, claim, [accepted(ann, scene)])
    assert scene.session.scalars(select(Scenario.contacts_served)).one() == 1


def test_who_lost_its_slice_does_not_give_back_another_s(scene: Scene) -> None:
    scene.add("Ann")
    scene.start()
    old, _ = scene.claim()
    scene.passed = LEASE * 2
    rescues.rescue(scene.session, scene.now, "hold")
    new, _ = scene.claim()
    slice_claims.release(scene.session, scene.now, old, None)
    assert scene.claimed() == [new.slice_id]


def test_a_rescue_that_looked_before_another_leaves_the_new_claim(scene: Scene) -> None:
    """Two clocks: one has rescued, a worker has claimed anew, and the other looked before."""
    scene.add("Ann")
    scene.start()
    scene.claim()
    scene.passed = LEASE * 2
    looked = rescues._expired(scene.session, scene.now)
    scene.session.rollback()
    rescues.rescue(scene.session, scene.now, "hold")
    new, (ann,) = scene.claim()
    advance(scene.session, scene.now, LEASE, [Step(new, starts=[ann.id])])
    scene.patch.setattr(rescues, "_expired", lambda *_: looked)
    assert rescues.rescue(scene.session, scene.now, "hold") == set()
    assert scene.counted() == {"sending": 1}


def test_a_lane_that_hears_the_answer_after_its_lease_settles_the_doubt(scene: Scene) -> None:
    scene.add("Ann", "Bob")
    scene.set(smtp_connections=1)
    scene.start()

    async def think(_recipient: str) -> None:
        """The clock takes over what the lane held, as if it were dead."""
        if not scene.passed:
            scene.passed = LEASE * 2
            with scene.given.sessions() as session:
                rescues.rescue(session, scene.now, "hold")

    scene.mailbox.thinks = think
    scene.deliver_due()
    assert scene.states() == {"Ann": "sent", "Bob": "sent"}, "he by a claim anew"
    assert scene.mailbox.recipients == ["ann@people.example", "bob@people.example"]
