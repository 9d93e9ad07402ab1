"""Writers: the commits of a lane, in the words of each database's own driver.

Nearly every commit of a lane is plain: answers that settle letters, and letters that start. Those
are written here, with what ``deliveries.advance`` promises, at a fraction of its processor time and
in one round trip to PostgreSQL, not six (docs/adr/0010-lane-speed.md).
"""

from sqlalchemy import Engine

from mcs.services.deliveries import Step
from mcs.services.writers.postgres import PostgresWriter
from mcs.services.writers.sqlite import SqliteWriter
from mcs.services.writers.writer import Writer

_WRITERS: dict[str, type[SqliteWriter] | type[PostgresWriter]] = {
    "sqlite": SqliteWriter,
    "postgresql": PostgresWriter,
}


def open_writer(engine: Engine) -> Writer:
    """The writer for this engine's database. It connects: that may take its time."""
    return _WRITERS[engine.dialect.name](engine)


def is_plain(step: Step) -> bool:
    """Whether a writer can write it: nothing in it has to be looked up, moves an action, or is to
    go again."""
    if step.claim.emailer_id is None or step.refusals:
        return False
    return all(outcome.state != "pending" for outcome in step.outcomes)
