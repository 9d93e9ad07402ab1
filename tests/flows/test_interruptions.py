"""What happens to a day's plan when Redis forgets it, MCS is restarted, or a worker is killed.

Real processes on real time; two installations wait for the same minute side by side.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from redis import Redis
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from mcs.models import Campaign, Delivery, Emailer, Scenario, configure_engine
from tests.conftest import wait_until
from tests.flows.installation import Installation
from tests.mail import Mailbox, MailServer
from tests.people import add_campaign, add_contacts, add_scenario
from tests.running.conftest import OwnRedis

PEOPLE = 40
MakeDatabase = Callable[[Path], str]


@dataclass
class Site:
    """An installation with a Redis and a mail server of its own."""

    mcs: Installation
    redis: OwnRedis
    server: MailServer
    engine: Engine

    def emailer(self) -> Emailer | None:
        with Session(self.engine) as session:
            return session.scalars(select(Emailer)).one_or_none()

    def is_over(self) -> bool:
        emailer = self.emailer()
        return emailer is not None and emailer.state == "sent"

    def deliveries(self) -> list[Delivery]:
        with Session(self.engine) as session:
            return list(session.scalars(select(Delivery)))


@contextlib.contextmanager
def site(make_database: MakeDatabase, folder: Path, **environ: str) -> Iterator[Site]:
    folder.mkdir()
    url = make_database(folder)
    engine = configure_engine(create_engine(url))
    redis = OwnRedis()
    with MailServer(Mailbox()) as server:
        given = {
            "DATABASE_URL": url,
            "REDIS_URL": redis.url,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(server.port),
            "MCS_WORKERS": "1",
            **environ,
        }
        mcs = Installation(folder, given)
        try:
            yield Site(mcs, redis, server, engine)
        finally:
            mcs.stop()
            redis.stop()
            engine.dispose()
            print(mcs.log.read_text()[-3000:])


def add_story(engine: Engine, people: int, at: datetime) -> None:
    """A campaign in UTC of these days, its people, and a scenario for that minute."""
    day = timedelta(days=1)
    with Session(engine) as session:
        campaign = add_campaign(
            session, timezone="UTC", start_date=at.date() - day, end_date=at.date() + day
        )
        add_contacts(session, campaign, people)
        campaign_id = campaign.id
        session.commit()
        session.connection(execution_options={"mcs_writes": True})
        campaign = session.get_one(Campaign, campaign_id)
        add_scenario(session, campaign, date=at.date(), time=at.time())


def lose_all(here: Site) -> None:
    with Redis.from_url(here.redis.url) as client:
        client.flushall()


def die_and_come_back_empty(here: Site) -> None:
    here.redis.stop()
    here.redis.start()


def restart_and_lose_all(here: Site) -> None:
    here.mcs.interrupt()
    here.mcs.start()
    wait_until(lambda: here.mcs.said("MCS runs: open") == 2, 60)
    lose_all(here)


def test_nothing_between_planning_and_sending_costs_or_doubles_anybody(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    troubles = (die_and_come_back_empty, restart_and_lose_all)
    with contextlib.ExitStack() as stack:
        sites = [
            stack.enter_context(site(make_database, tmp_path / trouble.__name__))
            for trouble in troubles
        ]
        for here in sites:
            wait_until(lambda here=here: here.mcs.said("MCS runs: open") == 1, 90)  # type: ignore[misc]
        # Far enough for the restart, and a full minute, since that is what forms take.
        minute = datetime.now(UTC) + timedelta(seconds=85)
        minute = minute.replace(second=0, microsecond=0)
        for here in sites:
            add_story(here.engine, PEOPLE, minute)
        for here in sites:
            wait_until(lambda here=here: here.emailer() is not None, 30)  # type: ignore[misc]
        for trouble, here in zip(troubles, sites, strict=True):
            trouble(here)
        assert datetime.now(UTC) < minute, "the troubles took too long to be between"
        for here in sites:
            wait_until(here.is_over, 150, every=0.2)
        time.sleep(1.5)  # A second sending would show in the ticks that follow.
        for trouble, here in zip(troubles, sites, strict=True):
            everyone_got_one_on_time(here, minute, trouble.__name__)


def everyone_got_one_on_time(here: Site, minute: datetime, name: str) -> None:
    assert here.server.mailbox.recipients == sorted(
        f"p{number}@people.example" for number in range(PEOPLE)
    ), name
    emailer = here.emailer()
    assert emailer is not None and emailer.scheduled_at == minute
    started = [delivery.started_at for delivery in here.deliveries()]
    first = min(moment for moment in started if moment is not None)
    print(f"{name}: the first message started {(first - minute).total_seconds():.3f} s after it")
    assert minute <= first < minute + timedelta(seconds=10), name


def test_a_killed_worker_comes_back_and_the_emailer_completes(
    make_database: MakeDatabase, tmp_path: Path
) -> None:
    """Killed alone, and then another with the horse that sends."""
    connections = 2
    with site(
        make_database,
        tmp_path / "killed",
        MCS_LEASE_SECONDS="3",
        MCS_SMTP_CONNECTIONS=str(connections),
    ) as here:
        caught = here.server.mailbox.caught

        def slowly(_recipient: str) -> str:
            time.sleep(0.02)
            return ""

        here.server.mailbox.at_dot = slowly
        wait_until(lambda: here.mcs.said("MCS runs: open") == 1, 90)
        # This minute: late by less than the limit, it goes out at once.
        add_story(here.engine, 400, datetime.now(UTC).replace(second=0, microsecond=0))
        wait_until(lambda: len(caught) >= 40, 60)
        (worker,) = here.mcs.workers()
        worker.kill()
        wait_until(lambda: here.mcs.workers() not in ([], [worker]), 60)
        (another,) = here.mcs.workers()
        so_far = len(caught)
        wait_until(lambda: len(caught) >= so_far + 40 and bool(another.children()), 60)
        for process in [another, *another.children()]:
            process.kill()
        assert len(caught) < 400, "it was over before the kill"
        wait_until(here.is_over, 90, every=0.2)
        (third,) = here.mcs.workers()
        assert len({worker.pid, another.pid, third.pid}) == 3
        assert here.mcs.said("stopped (SIGKILL)") == 2

        reached = {message.recipient for message in caught}
        assert len(caught) == len(reached), "somebody got two"
        by_state = [delivery.state for delivery in here.deliveries()]
        assert len(by_state) == 400
        assert set(by_state) <= {"sent", "in_doubt"}
        in_doubt = by_state.count("in_doubt")
        assert in_doubt <= 2 * connections
        assert by_state.count("sent") <= len(reached) <= by_state.count("sent") + in_doubt
        with Session(here.engine) as session:
            served = session.scalars(select(Scenario.contacts_served)).one()
        assert served == by_state.count("sent")
