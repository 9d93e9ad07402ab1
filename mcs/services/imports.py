"""Imports: take an uploaded CSV, and bring its people into the campaign's batch."""

import json
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Protocol

from sqlalchemy import and_, delete, insert, literal, or_, select, update
from sqlalchemy.orm import Session

from mcs.core.addresses import tombstone_key
from mcs.core.columns import OUR_COLUMNS, with_uses
from mcs.core.tables import (
    BadFile,
    Entry,
    Layout,
    Rejection,
    Row,
    Sniffer,
    people,
    rows,
    safe_cell,
)
from mcs.models import (
    Base,
    Batch,
    BatchContact,
    Contact,
    Import,
    ImportChunk,
    RejectedRow,
    UtcDateTime,
)
from mcs.models.sql import among, cell, insert_into, records
from mcs.services import audit, enrolling, suppressions
from mcs.services.paging import At, Page, by_id, turn
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown

LARGEST_FILE = 200 * 1024 * 1024
CHUNK = 256 * 1024
# A file up to this size is imported while the person waits: some thousand rows, a moment.
INLINE = 256 * 1024
SLICE = 2_000
LEASE = timedelta(seconds=60)
# So many jobs may end half-way at the same rows, before it is taken for a fault of ours.
ATTEMPTS = 5
# How long a file waits for its review.
REVIEW_DAYS = 7
_CONTACTS = Base.metadata.tables["contacts"]
_PLACES = Base.metadata.tables["batch_contacts"]

REJECTED_PER_PAGE = 100
IMPORT_JOB = "mcs.jobs.import_contacts"


class Queue(Protocol):
    """What an import needs of mcs.gateways.jobqueue.JobQueue."""

    def enqueue(self, name: str, *args: Any, job_id: str) -> bool: ...


class NotInReview(Exception):
    """The import has been confirmed already."""


@dataclass
class Tally:
    """What became of rows: each is counted once."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    rejected: int = 0

    def __iadd__(self, other: "Tally") -> "Tally":
        self.added += other.added
        self.updated += other.updated
        self.unchanged += other.unchanged
        self.rejected += other.rejected
        return self


def upload(
    session: Session,
    now: datetime,
    queue: Queue,
    campaign_id: int,
    filename: str,
    chunks: Iterable[bytes],
    review: bool,
    *,
    secret: str,
    by: int | None = None,
) -> int:
    """Store a CSV for a campaign; its import's id.

    With ``review`` it waits for ``confirm``. Without, a small file has been imported when this
    returns, and a larger one is left to a worker. ``secret`` finds deleted contacts again
    (mcs.core.addresses.tombstone_key). Raises BadFile, and then nothing was stored.
    """
    with writing(session):
        upload = Import(
            campaign_id=campaign_id,
            filename=_shown_name(filename),
            size=0,
            state="review" if review else "waiting",
            created_at=now,
        )
        session.add(upload)
        session.flush()
        sniffer = _store_bytes(session, upload.id, chunks)
        layout = sniffer.layout()
        upload.size = sniffer.size
        upload.mapping = layout.to_json()
        upload.rows = _row_count(session, upload.id, layout, sniffer)
        import_id, size = upload.id, upload.size
        _note(session, now, by, "uploaded", upload)
    if not review:
        _begin(session, now, queue, import_id, size, secret)
    return import_id


def confirm(
    session: Session,
    now: datetime,
    queue: Queue,
    import_id: int,
    mapping: Sequence[str],
    *,
    secret: str,
    by: int | None = None,
) -> None:
    """Begin a reviewed import, with the use chosen for each column (mcs.core.columns.USES).

    Raises ValueError with a sentence when the columns cannot be read that way, NotInReview when
    it was begun before.
    """
    with writing(session):
        # Locked: confirmed twice at once, or let go of at that moment, only one of them counts.
        upload = session.get_one(Import, import_id, with_for_update=True, populate_existing=True)
        if upload.state != "review":
            raise NotInReview
        layout = Layout.from_json(upload.mapping)
        chosen = replace(layout, columns=tuple(with_uses(layout.columns, mapping)))
        upload.mapping = chosen.to_json()
        upload.state = "waiting"
        size = upload.size
        _note(session, now, by, "confirmed", upload)
    _begin(session, now, queue, import_id, size, secret)


def find(session: Session, import_id: int) -> Import:
    """An import. Raises Unknown."""
    found = session.get(Import, import_id)
    if found is None:
        raise Unknown(f"import {import_id}")
    return found


def latest(session: Session, campaign_id: int) -> list[Import]:
    """The campaign's last uploads, the latest first."""
    query = select(Import).where(Import.campaign_id == campaign_id)
    return list(session.scalars(query.order_by(Import.id.desc()).limit(10)))


