"""Health: whether each part is there, and what to do when one is not."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue, QueueHealth
from mcs.gateways.mailserver import MailServerCheck
from mcs.models.base import UtcDateTime


@dataclass(frozen=True)
class Part:
    """One part of the installation. ``advice`` says what to do when it is not alive."""

    name: str
    alive: bool
    advice: str


def parts(session: Session, queue: JobQueue, mail: MailServerCheck) -> Sequence[Part]:
    """Every part, those that others stand on first."""
    health = queue.health()
    return (
        Part("Database", database_answers(session), "Check DATABASE_URL, and that it runs."),
        Part(
            "Redis",
            health.redis,
            "Nothing is lost meanwhile. Check REDIS_URL, and that it runs.",
        ),
        Part("Worker", health.workers > 0, _advice(health, "worker")),
        Part("Clock", health.clock, _advice(health, "clock")),
        Part(
            "Mail server",
            mail.answers(),
            f"Nothing answers at {mail.host}:{mail.port}. Check MAIL_SERVER and MAIL_PORT.",
        ),
    )


def database_answers(session: Session) -> bool:
    """Whether the database runs a statement now."""
    try:
        return session.scalar(select(1)) == 1
    except SQLAlchemyError:
        session.rollback()
        return False


def database_time(session: Session) -> datetime | None:
    """What time the database's host has, in UTC whatever zone the database shows times in; None
    where the database is a file of this host, or is away."""
    if session.get_bind().dialect.name == "sqlite":
        return None
    try:
        return session.scalar(select(func.clock_timestamp(type_=UtcDateTime())))
    except SQLAlchemyError:
        return None
    finally:
        session.rollback()


def _advice(health: QueueHealth, process: str) -> str:
    if not health.redis:
        return "Cannot be seen while Redis is away."
    return f"Emails wait until one runs: start it with make run, or the Procfile's {process}."
