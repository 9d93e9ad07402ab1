"""The life of sequences as a state machine: enrol, withdraw, edit, switch, run, fail, crash.

Whatever comes after what: no completed action runs again, none is lost, and what is pending is what
the definitions say.
"""

import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from mcs.core import sequences as core
from mcs.core.sequences import Enrolment, Standing
from mcs.library.ground import TABLES
from mcs.models import Action, Base, Campaign, Schedule, configure_engine
from mcs.services import definitions, endings, exchanges, schedules, sequences
from mcs.services.claims import Claimed
from mcs.services.definitions import Step
from mcs.services.endings import Ended
from mcs.services.schedules import Subject
from tests.conftest import MONDAY

LEASE = timedelta(minutes=30)
STEPS = [
    [Step("a", "note", "0days")],
    [Step("a", "note", "1hour"), Step("b", "note", "1day", "10:00", max_attempts=3)],
    [Step("b", "note", "1day", "09:00-12:00"), Step("c", "note", "1h", after="b")],
    [Step("a", "note", "0days"), Step("c", "note", "2h", after="a", on_failure="skip")],
    [Step("a", "note", "0days", repeat="every 12h, 4 times"), Step("d", "note", "1day-3days")],
    [Step("d", "note", "5h", after="a.2", on_failure="go_on"),
     Step("a", "note", "1h", repeat="every 1day, 2 times")],
]  # fmt: skip
names = st.sampled_from(["Jane", "Julie", "Jenny"])


class Life(RuleBasedStateMachine):
    """One campaign, three people, a clock."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = configure_engine(
            create_engine(f"sqlite:///{Path(self.folder.name) / 'life.db'}")
        )
        Base.metadata.create_all(self.engine, tables=TABLES)
        self.session = Session(self.engine)
        self.now = MONDAY
        campaign = Campaign(
            key="c", uid="c", name="c", start_date=MONDAY.date(),
            end_date=MONDAY.date() + timedelta(days=6), timezone="Europe/Berlin", active=True,
            created_at=MONDAY, updated_at=MONDAY,
        )  # fmt: skip
        self.session.add(campaign)
        self.session.commit()
        self.campaign = campaign
        self.held: list[Claimed] = []
        self.completed: Counter[int] = Counter()
        sequences.define(self.session, self.now, campaign.id, STEPS[0])

    def teardown(self) -> None:
        self.session.close()
        self.engine.dispose()
        self.folder.cleanup()

    @rule(name=names, restart=st.booleans())
    def enrol(self, name: str, restart: bool) -> None:
        schedules.enrol(
            self.session, self.now, self.campaign.id, Subject("contact", name), restart=restart
        )

    @rule(name=names)
    def unenrol(self, name: str) -> None:
        schedules.unschedule(self.session, self.now, self.campaign.id, "contact", name)

    @rule(steps=st.sampled_from(STEPS), past=st.sampled_from(core.PAST))
    def edit(self, steps: list[Step], past: str) -> None:
        told = sequences.preview(self.session, self.now, self.campaign.id, steps, past)
        assert told == sequences.define(self.session, self.now, self.campaign.id, steps, past)

    @rule(active=st.booleans())
    def switch(self, active: bool) -> None:
        self.campaign.active = active
        self.session.commit()
        sequences.realign(self.session, self.now, self.campaign.id)

    @rule(hours=st.integers(0, 30))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)
        endings.rescue(self.session, self.now)

    @rule(room=st.integers(1, 5))
    def claim(self, room: int) -> None:
        self.held += self._turn([], room)

    @precondition(lambda self: self.held)
    @rule(fails=st.booleans())
    def end(self, fails: bool) -> None:
        one = self.held.pop(0)
        before = self._state(one.id)
        self._turn([Ended(one, error="no" if fails else None)], 0)
        if before != "completed" and self._state(one.id) == "completed":
            self.completed[one.id] += 1

    @precondition(lambda self: self.held)
    @rule()
    def crash(self) -> None:
        self.held.clear()

    def _turn(self, ended: list[Ended], room: int) -> list[Claimed]:
        claimed = exchanges.exchange(
            self.session, self.now, ended, lease=LEASE, room=room, die=0.5, callbacks=["note"]
        )
        for one in claimed:
            assert one.expected_at <= self.now, "early"
            assert not self.completed[one.id], "completed, and run again"
        return claimed

    def _state(self, action_id: int) -> str:
        state = self.session.scalars(select(Action.state).where(Action.id == action_id)).one()
        self.session.rollback()
        return state

    @invariant()
    def completed_once(self) -> None:
        assert all(number == 1 for number in self.completed.values())

    @invariant()
    def pending_is_what_the_definitions_say(self) -> None:
        plan = definitions.load(self.session, self.campaign.id)
        for schedule in self.session.scalars(select(Schedule)).all():
            rows = self.session.execute(
                select(
                    Action.key, Action.occurrence, Action.state, Action.expected_at,
                    Action.ended_at, Action.reason,
                ).where(Action.schedule_id == schedule.id)
            ).all()  # fmt: skip
            standing = {(row.key, row.occurrence): Standing(*row) for row in rows}
            pending = {place for place, one in standing.items() if one.state == "pending"}
            if not schedule.active or not plan.running:
                assert not pending
                continue
            who = Enrolment("c", "contact", schedule.subject_id, schedule.run, schedule.started_at)
            planned = {
                (one.key, one.occurrence): one
                for one in core.plan(plan.definitions, plan.calendar, who, standing)
            }
            assert pending <= planned.keys()
            for place, one in planned.items():
                if place in pending:
                    assert standing[place].expected_at == one.expected_at
                elif not one.reason:
                    row = standing[place]
                    over = row.state in ("processing", "completed", "failed")
                    assert over or row.reason in (core.PASSED, core.TOO_LATE), "lost"
        self.session.rollback()


TestLife = Life.TestCase
TestLife.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
