"""A whole installation of real processes, to be broken: workers, clocks, Redis, a scripted sink."""

import contextlib
import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, bindparam, create_engine, insert, literal, select, text
from sqlalchemy.orm import Session, sessionmaker

from mcs import config
from mcs.gateways.jobqueue import JobQueue
from mcs.models import BatchContact, Campaign, Contact, UtcDateTime, configure_engine
from tests.conftest import wait_until
from tests.faults import auditor
from tests.mail import free_port
from tests.people import MADE_AT, add_campaign, add_scenario
from tests.processes import Process
from tests.running.conftest import OwnRedis

LEASE_SECONDS = 3
CONNECTIONS = 4
# What is promised, on a machine that is busy with other things too.
RECOVERY_SECONDS = 120.0

Rule = dict[str, Any]


class World:
    """Everything of one installation. ``kills`` counts what may each leave CONNECTIONS in doubt."""

    def __init__(
        self, database_url: str, folder: Path, environ: dict[str, str], database_direct: str = ""
    ) -> None:
        self.folder = folder
        self.redis = OwnRedis()
        self.port = free_port()
        self.given = {
            "DATABASE_URL": database_url,
            "REDIS_URL": self.redis.url,
            "MAIL_SERVER": "127.0.0.1",
            "MAIL_PORT": str(self.port),
            "MCS_INSTANCE": str(folder / "instance"),
            "MCS_BASE_URL": "http://mcs.example",
            "MCS_LEASE_SECONDS": str(LEASE_SECONDS),
            "MCS_SMTP_CONNECTIONS": str(CONNECTIONS),
            **environ,
        }
        self.settings = config.load(self.given | {"DATABASE_URL": database_direct or database_url})
        self.engine: Engine = configure_engine(
            create_engine(self.settings.database_url, pool_pre_ping=True)
        )
        self.sessions: sessionmaker[Session] = sessionmaker(self.engine)
        self.queue = JobQueue(self.redis.url)
        self.processes: dict[str, Process] = {}
        self.campaign_id = 0
        self.script()

    # Its parts.

    def script(self, *rules: Rule, seed: int = 0, **options: object) -> None:
        """Tell the sink what to do from its next connection on."""
        draft = self.folder / "rules.new"
        draft.write_text(json.dumps({"rules": rules, "seed": seed, **options}))
        os.replace(draft, self.folder / "rules")

    def sink(self) -> None:
        place = (str(self.folder), str(self.port))
        self._run("sink", {}, "-m", "tests.faults.sink", *place)
        wait_until(lambda: (self.folder / "accepted").exists(), 60)

    def worker(self, name: str = "worker") -> None:
        self._start(name, "worker.py")

    def clock(self, name: str = "clock") -> None:
        self._start(name, "-m", "mcs.clock")

    def web(self, name: str = "web") -> str:
        """The pages, as the Procfile serves them; their address."""
        port = free_port()
        self._start(name, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "wsgi:app")
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(address), 60)
        return address

    def begin(self, *, workers: int = 1, clocks: int = 1) -> "World":
        """Start all of it, and wait until it lives."""
        self.sink()
        for number in range(workers):
            self.worker(f"worker-{number}")
        for number in range(clocks):
            self.clock(f"clock-{number}")
        wait_until(lambda: self.queue.health().workers >= workers, 120)
        return self

    def _start(self, name: str, *arguments: str) -> None:
        self._run(name, self.given, *arguments)

    def _run(self, name: str, environ: dict[str, str], *arguments: str) -> None:
        environ = {**os.environ, "PYTHONUNBUFFERED": "1", **environ}
        log = self.folder / "log"
        self.processes[name] = Process(*arguments, environ=environ, log=log)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Signal a process of ours, and wait for its end if that ends it."""
        process = self.processes[name]
        process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            process.wait(40)

    def horses(self) -> list[int]:
        """The processes that workers forked for the jobs at hand."""
        return [horse for horses in self._horses().values() for horse in horses]

    def _horses(self) -> dict[str, list[int]]:
        return {
            name: [child.pid for child in psutil.Process(process.pid).children()]
            for name, process in self.processes.items()
            if name.startswith("worker") and process.poll() is None
        }

    def busy_worker(self) -> str:
        """The name of a worker that has a horse, waiting for one."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [name for name, horses in self._horses().items() if horses]
            return bool(found)

        wait_until(look, 60)
        return found[0]

    def kill_all_of(self, name: str) -> None:
        """Kill a process and its children at once, as a host does that loses its power."""
        process = self.processes[name]
        with open(self.folder / "kills", "a") as kills:
            kills.write(f"{time.time()} {process.pid} SIGKILL\n")
        os.kill(process.pid, signal.SIGSTOP)  # It must not start another child meanwhile.
        for each in [*_children(process.pid), psutil.Process(process.pid)]:
            each.kill()
        process.wait()

    def kill_horses(self, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal every horse that still lives; how many there were."""
        signalled = 0
        for horse in self.horses():
            with contextlib.suppress(ProcessLookupError):
                os.kill(horse, number)
                signalled += 1
                with open(self.folder / "kills", "a") as kills:
                    kills.write(f"{time.time()} {horse} {number.name}\n")
        return signalled

    def end(self) -> None:
        """Leave nothing behind; a second time does nothing."""
        for process in self.processes.values():
            # One that has ended already may have given its number to a stranger.
            for child in _children(process.pid) if process.poll() is None else []:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            process.kill()
            process.wait()
        self.redis.stop()
        self.engine.dispose()

    # Its stories.

    def people(self, number: int) -> None:
        """A campaign of these days with so many contacts, for all the emailers to come."""
        today = datetime.now(UTC).date()
        with self.sessions() as session:
            campaign = add_campaign(
                session,
                timezone="UTC",
                start_date=today - timedelta(days=5),
                end_date=today + timedelta(days=5),
            )
            self.campaign_id, batch_id = campaign.id, campaign.batch.id
            session.commit()
            session.connection(execution_options={"mcs_writes": True})
            session.execute(insert(Contact), [_contact(n) for n in range(number)])
            members = select(literal(batch_id), Contact.id, literal(MADE_AT, type_=UtcDateTime()))
            session.execute(
                insert(BatchContact).from_select(["batch_id", "contact_id", "added_at"], members)
            )
            session.commit()

    def campaign(self, session: Session) -> Campaign:
        """The campaign, in a transaction that writes from its beginning (SQLite wants that)."""
        campaign = session.get_one(Campaign, self.campaign_id)
        session.commit()
        session.connection(execution_options={"mcs_writes": True})
        return campaign

    def scenario(self) -> int:
        """A scenario that is due, which the clock finds; the id of its emailer."""
        return self.emailer_of(self.scenario_due())

    def scenario_due(self) -> int:
        """A scenario that is due; its id."""
        due = datetime.now(UTC).replace(second=0, microsecond=0)
        with self.sessions() as session:
            campaign = self.campaign(session)
            return add_scenario(session, campaign, date=due.date(), time=due.time()).id

    def emailer_of(self, scenario_id: int) -> int:
        """The id of its emailer, once the clock has planned it."""
        found: list[int] = []

        def planned() -> bool:
            with self.engine.connect() as connection:
                found[:] = connection.scalars(
                    text("SELECT id FROM emailers WHERE scenario_id = :id"), {"id": scenario_id}
                ).all()
            return bool(found)

        wait_until(planned, 60)
        return found[0]

    def book(self, emailer_id: int) -> auditor.Ledger:
        return auditor.ledger(self.engine, emailer_id)

    def tally(self, emailer_id: int) -> auditor.Tally:
        return auditor.tally(self.engine, emailer_id)

    def wait_for(self, true: Callable[[], bool], seconds: float = RECOVERY_SECONDS) -> None:
        """Wait for it; when it does not come, say what the log says."""
        try:
            wait_until(true, seconds)
        except TimeoutError as error:
            log = (self.folder / "log").read_text()[-4000:]
            raise AssertionError(f"{error}\n{self.standing()}\n{log}") from None

    def standing(self) -> str:
        with self.engine.connect() as connection:
            rows = connection.execute(text("SELECT * FROM slices")).all()
            emailers = connection.execute(text("SELECT id, state, notice FROM emailers")).all()
        return f"{rows[-5:]}\n{emailers[-5:]}"

    def wait_sent(self, emailer_id: int, number: int) -> None:
        """Wait until the ledger has so many sent."""
        self.wait_for(lambda: self.tally(emailer_id).by_state["sent"] >= number)

    def wait_over(self, emailer_id: int, seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until it is over, by itself."""
        self.wait_for(lambda: self.tally(emailer_id).over, seconds)

    def wait_over_in_a_hurry(self, emailer_id: int) -> None:
        """Wait until it is over, but not the minutes and hours until another try."""

        def over() -> bool:
            tally = self.tally(emailer_id)
            if not tally.over and not tally.by_state["sending"]:
                self._hurry()
            return tally.over

        self.wait_for(over)

    def _hurry(self) -> None:
        now = bindparam("now", datetime.now(UTC), UtcDateTime)
        waiting = "claim_token IS NULL AND pending > 0 AND due_at > :now"
        with self.engine.begin() as connection:
            for query in (
                "UPDATE deliveries SET due_at = :now WHERE state = 'pending' AND due_at > :now",
                f"UPDATE slices SET due_at = :now WHERE {waiting}",
            ):
                connection.execute(text(query).bindparams(now))

    @property
    def kills(self) -> int:
        return auditor.kills(self.folder)

    def audit(self, emailer_id: int, doubts: int = 0, *, resend: bool = False) -> None:
        """No promise is broken, and at most so many messages are in doubt."""
        found = auditor.problems(self.engine, self.folder, emailer_id, doubts, resend)
        assert not found, "\n".join(found)


def _contact(number: int) -> dict[str, object]:
    """P0 is p0@people.example. The ORM would take minutes for 50,000."""
    email = f"p{number}@people.example"
    made = {"created_at": MADE_AT, "updated_at": MADE_AT}
    names = {"uid": f"p{number}", "name": f"P{number}", "attributes": {}}
    return {"email": email, "email_key": email, **names, **made}


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/healthz", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True  # It has something to complain about, such as a clock that is not there yet.
    except OSError:
        return False


def _children(process: int) -> list[psutil.Process]:
    try:
        return psutil.Process(process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
