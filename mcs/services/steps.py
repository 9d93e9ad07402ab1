"""Steps: what a lane writes with each commit, as ready SQL.

This runs once per group of messages, thousands of times a minute, so the statements are texts with
arrays in them: the same few words whatever the group's size. When the ORM built them anew for each
commit, a commit took four times as much processor time (docs/adr/0010-lane-speed.md).
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, TextClause, bindparam, text

from mcs.core.states import DELIVERY_STATES
from mcs.models import UtcDateTime, stored


class Outcome(NamedTuple):
    """What became of one attempt. ``state`` pending means: again at ``due_at``; ``doubted`` that it
    may have been accepted all the same."""

    delivery_id: int
    state: str
    at: datetime
    reason: str = ""
    reply_code: int | None = None
    reply_text: str = ""
    due_at: datetime | None = None
    doubted: bool = False


class Row(NamedTuple):
    """What is written of a delivery; ``at`` is its due_at, or when it starts."""

    state: str
    reason: str
    at: str
    sent_at: str | None
    code: int | None
    text: str
    delivery_id: int


def told(outcome: Outcome) -> Row:
    """An answer as it is written."""
    at = stored(outcome.at)
    return Row(
        outcome.state,
        outcome.reason[:200],
        at if outcome.due_at is None else stored(outcome.due_at),
        at if outcome.state == "sent" else None,
        outcome.reply_code,
        outcome.reply_text[:1000],
        outcome.delivery_id,
    )


# The token proves that the slice is ours, even when the lease is over: who takes a slice over takes
# the token away.
_HOLD = text(
    "UPDATE slices SET lease_until = :until WHERE id = :slice_id AND claim_token = :token"
    " RETURNING high_id"
).bindparams(bindparam("until", type_=UtcDateTime()))

_COUNT = text(
    "UPDATE slices SET "
    + ", ".join(f"{state} = {state} + :{state}" for state in DELIVERY_STATES)
    + " WHERE id = :slice_id"
)


def _start(goes_on: str) -> dict[str, TextClause]:
    among = {
        "sqlite": "IN (SELECT value FROM json_each(:ids))",
        "postgresql": "= ANY(CAST(:ids AS bigint[]))",
    }
    return {
        dialect: text(
            "UPDATE deliveries SET state = 'sending', started_at = :now, attempts = attempts + 1"
            f" WHERE id {ids} AND state = 'pending' AND EXISTS (SELECT 1 FROM {goes_on})"
            " RETURNING id"
        ).bindparams(bindparam("now", type_=UtcDateTime()))
        for dialect, ids in among.items()
    }


_START = _start("emailers WHERE id = :parent_id AND state = 'sending'")
_START_OF_SEQUENCE = _start(
    "campaigns WHERE id = :parent_id AND active AND archived_at IS NULL AND held_at IS NULL"
)

_RECORD = {
    "sqlite": text(
        "UPDATE deliveries SET state = json_extract(told.value, '$[0]'),"
        " reason = json_extract(told.value, '$[1]'),"
        " due_at = json_extract(told.value, '$[2]'),"
        " sent_at = json_extract(told.value, '$[3]'),"
        " reply_code = json_extract(told.value, '$[4]'),"
        " reply_text = json_extract(told.value, '$[5]')"
        " FROM json_each(:told) AS told WHERE deliveries.id = json_extract(told.value, '$[6]')"
    ),
    # The array too: for a join with what a function returns alone, PostgreSQL reads all deliveries.
    "postgresql": text(
        "UPDATE deliveries SET state = told.value->>0, reason = told.value->>1,"
        " due_at = CAST(told.value->>2 AS timestamp) AT TIME ZONE 'UTC',"
        " sent_at = CAST(told.value->>3 AS timestamp) AT TIME ZONE 'UTC',"
        " reply_code = CAST(told.value->>4 AS integer), reply_text = told.value->>5"
        " FROM json_array_elements(CAST(:told AS json)) AS told"
        " WHERE deliveries.id = ANY(CAST(:ended AS bigint[]))"
        " AND deliveries.id = CAST(told.value->>6 AS bigint)"
    ),
}


def hold(connection: Connection, slice_id: int, token: str, until: datetime) -> int | None:
    """Lock the slice, prove that it is ours, renew its lease. Its high_id, as it is now; None when
    the lease is lost."""
    held = connection.execute(_HOLD, {"slice_id": slice_id, "token": token, "until": until})
    return held.scalar()


def count(connection: Connection, slice_id: int, moved: Mapping[str, int]) -> None:
    """Move a slice's counts."""
    if any(moved.values()):
        changes = {state: moved.get(state, 0) for state in DELIVERY_STATES}
        connection.execute(_COUNT, {"slice_id": slice_id, **changes})


def start(connection: Connection, now: datetime, emailer_id: int, ids: Collection[int]) -> set[int]:
    """Mark deliveries ``sending`` that are still pending, if their emailer is; which ones."""
    return _started(connection, _START, now, emailer_id, ids)


def start_of_sequence(
    connection: Connection, now: datetime, campaign_id: int | None, ids: Collection[int]
) -> set[int]:
    """Mark deliveries ``sending`` that are still pending, if their campaign's sequence may send."""
    return _started(connection, _START_OF_SEQUENCE, now, campaign_id, ids)


def _started(
    connection: Connection,
    statements: Mapping[str, TextClause],
    now: datetime,
    parent_id: int | None,
    ids: Collection[int],
) -> set[int]:
    if not ids:
        return set()
    dialect = connection.dialect.name
    wanted = list(ids) if dialect == "postgresql" else json.dumps(list(ids))
    given = {"now": now, "parent_id": parent_id, "ids": wanted}
    return {row[0] for row in connection.execute(statements[dialect], given)}


def record(connection: Connection, outcomes: Sequence[Outcome]) -> None:
    """Write answers."""
    if outcomes:
        rows = [told(outcome) for outcome in outcomes]
        ended = [row.delivery_id for row in rows]
        connection.execute(
            _RECORD[connection.dialect.name], {"told": json.dumps(rows), "ended": ended}
        )