def rejected(session: Session, import_id: int, at: At) -> Page[RejectedRow]:
    """The rows that were not taken, in the order of the file, a page of them."""
    query = select(RejectedRow).where(RejectedRow.import_id == import_id)
    order = by_id(RejectedRow.id, descending=False)
    return turn(session, query, order, at, REJECTED_PER_PAGE, lambda row: row, lambda row: row.id)


def rejected_table(session: Session, import_id: int) -> Iterator[list[str]]:
    """The rejected rows as a table to correct and upload again: our columns, then the file's own.

    Safe to open in a spreadsheet: no cell is a formula. Reads in pieces; while rows are taken no
    transaction is open (see ``ledger.table``).
    """
    layout = Layout.from_json(find(session, import_id).mapping)
    session.rollback()
    ours = len(OUR_COLUMNS) if layout.corrected else 0
    yield [*OUR_COLUMNS, *(safe_cell(column.title) for column in layout.columns[ours:])]
    last = 0
    query = select(RejectedRow).where(RejectedRow.import_id == import_id)
    while piece := session.scalars(
        query.where(RejectedRow.id > last).order_by(RejectedRow.id).limit(SLICE)
    ).all():
        last = piece[-1].id
        session.expunge_all()
        session.rollback()
        for row in piece:
            reason = f"{row.field}: {row.reason}" if row.field else row.reason
            yield [str(row.line), safe_cell(reason), *map(safe_cell, row.cells[ours:])]


def preview(session: Session, import_id: int, count: int) -> list[Row]:
    """The first rows of a file that waits for review."""
    upload = session.get_one(Import, import_id)
    layout = Layout.from_json(upload.mapping)
    return list(islice(rows(_stored_bytes(session, import_id), layout), count))


def waiting_imports(session: Session, now: datetime) -> list[int]:
    """The imports whose job has to be rung again: not begun, or left by their worker."""
    return list(
        session.scalars(
            select(Import.id).where(_free(now), Import.size > 0).order_by(Import.id).limit(1000)
        )
    )


def ring(queue: Queue, import_id: int) -> bool:
    """Ring a worker for an import; False when Redis is away."""
    return queue.enqueue(IMPORT_JOB, import_id, job_id=f"import-{import_id}")


def run(session: Session, clock: Callable[[], datetime], import_id: int, *, secret: str) -> None:
    """Import the rows that are not yet done, a slice to a transaction.

    Whoever holds the lease goes on, anybody else returns at once; so it may be run at any time,
    any number of times. One that never gets further than where ATTEMPTS others ended has failed.
    """
    token = secrets.token_urlsafe(12)
    if not _claim(session, clock(), import_id, token):
        return
    upload = session.get_one(Import, import_id, populate_existing=True)
    if upload.attempts > ATTEMPTS:
        _give_up(session, clock(), import_id, upload.rows_done)
        return
    batch_id = session.scalars(
        select(Batch.id).where(Batch.campaign_id == upload.campaign_id)
    ).one()
    layout = Layout.from_json(upload.mapping)
    found = people(_stored_bytes(session, import_id), layout, skip_rows=upload.rows_done)
    ended = False
    while not ended:
        outcomes = list(islice(found, SLICE))
        ended = len(outcomes) < SLICE
        now = clock()
        with writing(session):
            if not _renew(session, now, import_id, token):
                return
            sequence = enrolling.welcoming(session, upload.campaign_id)
            part = _Slice(session, now, batch_id, secret)
            tally = part.take(outcomes)
            if sequence is not None:
                enrolling.added(session, now, sequence, part.joined())
            _reject(session, import_id, outcomes)
            _record(session, import_id, tally, len(outcomes))
            if ended:
                _finish(session, now, import_id)


