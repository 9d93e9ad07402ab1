"""The lane's turns: when it goes on and when it ends, what it claims, and whose letter is next."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise
from threading import Event
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways import smtp
from mcs.gateways.jobqueue import JOBS
from mcs.models import Campaign, Delivery, Emailer, Slice
from mcs.services import emailers, feeds, lane, pacer, parents, slice_claims
from mcs.services.transactions import writing
from tests.conftest import wait_until
from tests.people import add_campaign, add_contact, add_scenario
from tests.services.conftest import Scene

A_TURN = lane.TURN + timedelta(seconds=1)


@dataclass
class Turn:
    """Ann and nine others, and a turn that ends while the server thinks of Ann."""

    scene: Scene
    answers: Event = field(default_factory=Event)

    def play(
        self,
        others_wait: bool,
        goes_by: timedelta,
        meanwhile: Callable[[str], None] = lambda recipient: None,
        connections: int = 1,
    ) -> None:
        scene, asked = self.scene, Event()

        def ask() -> bool:
            asked.set()
            self.answers.wait(10)
            return others_wait

        def think(recipient: str) -> str:
            meanwhile(recipient)
            if recipient.startswith("ann"):
                scene.passed = goes_by
                assert asked.wait(10)
            return ""

        scene.mailbox.at_dot = think
        scene.given = replace(scene.given, others_wait=ask)
        scene.set(smtp_connections=connections)
        scene.add("Ann")
        scene.add_many(9)
        scene.start()
        scene.deliver()


@pytest.fixture
def turn(scene: Scene) -> Turn:
    story = Turn(scene)
    story.answers.set()
    return story


@dataclass
class Door:
    """The mail server's: when the lane knocked, and what happens each time it does."""

    knocks: list[timedelta] = field(default_factory=list)
    at_knock: Callable[[int], None] = lambda number: None


