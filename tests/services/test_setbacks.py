"""A clock that is set back by hours while an emailer is being sent."""

from datetime import timedelta

from mcs.services import due
from mcs.services.deliveries import Step, advance
from mcs.services.slice_claims import release
from mcs.services.steps import Outcome
from tests.services.conftest import LEASE, Scene

BACK = -timedelta(hours=3)


def tick(scene: Scene) -> None:
    due.tick(scene.session, scene.now, scene.queue, "hold")


def test_what_nobody_has_tried_need_not_wait_until_the_clock_is_there_again(scene: Scene) -> None:
    scene.add_many(300)
    scene.start()
    scene.passed = BACK
    scene.deliver_due()
    assert scene.counted() == {"pending": 300}
    tick(scene)
    scene.deliver_due()
    assert scene.counted() == {"sent": 300}
    assert scene.emailer.state == "sent"


def test_who_was_put_off_waits_for_the_moment_that_was_set(scene: Scene) -> None:
    scene.add("Ann", "Bob")
    scene.start()
    claim, (ann, _bob) = scene.claim()
    put_off = Outcome(ann.id, "pending", scene.now, due_at=scene.now + timedelta(minutes=5))
    advance(scene.session, scene.now, LEASE, [Step(claim, refusals=[put_off])])
    release(scene.session, scene.now, claim, None)
    scene.passed = BACK
    for _ in range(2):
        tick(scene)
        scene.deliver_due()
        assert scene.states() == {"Ann": "pending", "Bob": "sent"}
    scene.passed = timedelta(minutes=5)
    scene.deliver_due()
    assert scene.states() == {"Ann": "sent", "Bob": "sent"}
