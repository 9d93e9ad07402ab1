"""The auditor: reads SQL and the sink's log, knows nothing of MCS but the contracts, and believes
nobody.
"""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, text

SETTLED = ("sent", "failed", "skipped", "in_doubt")


@dataclass(frozen=True)
class Accepted:
    """A message that the sink took."""

    at: float
    delivery: str
    recipient: str


def accepted(folder: Path) -> list[Accepted]:
    """What the sink took, in order."""
    lines = [line.split(" ", 3) for line in (folder / "accepted").read_text().splitlines()]
    return [Accepted(float(at), delivery, to) for at, delivery, to, _subject in lines]


def subjects(folder: Path) -> dict[str, str]:
    """The subject of each delivery that the sink took."""
    lines = [line.split(" ", 3) for line in (folder / "accepted").read_text().splitlines()]
    return {delivery: subject for _at, delivery, _to, subject in lines}


def instant(value: object) -> datetime:
    """A moment as either database hands it out."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    assert isinstance(value, datetime)
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def kills(folder: Path) -> int:
    """How many processes were killed or stopped so far."""
    path = folder / "kills"
    return len(path.read_text().splitlines()) if path.exists() else 0


@dataclass(frozen=True)
class Tally:
    """An emailer's state, and how many of its deliveries are in which."""

    state: str
    by_state: Counter[str]

    @property
    def over(self) -> bool:
        return self.state in ("sent", "cancelled") and not self.open

    @property
    def open(self) -> int:
        return self.by_state["pending"] + self.by_state["sending"]


@dataclass(frozen=True)
class Ledger(Tally):
    """An emailer and its deliveries, as the tables say."""

    recipients: int
    notice: str
    rows: list[tuple[str, str, str]]  # message_id, state, email
    contacts: int  # different ones


def tally(engine: Engine, emailer_id: int) -> Tally:
    """Count an emailer's ledger: for those who wait, and look again and again."""
    query = "SELECT state, COUNT(*) FROM deliveries WHERE emailer_id = :id GROUP BY state"
    with engine.connect() as connection:
        state = connection.scalar(
            text("SELECT state FROM emailers WHERE id = :id"), {"id": emailer_id}
        )
        rows = connection.execute(text(query), {"id": emailer_id}).all()
    return Tally(state, Counter({row[0]: row[1] for row in rows}))


def ledger(engine: Engine, emailer_id: int) -> Ledger:
    """Read an emailer's ledger."""
    with engine.connect() as connection:
        head = connection.execute(
            text("SELECT state, recipients, notice FROM emailers WHERE id = :id"),
            {"id": emailer_id},
        ).one()
        rows = connection.execute(
            text(
                "SELECT d.message_id, d.state, c.email, c.id FROM deliveries d"
                " JOIN contacts c ON c.id = d.contact_id WHERE d.emailer_id = :id"
            ),
            {"id": emailer_id},
        ).all()
    return Ledger(
        head.state,
        Counter(row[1] for row in rows),
        head.recipients or 0,
        head.notice,
        [(row[0], row[1], row[2]) for row in rows],
        len({row[3] for row in rows}),
    )


def problems(
    engine: Engine, folder: Path, emailer_id: int, doubts: int, resend: bool = False
) -> list[str]:
    """Every promise that the emailer breaks, in words; ``doubts`` is how many may be in doubt."""
    book, found = ledger(engine, emailer_id), []
    mine = {id for id, _state, _email in book.rows}
    took = [message for message in accepted(folder) if message.delivery in mine]
    times = Counter(message.delivery for message in took)
    states = {id: state for id, state, _email in book.rows}
    emails = {id: email for id, _state, email in book.rows}
    if len(book.rows) != book.recipients or book.contacts != book.recipients:
        found.append(f"{len(book.rows)} deliveries for {book.recipients} recipients")
    if sum(book.by_state[state] for state in SETTLED) != book.recipients:
        found.append(f"not all are settled: {dict(book.by_state)}")
    doubled = [id for id, number in times.items() if number > 1]
    if doubled and not resend:
        found.append(f"{len(doubled)} got it twice: {[(emails[i], states[i]) for i in doubled]}")
    if lost := [id for id, state in states.items() if state == "sent" and not times[id]]:
        found.append(f"{len(lost)} are sent, and the sink knows nothing of it")
    silent = [id for id in times if states[id] not in ("sent", "in_doubt")]
    if silent:
        found.append(f"the sink has {[(emails[i], states[i]) for i in silent]}")
    if book.by_state["in_doubt"] > doubts:
        found.append(f"{book.by_state['in_doubt']} in doubt, {doubts} may be")
    if wrong := [m for m in took if emails[m.delivery] and emails[m.delivery] != m.recipient]:
        found.append(f"{len(wrong)} messages went to somebody else")
    return found + _counts(engine, emailer_id, book)


def _counts(engine: Engine, emailer_id: int, book: Ledger) -> list[str]:
    """The numbers that pages show, against the rows."""
    states = (*SETTLED, "pending", "sending")
    sums = ", ".join(f"COALESCE(SUM({state}), 0) AS {state}" for state in states)
    with engine.connect() as connection:
        shown = connection.execute(
            text(f"SELECT {sums} FROM slices WHERE emailer_id = :id"), {"id": emailer_id}
        ).one()
        served, really = connection.execute(
            text(
                "SELECT s.contacts_served, (SELECT COUNT(*) FROM deliveries d"
                " JOIN emailers x ON x.id = d.emailer_id"
                " WHERE x.scenario_id = s.id AND d.state = 'sent')"
                " FROM scenarios s JOIN emailers e ON e.scenario_id = s.id WHERE e.id = :id"
            ),
            {"id": emailer_id},
        ).one()
    found = [
        f"the pages show {getattr(shown, state)} {state}, the ledger has {book.by_state[state]}"
        for state in states
        if getattr(shown, state) != book.by_state[state]
    ]
    if served != really:
        found.append(f"contacts_served is {served}, {really} were")
    return found