def forget_reviews(session: Session, now: datetime) -> int:
    """Let go of the files that nobody confirmed within REVIEW_DAYS; how many there were."""
    with writing(session):
        old = session.scalars(
            select(Import.id)
            .where(Import.state == "review", Import.created_at < now - timedelta(days=REVIEW_DAYS))
            .order_by(Import.id)
            .with_for_update()
        ).all()
        for import_id in old:
            reason = (
                f"Nobody confirmed this file within {REVIEW_DAYS} days, so it was let go, and"
                " nothing was changed. Upload it again to import it."
            )
            _fail(session, now, import_id, reason)
    return len(old)


def _begin(
    session: Session, now: datetime, queue: Queue, import_id: int, size: int, secret: str
) -> None:
    if size <= INLINE:
        run(session, lambda: now, import_id, secret=secret)
    else:
        ring(queue, import_id)


def _note(session: Session, now: datetime, by: int | None, verb: str, upload: Import) -> None:
    detail = {"file": upload.filename, "rows": upload.rows, "campaign": upload.campaign_id}
    audit.note(session, now, by, verb, "import", upload.id, **detail)


# The bytes.


def _shown_name(filename: str) -> str:
    """The file's own name, without the folders that some browsers send."""
    name = filename.replace("\\", "/").rpartition("/")[2]
    return "".join(letter for letter in name if letter.isprintable())[:255] or "contacts.csv"


def _store_bytes(session: Session, import_id: int, chunks: Iterable[bytes]) -> Sniffer:
    sniffer = Sniffer()
    for position, piece in enumerate(_pieces(chunks)):
        sniffer.feed(piece)
        if sniffer.size > LARGEST_FILE:
            raise BadFile(
                f"The file is larger than {LARGEST_FILE // 2**20} MB: split it into several."
            )
        row = {"import_id": import_id, "position": position, "bytes": piece}
        session.execute(insert(ImportChunk), [row])
    return sniffer


