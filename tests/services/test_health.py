"""What the database is asked about itself."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import text
from sqlalchemy.orm import Session

from mcs.services import health


def test_a_database_that_shows_berlins_time_tells_the_time_in_utc(session: Session) -> None:
    if session.get_bind().dialect.name == "sqlite":
        assert health.database_time(session) is None
        return
    session.execute(text("SET TIME ZONE 'Europe/Berlin'"))
    session.commit()
    theirs = health.database_time(session)
    assert session.scalar(text("SHOW TIME ZONE")) == "Europe/Berlin"
    assert theirs is not None
    assert theirs.tzinfo is UTC
    assert abs(theirs - datetime.now(UTC)) < timedelta(minutes=1)
