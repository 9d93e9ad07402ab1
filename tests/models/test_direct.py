"""A statement that goes to PostgreSQL with nothing around it."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, Integer, String, bindparam, create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError

from mcs.models import Suppression, configure_engine
from mcs.models.base import UtcDateTime
from mcs.models.direct import Direct

NOW = datetime(2026, 11, 23, 9, tzinfo=UTC)
LONGER = Direct(
    "longer",
    select(func.length(bindparam("name", type_=String()))).where(
        func.length(bindparam("name", type_=String())) > bindparam("least", type_=Integer())
    ),
)
SUPPRESS = Direct(
    "suppress",
    insert(Suppression)
    .values(
        email_key=bindparam("who", type_=String()),
        reason=bindparam("why", type_=String()),
        created_at=bindparam("now", type_=UtcDateTime()),
    )
    .returning(Suppression.id),
)


@pytest.fixture
def server(engine: Engine) -> Iterator[Engine]:
    if engine.dialect.name != "postgresql":
        pytest.skip("it speaks PostgreSQL's protocol")
    yield engine


def test_a_number_or_none(server: Engine) -> None:
    assert LONGER.number(server, {"name": "Jürgen 'J' $1", "least": 3}) == 13
    assert LONGER.number(server, {"name": "Ann", "least": 3}) is None


def test_the_server_commits_it_by_itself(server: Engine) -> None:
    assert SUPPRESS.number(server, _charlie()) is not None
    with server.connect() as another:
        row = another.execute(select(Suppression.email_key, Suppression.created_at)).one()
    assert row == ("charlie@example.org", NOW)


def test_what_may_not_be_twice_says_so_and_the_connection_goes_on(server: Engine) -> None:
    SUPPRESS.number(server, _charlie())
    with pytest.raises(IntegrityError):
        SUPPRESS.number(server, _charlie())
    assert LONGER.number(server, {"name": "Bob", "least": 0}) == 3


def test_that_psycopg_lets_go_what_is_prepared_does_not_matter(server: Engine) -> None:
    assert LONGER.number(server, {"name": "Bob", "least": 0}) == 3
    for _ in range(8):  # It prepares what is executed for the sixth time.
        with server.begin() as writer:
            writer.execute(text("SELECT 1"))
    with server.connect() as reader:
        reader.execute(text("SELECT 1"))
        reader.rollback()
    assert LONGER.number(server, {"name": "Bob", "least": 0}) == 3


def test_a_connection_that_is_cut_says_so_and_the_next_is_whole(server: Engine) -> None:
    assert LONGER.number(server, {"name": "Bob", "least": 0}) == 3
    with server.connect() as another:
        others = (
            "FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )
        held = server.raw_connection()
        another.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))
        held.close()
        with pytest.raises(OperationalError):
            LONGER.number(server, {"name": "Bob", "least": 0})
    assert LONGER.number(server, {"name": "Bob", "least": 0}) == 3


def test_a_server_that_is_away_is_said_as_everybody_says_it(server: Engine) -> None:
    nowhere = create_engine("postgresql+psycopg://127.0.0.1:1/mcs")
    with pytest.raises(OperationalError):
        LONGER.number(nowhere, {"name": "Bob", "least": 0})


def test_it_speaks_utf_8_whatever_the_connection_was_told(server: Engine) -> None:
    url = server.url.update_query_dict({"client_encoding": "latin1"})
    engine = configure_engine(create_engine(url))
    assert LONGER.number(engine, {"name": "Jürgen", "least": 0}) == 6
    engine.dispose()


def test_a_moment_without_a_zone_is_refused(server: Engine) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        SUPPRESS.number(server, _charlie() | {"now": NOW.replace(tzinfo=None)})


def _charlie() -> dict[str, object]:
    return {"who": "charlie@example.org", "why": "unsubscribed", "now": NOW}