@pytest.fixture
def door(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Door:
    door, connect = Door(), smtp.connect

    async def knock(server: smtp.Server) -> smtp.Connection:
        door.knocks.append(scene.passed)
        door.at_knock(len(door.knocks))
        return await connect(server)

    monkeypatch.setattr(smtp, "connect", knock)
    return door


@pytest.fixture
def sent_once_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each slice is sent before the look that claimed it goes on."""
    claim = lane.Lane._claim

    async def claim_and_see_it_sent(self: lane.Lane, *asked: Any) -> feeds.Feed | None:
        feed = await claim(self, *asked)
        while feed is not None and not feed.done and self._talks:
            await asyncio.sleep(0.01)
        return feed

    monkeypatch.setattr(lane.Lane, "_claim", claim_and_see_it_sent)


def at_each_claim(
    monkeypatch: pytest.MonkeyPatch, note: Callable[[slice_claims.Claim], None]
) -> None:
    """Note each slice that a lane claims, right after it did."""
    claim = slice_claims.claim

    def noted(*asked: Any) -> slice_claims.Claim | None:
        found = claim(*asked)
        if found is not None:
            note(found)
        return found

    monkeypatch.setattr(slice_claims, "claim", noted)


def test_at_the_end_of_its_turn_a_lane_goes_on_if_nobody_else_waits(
    scene: Scene, turn: Turn
) -> None:
    turn.play(others_wait=False, goes_by=A_TURN)
    assert scene.counted() == {"sent": 10}


def test_at_the_end_of_its_turn_a_lane_gives_way_to_other_jobs(scene: Scene, turn: Turn) -> None:
    turn.play(others_wait=True, goes_by=A_TURN)
    counts = scene.counted()
    assert counts == {"sent": 10 - counts["pending"], "pending": counts["pending"]}
    assert scene.session.scalars(select(Slice.claim_token)).all() == [None]


def test_a_redis_that_hangs_ends_no_lane(
    scene: Scene, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_at_last(_recipient: str) -> None:
        if len(scene.mailbox.caught) == 9:
            turn.answers.set()

    monkeypatch.setattr(lane, "ASKING_SECONDS", 0.01)
    turn.answers.clear()
    turn.play(others_wait=True, goes_by=A_TURN, meanwhile=answer_at_last)
    assert scene.counted() == {"sent": 10}


def test_a_lane_ends_before_its_worker_takes_it_for_stuck(scene: Scene, turn: Turn) -> None:
    scene.set(lease_seconds=3600)
    turn.play(others_wait=False, goes_by=lane.LONGEST + timedelta(seconds=1))
    assert scene.counted()["pending"]
    assert timedelta(seconds=JOBS["mcs.jobs.deliver_slice"].stuck_after) > lane.LONGEST


def test_what_people_change_meanwhile_counts_from_the_next_turn_on(
    scene: Scene, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_by, anew = feeds.Feed.go_by, Event()

    def noted(feed: feeds.Feed, prepared: feeds.Issue) -> None:
        go_by(feed, prepared)
        anew.set()

    def rename(recipient: str) -> None:
        if recipient.startswith("ann"):
            with scene.given.sessions() as other:
                other.get_one(Campaign, scene.campaign.id).from_name = "Ada's New Shop"
                other.commit()
        else:
            assert anew.wait(10)

    monkeypatch.setattr(feeds.Feed, "go_by", noted)
    turn.play(others_wait=False, goes_by=A_TURN, meanwhile=rename)
    assert scene.counted() == {"sent": 10}
    caught = scene.mailbox.caught
    assert "New Shop" not in str(caught[0].message["From"])
    assert "New Shop" in str(caught[-1].message["From"])


def test_who_waited_for_a_rate_that_is_taken_away_waits_no_longer(scene: Scene) -> None:
    def take_the_rate_away() -> None:
        wait_until(lambda: "sent" in scene.states().values())
        scene.campaign.send_rate = None
        scene.session.commit()
        scene.passed = A_TURN

    scene.campaign.send_rate = 0.01
    scene.add_many(5)
    scene.start()
    with ThreadPoolExecutor(1) as person:
        doing = person.submit(take_the_rate_away)
        scene.deliver_due(seconds=10)
        doing.result()
    assert scene.counted() == {"sent": 5}


def at_once(scene: Scene) -> None:
    """By a clock that runs, and a lane that looks at each chance."""
    begun = monotonic()
    scene.patch.setattr(lane, "LOOK_SECONDS", 0)
    scene.given = replace(
        scene.given, now=lambda: scene.begins + timedelta(seconds=monotonic() - begun)
    )


@pytest.mark.parametrize("rate", [None, 0.02, 100])
def test_a_changed_rate_counts_long_before_the_turn_ends(scene: Scene, rate: float | None) -> None:
    """Also for who waits for a slot of the rate that was: Bob's was a hundred seconds ahead."""
    at_once(scene)
    kept: list[object] = []
    keep_to = feeds.Feed.keep_to

    def noted(feed: feeds.Feed, limits: Any) -> None:
        keep_to(feed, limits)
        kept.append(limits)

    def change_the_rate() -> None:
        wait_until(lambda: "sent" in scene.states().values())
        with writing(scene.session):
            scene.campaign.send_rate = rate

    def over() -> bool:
        return bool(kept) if rate == 0.02 else False

    scene.patch.setattr(feeds.Feed, "keep_to", noted)
    scene.campaign.send_rate = 0.01
    scene.add("Ann", "Bob", "Cleo", "Dora", "Ed")
    scene.start()
    with ThreadPoolExecutor(1) as person:
        doing = person.submit(change_the_rate)
        scene.deliver_due(until=over, seconds=10)
        doing.result()
    # Fifty seconds at the new rate are still to come.
    assert scene.counted() == ({"sent": 1, "pending": 4} if rate == 0.02 else {"sent": 5})
    assert kept == [tuple(pacer.Limit(f"campaign-{scene.campaign.id}", it) for it in [rate] if it)]


def test_a_sequence_heeds_a_changed_rate_too(scene: Scene) -> None:
    sequence = slice_claims.Parent(None, scene.scenario.id, scene.campaign.id)
    for rate in (None, 5.0):
        scene.campaign.send_rate = rate
        scene.session.commit()
        seen = parents.look(scene.session, [sequence])
        assert seen == {sequence: parents.Seen("", scene.campaign.id, rate)}
    scene.campaign.held_at = scene.now
    scene.session.commit()
    assert parents.look(scene.session, [sequence]) == {}


def notice(scene: Scene) -> str:
    with scene.given.sessions() as other:
        return other.get_one(Emailer, scene.emailer_id).notice


def test_the_notice_vanishes_as_soon_as_the_server_takes_letters_again(scene: Scene) -> None:
    """Not when a slice is given back, which may take minutes. What another worker that has no luck
    says meanwhile goes, too."""

    def look_at_the_page(recipient: str) -> str:
        if recipient.startswith("p3@"):
            wait_until(lambda: not notice(scene))
            with scene.given.sessions() as other:
                emailers.note(other, scene.emailer_id, "too many connections")
        elif recipient.startswith("p6@"):
            wait_until(lambda: not notice(scene))
        return ""

    at_once(scene)
    scene.mailbox.at_dot = look_at_the_page
    scene.set(smtp_connections=1)
    scene.add_many(10)
    scene.start()
    emailers.note(scene.session, scene.emailer_id, "The mail server cannot be reached")
    scene.deliver_due()
    assert scene.counted() == {"sent": 10}


def test_a_notice_stays_until_a_lane_knows_better(scene: Scene, door: Door) -> None:
    def look_and_refuse(_number: int) -> None:
        said.append(notice(scene))
        raise smtp.Unreachable("no route")

    said: list[str] = []
    at_once(scene)
    scene.add("Ann")
    scene.start()
    emailers.note(scene.session, scene.emailer_id, "The mail server cannot be reached")
    door.at_knock = look_and_refuse
    scene.deliver_due()
    assert said == ["The mail server cannot be reached"]
    assert notice(scene).endswith("trying again: no route")


def test_the_notice_appears_while_the_lane_goes_on_and_once(scene: Scene, door: Door) -> None:
    """The server hangs at Ann's message and takes no other connection; another worker, which is
    well, takes the notice back."""
    writes: list[str] = []
    note = parents.note

    def noted(session: Session, parent: slice_claims.Parent, notice: str) -> None:
        note(session, parent, notice)
        writes.append(notice)

    def refuse_the_second(number: int) -> None:
        if number == 2:
            raise smtp.Unreachable("no route")

    def look_at_the_page(recipient: str) -> str:
        if recipient.startswith("ann"):
            wait_until(lambda: "cannot be reached" in notice(scene))
            emailers.note(scene.session, scene.emailer_id, "")
            looks = len(looked)
            wait_until(lambda: len(looked) > looks + 2)
            assert notice(scene) == ""
        return ""

    def counted(*given: Any, **named: Any) -> dict[slice_claims.Parent, parents.Seen]:
        looked.append(None)
        return look(*given, **named)

    looked: list[None] = []
    look = parents.look
    scene.patch.setattr(parents, "look", counted)
    scene.patch.setattr(parents, "note", noted)
    at_once(scene)
    door.at_knock = refuse_the_second
    scene.mailbox.at_dot = look_at_the_page
    scene.set(smtp_connections=2)
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    scene.deliver_due()
    assert scene.counted() == {"sent": 3}
    assert [bool(notice) for notice in writes] == [True, False]


def test_a_connection_that_the_server_did_not_want_is_tried_again_the_next_turn(
    scene: Scene, turn: Turn, door: Door
) -> None:
    def refuse_the_second(number: int) -> None:
        if number == 2:
            raise smtp.Unreachable("too many connections")

    def wait_for_the_second(recipient: str) -> None:
        wait_until(lambda: len(door.knocks) > (1 if recipient.startswith("ann") else 2))

    door.at_knock = refuse_the_second
    turn.play(False, A_TURN, meanwhile=wait_for_the_second, connections=2)
    assert scene.counted() == {"sent": 10}
    assert len(door.knocks) == 3


def test_a_connection_that_was_refused_late_in_a_turn_is_left_alone_at_its_end(
    scene: Scene, door: Door
) -> None:
    """A server that wants no more has AWAY to recover: until the end of the turn after it."""
    refused = Event()
    looks: list[timedelta] = []

    def refuse_the_second(number: int) -> None:
        if number == 2:
            scene.passed = A_TURN - lane.AWAY / 2
            refused.set()
            raise smtp.Unreachable("too many connections")

    def end_turn() -> bool:
        looks.clear()
        return False

    def see_a_turn_end_at(moment: timedelta) -> None:
        scene.passed = moment
        # By the third look after it has knocked who was to knock because of it.
        wait_until(lambda: looks[:3] == [moment] * 3)

    def think(recipient: str) -> str:
        if recipient.startswith("ann"):
            assert refused.wait(10)
            see_a_turn_end_at(A_TURN)
        elif recipient.startswith("bob"):
            see_a_turn_end_at(2 * A_TURN)
        return ""

    door.at_knock = refuse_the_second
    scene.mailbox.at_dot = think
    scene.given = replace(
        scene.given,
        others_wait=end_turn,
        start_due=lambda session: looks.append(scene.passed),
    )
    scene.set(smtp_connections=2)
    scene.add("Ann", "Bob", "Cleo", "Dora", "Ed")
    scene.start()
    scene.deliver_due()
    assert scene.counted() == {"sent": 5}
    assert door.knocks == [timedelta(), timedelta(), 2 * A_TURN]


def test_a_lane_that_began_with_one_letter_opens_more_connections_for_more(
    scene: Scene, door: Door
) -> None:
    scene.set(smtp_connections=3)
    scene.slices_of(90)
    scene.add_many(181)
    scene.start()
    *_full, last = scene.slice_ids()
    lane.deliver(scene.given, last)
    assert scene.counted() == {"sent": 181}
    # How many more depends on how fast a busy machine connects.
    assert len(door.knocks) > 1


def test_a_ring_for_what_was_served_long_ago_serves_what_is_due(scene: Scene) -> None:
    """Else fifty of them, that a lane left behind, keep a worker from the slices for seconds."""
    scene.add("Ann")
    scene.start()
    scene.deliver_due()
    assert scene.counted() == {"sent": 1}


def test_an_emailer_does_not_run_dry_beside_one_that_waits_for_its_rate(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def think_of_the_last_but_one(recipient: str) -> str:
        if recipient.startswith("p3@"):
            wait_until(lambda: len(scene.claimed()) == 3)
        return ""

    monkeypatch.setattr(lane, "LETTERS_AHEAD", 2)
    scene.mailbox.at_dot = think_of_the_last_but_one
    scene.set(smtp_connections=1)
    scene.slices_of(5)
    add_slow_campaign(scene.session, "Ann", "Bob", "Cleo", "Dora")
    scene.add_many(15)
    scene.start_all()
    scene.deliver_due(until=lambda: len(scene.mailbox.caught) == 16)
    assert len(scene.mailbox.caught) == 16


def add_slow_campaign(session: Session, *names: str) -> None:
    """The first of them gets its message at once, and the next a hundred seconds later."""
    slow = add_campaign(session, uid="slow", send_rate=0.01)
    add_scenario(session, slow)
    for name in names:
        add_contact(session, slow, name)


def test_one_of_many_small_slices_leaves_room_for_the_others(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the steps of a sequence that was held for a day have, and all of them older."""
    scene.add_many(30)
    add_scenario(scene.session, scene.campaign, name="Another")
    many, other = scene.plan()
    for emailer_id, size in ((many, 1), (other, 10)):
        scene.slices_of(size)
        scene.send(emailer_id)
    claimed: list[int | None] = []
    at_each_claim(monkeypatch, lambda claim: claimed.append(claim.parent.emailer_id))

    scene.deliver_due()
    assert claimed[:6] == [many, other] * 3
    assert scene.counted(many) == scene.counted(other) == {"sent": 30}


@pytest.mark.usefixtures("sent_once_claimed")
def test_a_lane_does_not_end_while_there_is_more_to_claim(scene: Scene) -> None:
    """Though all that one look may claim is sent before the look is over."""
    scene.slices_of(1)
    scene.add_many(lane.CLAIMS_AT_ONCE + 5)
    scene.start()
    scene.deliver_due()
    assert scene.counted() == {"sent": lane.CLAIMS_AT_ONCE + 5}


@pytest.mark.usefixtures("sent_once_claimed")
def test_a_lane_that_holds_all_it_may_takes_more_once_it_gave_some_back(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it end before, though all that it holds is sent by the end of its look."""
    held: list[int] = []
    at_each_claim(monkeypatch, lambda claim: held.append(len(scene.claimed())))
    monkeypatch.setattr(lane, "MOST_FEEDS", 3)
    scene.slices_of(1)
    scene.add_many(10)
    scene.start()
    scene.deliver_due()
    assert scene.counted() == {"sent": 10}
    assert len(held) == 10
    assert max(held) == 3


def test_a_lane_that_holds_all_it_may_still_takes_the_first_slice_of_another_emailer(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else Bob, who waits for a slot of his campaign's rate, keeps Cleo waiting too."""
    monkeypatch.setattr(lane, "MOST_FEEDS", 1)
    scene.slices_of(1)
    scene.campaign.send_rate = 0.01
    scene.add("Ann", "Bob")
    scene.start()
    other = add_campaign(scene.session)
    add_scenario(scene.session, other)
    add_contact(scene.session, other, "Cleo")
    (late,) = scene.plan()
    claimed: list[slice_claims.Claim] = []

    def start_the_other_once_bob_is_claimed(_session: Session) -> None:
        if len(claimed) == 2:
            scene.send(late)

    at_each_claim(monkeypatch, claimed.append)
    scene.given = replace(scene.given, start_due=start_the_other_once_bob_is_claimed)
    scene.deliver_due(until=lambda: len(scene.mailbox.caught) == 2, seconds=10)
    assert scene.mailbox.recipients == ["ann@people.example", "cleo@people.example"]


def test_what_takes_long_to_start_holds_up_nobody_else(scene: Scene) -> None:
    """A million deliveries are written for 20 s, by a worker that has others in its hands."""
    scene.slices_of(1)
    scene.add("Ann", "Bob", "Cleo")
    scene.start()
    other = add_campaign(scene.session)
    add_scenario(scene.session, other)
    add_contact(scene.session, other, "Dora")
    started = scene.plan()

    def take_long(_session: Session) -> None:
        while started:
            wait_until(lambda: scene.progress().sent == 3)
            scene.send(started.pop())

    scene.given = replace(scene.given, start_due=take_long)
    scene.set(smtp_connections=1)
    scene.deliver_due()
    assert scene.mailbox.recipients == [
        f"{name}@people.example" for name in ("ann", "bob", "cleo", "dora")
    ]


def test_emailers_take_turns_by_the_letter_and_the_slices_of_one_by_the_slice(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    unclaimed = select(Slice.id).where(Slice.claim_token.is_(None), Slice.pending > 0)

    def all_are_claimed() -> bool:
        with scene.given.sessions() as other:
            return not other.scalars(unclaimed).all()

    def think_until_all_are_claimed(_recipient: str) -> str:
        wait_until(all_are_claimed)
        scene.mailbox.at_dot = lambda recipient: ""
        return ""

    monkeypatch.setattr(lane, "LETTERS_AHEAD", 40)
    scene.mailbox.at_dot = think_until_all_are_claimed
    scene.set(smtp_connections=1)
    scene.slices_of(5)
    scene.add_many(20)
    add_scenario(scene.session, scene.campaign, name="Another")
    scene.start_all()
    scene.deliver_due()

    deliveries_of = {each.message_id: each for each in scene.session.scalars(select(Delivery))}
    sent = [deliveries_of[caught.delivery] for caught in scene.mailbox.caught]
    assert len(sent) == 40
    # Two were taken before the other emailer was there.
    middle = [delivery.emailer_id for delivery in sent[2:38]]
    assert all(one != other for one, other in pairwise(middle))
    for emailer_id in set(middle):
        ids = [delivery.id for delivery in sent if delivery.emailer_id == emailer_id]
        assert ids == sorted(ids)