def _pieces(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in pieces of CHUNK; the last may be shorter."""
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= CHUNK:
            yield bytes(held[:CHUNK])
            del held[:CHUNK]
    if held:
        yield bytes(held)


def _stored_bytes(session: Session, import_id: int) -> Iterator[bytes]:
    position = 0
    query = select(ImportChunk.bytes).where(ImportChunk.import_id == import_id)
    while piece := session.scalar(query.where(ImportChunk.position == position)):
        yield piece
        position += 1


def _row_count(session: Session, import_id: int, layout: Layout, sniffer: Sniffer) -> int:
    """How many rows there are: counted in a small file, about as many as lines in a larger one."""
    if sniffer.size <= INLINE:
        return sum(1 for _ in rows(_stored_bytes(session, import_id), layout))
    return max(sniffer.lines - layout.skip - layout.header, 1)


# The import's own row: the lease and the counts.


def _free(now: datetime) -> Any:
    left = and_(Import.state == "running", Import.lease_until < now)
    return or_(Import.state == "waiting", left)


def _claim(session: Session, now: datetime, import_id: int, token: str) -> bool:
    with writing(session):
        claimed = session.execute(
            update(Import)
            .where(Import.id == import_id, _free(now))
            .values(
                state="running",
                claim_token=token,
                lease_until=now + LEASE,
                attempts=Import.attempts + 1,
            )
        )
        return bool(claimed.rowcount)  # type: ignore[attr-defined]


def _renew(session: Session, now: datetime, import_id: int, token: str) -> bool:
    """Keep the lease, or learn that it was lost; first in its transaction, it holds others off."""
    kept = session.execute(
        update(Import)
        .where(Import.id == import_id, Import.state == "running", Import.claim_token == token)
        .values(lease_until=now + LEASE)
    )
    return bool(kept.rowcount)  # type: ignore[attr-defined]


def _record(session: Session, import_id: int, tally: Tally, done: int) -> None:
    session.execute(
        update(Import)
        .where(Import.id == import_id)
        .values(
            rows_done=Import.rows_done + done,
            attempts=0,
            added=Import.added + tally.added,
            updated=Import.updated + tally.updated,
            unchanged=Import.unchanged + tally.unchanged,
            rejected=Import.rejected + tally.rejected,
        )
    )


def _finish(session: Session, now: datetime, import_id: int) -> None:
    session.execute(
        update(Import)
        .where(Import.id == import_id)
        .values(
            state="done",
            rows=Import.rows_done,
            finished_at=now,
            claim_token=None,
            lease_until=None,
        )
    )
    _drop_bytes(session, import_id)


def _give_up(session: Session, now: datetime, import_id: int, rows_done: int) -> None:
    place = f"after row {rows_done:,}" if rows_done else "at the first row"
    reason = (
        f"The import could not go on {place}: {ATTEMPTS} tries ended in an error, which the"
        " workers' log holds. What was counted is in. Once the cause is mended, upload the file"
        " again: nobody is added twice."
    )
    with writing(session):
        _fail(session, now, import_id, reason)


def _fail(session: Session, now: datetime, import_id: int, reason: str) -> None:
    session.execute(
        update(Import)
        .where(Import.id == import_id)
        .values(state="failed", error=reason, finished_at=now, claim_token=None, lease_until=None)
    )
    _drop_bytes(session, import_id)


def _drop_bytes(session: Session, import_id: int) -> None:
    """The outcome is kept for ever; the file is not."""
    session.execute(delete(ImportChunk).where(ImportChunk.import_id == import_id))


def _reject(session: Session, import_id: int, outcomes: Sequence[Entry | Rejection]) -> None:
    rejected = [
        {
            "import_id": import_id,
            "line": outcome.line,
            "field": outcome.field[:200],
            "reason": outcome.reason[:300],
            "cells": outcome.cells,
        }
        for outcome in outcomes
        if isinstance(outcome, Rejection)
    ]
    if rejected:
        session.execute(insert(RejectedRow), rejected)


# The people.


@dataclass(slots=True)
class _Person:
    """A contact while the rows of a slice are folded into it; ``id`` is 0 before it has one."""

    id: int
    key: str
    name: str
    attributes: dict[str, str]
    in_batch: bool
    changed: bool = False

    def fold(self, entries: Sequence[Entry], tally: Tally) -> Tally:
        """Take in the rows of one address, in their order, and count each."""
        for entry in entries:
            news = self._learn(entry)
            self.changed = self.changed or news
            if not self.in_batch:
                tally.added += 1
            elif news:
                tally.updated += 1
            else:
                tally.unchanged += 1
            self.in_batch = True
        return tally

    def _learn(self, entry: Entry) -> bool:
        """Take over what the row says, not what it leaves empty; whether that was news."""
        name = entry.name or self.name
        attributes = self.attributes | entry.attributes
        if name == self.name and attributes == self.attributes:
            return False
        self.name, self.attributes = name, attributes
        return True


class _Slice:
    """Some rows, brought into the batch within the caller's transaction."""

    def __init__(self, session: Session, now: datetime, batch_id: int, secret: str) -> None:
        self._session, self._now, self._batch_id, self._secret = session, now, batch_id, secret
        self._joined: list[str] = []

    def joined(self) -> Sequence[int]:
        """The ids of those who came into the batch."""
        query = select(Contact.id).where(among(Contact.email_key, self._joined))
        return self._session.scalars(query.order_by(Contact.id)).all()

    def take(self, outcomes: Sequence[Entry | Rejection]) -> Tally:
        entries: dict[str, list[Entry]] = {}
        tally = Tally()
        for outcome in outcomes:
            if isinstance(outcome, Entry):
                entries.setdefault(outcome.key, []).append(outcome)
            else:
                tally.rejected += 1
        # In the order of their keys, here and below: two at once then wait, and never deadlock.
        waiting = sorted(entries)
        while waiting:
            waiting = self._take_known(waiting, entries, tally)
            waiting = self._revive(waiting, entries) or self._add(waiting, entries, tally)
        return tally

    def _take_known(
        self, keys: Sequence[str], entries: Mapping[str, Sequence[Entry]], tally: Tally
    ) -> list[str]:
        """Fold the rows of those who are contacts already; whose rows are left."""
        known = self._locked(keys)
        joining = [person.key for person in known if not person.in_batch]
        for person in known:
            person.fold(entries[person.key], tally)
        self._update([person for person in known if person.changed])
        self._join(joining)
        found = {person.key for person in known}
        return [key for key in keys if key not in found]

    def _locked(self, keys: Sequence[str]) -> list[_Person]:
        """The contacts of these addresses, held against others until the commit."""
        found = self._session.execute(
            select(Contact.id, Contact.email_key, Contact.name, Contact.attributes)
            .where(among(Contact.email_key, keys))
            .order_by(Contact.email_key)
            .with_for_update(key_share=True)
        ).all()
        inside: set[int] = set()
        if found:
            inside.update(
                self._session.scalars(
                    select(BatchContact.contact_id).where(
                        BatchContact.batch_id == self._batch_id,
                        among(BatchContact.contact_id, [row.id for row in found]),
                    )
                )
            )
        return [_Person(*row, in_batch=row.id in inside) for row in found]

    def _revive(self, keys: Sequence[str], entries: Mapping[str, Sequence[Entry]]) -> list[str]:
        """Give deleted contacts their address back, and what they asked not to get; empty when
        there are none among them, else all the addresses, to be looked at again."""
        graves = {tombstone_key(self._secret, key): key for key in keys}
        found = self._session.scalars(
            select(Contact.email_key).where(among(Contact.email_key, list(graves)))
        ).all()
        for grave in sorted(found):
            key = graves[grave]
            self._session.execute(
                update(_CONTACTS)
                .where(_CONTACTS.c.email_key == grave)
                .values(email_key=key, email=entries[key][0].email, deleted_at=None)
            )
            suppressions.follow(self._session, grave, key)
        return list(keys) if found else []

    def _add(
        self, keys: Sequence[str], entries: Mapping[str, Sequence[Entry]], tally: Tally
    ) -> list[str]:
        """Insert new contacts; empty, or those whom somebody else inserted meanwhile."""
        if not keys:
            return []
        folded: dict[str, Tally] = {}
        added: list[list[str]] = []
        for key in keys:
            person = _Person(0, key, "", {}, in_batch=False)
            folded[key] = person.fold(entries[key], Tally())
            attributes = json.dumps(person.attributes)
            uid = secrets.token_urlsafe(12)
            added.append([uid, entries[key][0].email, key, person.name, attributes])
        self._insert_new(added)
        ours = self._ours([row[0] for row in added])
        for key in ours:
            tally += folded[key]
        self._join(ours)
        return [key for key in keys if key not in ours]

    def _insert_new(self, rows: Sequence[Sequence[str]]) -> None:
        cells = records(rows)
        names = ("uid", "email", "email_key", "name", "attributes")
        values = [cell(cells, place, _CONTACTS.c[name].type) for place, name in enumerate(names)]
        now = literal(self._now, UtcDateTime)
        self._session.execute(
            insert_into(self._session, _CONTACTS)
            .from_select(
                [*names, "created_at", "updated_at"],
                # SQLite takes ON CONFLICT for a join's ON where there is no WHERE.
                select(*values, now, now).where(cells.c.value.is_not(None)),
            )
            .on_conflict_do_nothing()
        )

    def _update(self, changed: Sequence[_Person]) -> None:
        if changed:
            self._session.execute(
                update(Contact),
                [
                    {
                        "id": person.id,
                        "name": person.name,
                        "attributes": person.attributes,
                        "updated_at": self._now,
                    }
                    for person in changed
                ],
            )

    def _ours(self, uids: Sequence[str]) -> set[str]:
        """The addresses of those rows that were really inserted, not met with a conflict."""
        return set(self._session.scalars(select(Contact.email_key).where(among(Contact.uid, uids))))

    def _join(self, keys: Collection[str]) -> None:
        """Bring contacts into the batch, by their addresses."""
        self._joined += keys
        if keys:
            joining = (
                select(literal(self._batch_id), Contact.id, literal(self._now, UtcDateTime))
                .where(among(Contact.email_key, list(keys)))
                .order_by(Contact.id)
            )
            self._session.execute(
                insert_into(self._session, _PLACES)
                .from_select(["batch_id", "contact_id", "added_at"], joining)
                .on_conflict_do_nothing()
            )
