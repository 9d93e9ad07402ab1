"""Marie uploads her contacts: once, again, from two windows, with the power going out."""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from mcs.core.addresses import tombstone_key
from mcs.core.tables import BadFile
from mcs.core.tokens import Recipient
from mcs.models import (
    BatchContact,
    Campaign,
    Contact,
    Import,
    ImportChunk,
    RejectedRow,
    Suppression,
)
from mcs.services import contacts, imports, suppressions
from tests.people import add_campaign, add_contact

SECRET = "a secret of the tests"
AFTER_LEASE = imports.LEASE + timedelta(seconds=1)


@dataclass
class Bell:
    """A queue that only remembers who was rung: no worker comes."""

    rung: list[tuple[str, tuple[Any, ...], str]] = field(default_factory=list)

    def enqueue(self, name: str, *args: Any, job_id: str) -> bool:
        self.rung.append((name, args, job_id))
        return True


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def tenths() -> Iterator[None]:
    """A tenth of the rows is as many pieces, slices and commits, and is left to a worker, too."""
    with pytest.MonkeyPatch.context() as patch:
        for size in ("CHUNK", "INLINE", "SLICE"):
            patch.setattr(imports, size, getattr(imports, size) // 10)
        yield


def upload(
    session: Session, now: datetime, campaign: Campaign, text: str | bytes, review: bool = False
) -> Import:
    content = text.encode() if isinstance(text, str) else text
    import_id = imports.upload(
        session, now, Bell(), campaign.id, "people.csv", [content], review, secret=SECRET
    )
    session.expire_all()
    return session.get_one(Import, import_id)


def counts(done: Import) -> tuple[int, int, int, int]:
    return done.added, done.updated, done.unchanged, done.rejected


def batch(session: Session, campaign: Campaign) -> list[Contact]:
    query = select(Contact).join(BatchContact).where(BatchContact.batch_id == campaign.batch.id)
    return list(session.scalars(query.order_by(Contact.email_key)))


def many(count: int, **columns: str) -> bytes:
    """A file with ``count`` people."""
    head = ",".join(("email", "name", *columns))
    tail = "".join(f",{value}" for value in columns.values())
    lines = (f"person{number}@people.example,Person {number}{tail}" for number in range(count))
    return "\n".join((head, *lines)).encode()


def test_a_small_file_is_in_when_the_upload_returns(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    done = upload(
        session,
        now,
        campaign,
        "E-Mail,Full Name,Company Name\n"
        "Ann@People.Example,Ann Lee,Bloom\n"
        "bob@people.example,Bob,\n"
        "nobody,No One,\n",
    )
    assert (done.state, done.rows, done.rows_done) == ("done", 3, 3)
    assert counts(done) == (2, 0, 0, 1)
    ann, bob = batch(session, campaign)
    assert (ann.email, ann.email_key) == ("Ann@People.Example", "ann@people.example")
    assert (ann.name, ann.attributes) == ("Ann Lee", {"company_name": "Bloom"})
    assert (bob.name, bob.attributes) == ("Bob", {})
    assert len({ann.uid, bob.uid}) == 2
    refused = session.scalars(select(RejectedRow)).one()
    assert (refused.line, refused.field, refused.reason) == (4, "E-Mail", "there is no @")
    assert refused.cells == ["nobody", "No One", ""]
    assert session.scalar(select(func.count()).select_from(ImportChunk)) == 0


def test_uploading_twice_adds_nobody_twice(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    file = "email,name\nann@people.example,Ann\nbob@people.example,Bob\n"
    assert counts(upload(session, now, campaign, file)) == (2, 0, 0, 0)
    assert counts(upload(session, now, campaign, file)) == (0, 0, 2, 0)
    assert len(batch(session, campaign)) == 2


def test_a_second_upload_adds_and_replaces_nobody(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    upload(session, now, campaign, "email,name,city,plan\nann@people.example,Ann,Berlin,free\n")
    later = now + timedelta(hours=1)
    done = upload(
        session,
        later,
        campaign,
        "email,name,city,plan,company\nann@people.example,,Bonn,,Bloom\nbob@people.example,,,,\n",
    )
    assert counts(done) == (1, 1, 0, 0)
    ann, _ = batch(session, campaign)
    assert ann.name == "Ann"
    assert ann.attributes == {"city": "Bonn", "plan": "free", "company": "Bloom"}
    assert ann.updated_at == later


def test_rows_of_the_same_address_count_once(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    done = upload(
        session,
        now,
        campaign,
        "email,name,city\nann@people.example,Ann,Berlin\nANN@people.example,Ann,Berlin\n"
        "ann@PEOPLE.example,,Bonn\n",
    )
    assert counts(done) == (1, 1, 1, 0)
    (ann,) = batch(session, campaign)
    assert ann.attributes == {"city": "Bonn"}
    assert ann.email == "ann@people.example"


def test_somebody_of_another_campaign_is_added_to_this_one(session: Session, now: datetime) -> None:
    spring, autumn = add_campaign(session), add_campaign(session)
    add_contact(session, spring, "Ann", city="Berlin")
    done = upload(session, now, autumn, "email,plan\nann@people.example,pro\n")
    assert counts(done) == (1, 0, 0, 0)
    (ann,) = batch(session, autumn)
    assert ann.attributes == {"city": "Berlin", "plan": "pro"}
    assert batch(session, spring) == [ann]


def test_a_deleted_contact_comes_back_as_the_same_one(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    ann = add_contact(session, None, "Ann")
    ann_id, uid = ann.id, ann.uid
    ann.email_key = tombstone_key(SECRET, ann.email_key)
    ann.email = ann.name = ""
    ann.deleted_at = now
    session.commit()
    done = upload(session, now, campaign, "email,name\nann@people.example,Ann\n")
    assert counts(done) == (1, 0, 0, 0)
    (again,) = batch(session, campaign)
    assert (again.id, again.uid, again.deleted_at) == (ann_id, uid, None)
    assert (again.email, again.name) == ("ann@people.example", "Ann")


def test_what_a_deleted_contact_asked_not_to_get_comes_back_with_them(
    session: Session, now: datetime
) -> None:
    campaign = add_campaign(session)
    ann = add_contact(session, campaign, "Ann")
    link = Recipient(contact_uid=ann.uid, campaign_uid=campaign.uid)
    for _ in range(2):
        suppressions.unsubscribe(session, now, link)
        contacts.delete(session, now, SECRET, ann.id)
        # An old link still works, and says it again of the same person.
        suppressions.unsubscribe(session, now, link)
        upload(session, now, campaign, "email\nann@people.example\n")
        assert suppressions.is_suppressed(session, "ann@people.example", campaign.id)
    assert session.scalars(select(func.count()).select_from(Suppression)).one() == 1


def test_a_bad_file_leaves_nothing_behind(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    with pytest.raises(BadFile, match="Excel workbook"):
        upload(session, now, campaign, b"PK\x03\x04" + b"\x00" * 300_000)
    assert session.scalar(select(func.count()).select_from(Import)) == 0
    assert session.scalar(select(func.count()).select_from(ImportChunk)) == 0


def test_a_file_over_the_limit_is_refused(
    session: Session, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "LARGEST_FILE", 1024 * 1024)
    with pytest.raises(BadFile, match="larger than 1 MB"):
        upload(session, now, add_campaign(session), many(40_000))


def test_a_large_file_is_left_to_a_worker(session: Session, now: datetime, bell: Bell) -> None:
    campaign = add_campaign(session)
    pieces = [many(12_000)[start : start + 10_000] for start in range(0, 600_000, 10_000)]
    import_id = imports.upload(
        session, now, bell, campaign.id, "C:\\lists\\all.csv", pieces, False, secret=SECRET
    )
    assert bell.rung == [("mcs.jobs.import_contacts", (import_id,), f"import-{import_id}")]
    assert imports.waiting_imports(session, now) == [import_id]
    imports.run(session, lambda: now, import_id, secret=SECRET)
    done = session.get_one(Import, import_id)
    assert (done.state, done.filename, counts(done)) == ("done", "all.csv", (12_000, 0, 0, 0))
    assert imports.waiting_imports(session, now) == []


def test_a_review_waits_for_its_mapping(session: Session, now: datetime, bell: Bell) -> None:
    campaign = add_campaign(session)
    file = "email,name,note\nann@people.example,Ann,Ann Lee\n"
    waiting = upload(session, now, campaign, file, review=True)
    assert (waiting.state, waiting.rows) == ("review", 1)
    assert batch(session, campaign) == []
    assert [row.cells for row in imports.preview(session, waiting.id, 5)] == [
        ["ann@people.example", "Ann", "Ann Lee"]
    ]
    assert imports.waiting_imports(session, now) == []
    with pytest.raises(ValueError, match="exactly one"):
        imports.confirm(session, now, bell, waiting.id, ["name", "ignore", "ignore"], secret=SECRET)
    chosen = ["email", "ignore", "name"]
    imports.confirm(session, now, bell, waiting.id, chosen, secret=SECRET)
    (ann,) = batch(session, campaign)
    assert (ann.name, ann.attributes) == ("Ann Lee", {})
    with pytest.raises(imports.NotInReview):
        imports.confirm(session, now, bell, waiting.id, chosen, secret=SECRET)


class PowerCut(BaseException):
    """Not an Exception, as SIGKILL is not."""


@pytest.mark.usefixtures("tenths")
def test_a_killed_import_goes_on_where_it_committed_last(
    session: Session, now: datetime, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = add_campaign(session)
    file = many(900).replace(b"person432@", b"person432 at ")
    import_id = imports.upload(
        session, now, bell, campaign.id, "a.csv", [file], False, secret=SECRET
    )
    monkeypatch.setattr(imports, "_record", _cut_at(imports._record, call=3))
    with pytest.raises(PowerCut):
        imports.run(session, lambda: now, import_id, secret=SECRET)
    monkeypatch.undo()
    session.expire_all()
    half = session.get_one(Import, import_id)
    assert (half.state, half.rows_done, half.added) == ("running", 400, 400)

    imports.run(session, lambda: now, import_id, secret=SECRET)
    assert session.get_one(Import, import_id).rows_done == 400, "its lease still stands"

    after_lease = now + imports.LEASE + timedelta(seconds=1)
    assert imports.waiting_imports(session, now) == []
    assert imports.waiting_imports(session, after_lease) == [import_id]
    imports.run(session, lambda: after_lease, import_id, secret=SECRET)
    session.expire_all()
    done = session.get_one(Import, import_id)
    assert (done.state, counts(done)) == ("done", (899, 0, 0, 1))
    assert len(batch(session, campaign)) == 899
    assert session.scalars(select(RejectedRow.line)).all() == [434]


def _cut_at(record: Callable[..., None], call: int) -> Callable[..., None]:
    calls = iter(range(1, call + 1))

    def cut(*args: Any) -> None:
        record(*args)
        if next(calls) == call:
            raise PowerCut

    return cut


@pytest.mark.usefixtures("tenths")
def test_a_worker_that_wakes_up_too_late_writes_nothing(
    session: Session, sessions: sessionmaker[Session], now: datetime, bell: Bell
) -> None:
    campaign = add_campaign(session)
    import_id = imports.upload(
        session, now, bell, campaign.id, "a.csv", [many(900)], False, secret=SECRET
    )
    ticks: Iterator[None] = iter([None] * 2)

    def frozen_in_the_middle() -> datetime:
        """After the claim and one slice, another worker takes over and finishes."""
        if next(ticks, "frozen") == "frozen":
            with sessions() as other:
                imports.run(other, lambda: now + timedelta(minutes=5), import_id, secret=SECRET)
        return now

    imports.run(session, frozen_in_the_middle, import_id, secret=SECRET)
    session.expire_all()
    done = session.get_one(Import, import_id)
    assert (done.state, done.rows_done, counts(done)) == ("done", 900, (900, 0, 0, 0))


@pytest.mark.usefixtures("tenths")
def test_an_import_that_never_gets_further_has_failed_with_a_sentence(
    session: Session, now: datetime, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = add_campaign(session)
    import_id = imports.upload(
        session, now, bell, campaign.id, "a.csv", [many(900)], False, secret=SECRET
    )
    record = imports._record

    def broken_at_the_third(
        session: Session, import_id: int, tally: imports.Tally, done: int
    ) -> None:
        if session.get_one(Import, import_id, populate_existing=True).rows_done == 400:
            raise ZeroDivisionError("a fault of ours")
        record(session, import_id, tally, done)

    monkeypatch.setattr(imports, "_record", broken_at_the_third)
    # The first one got somewhere.
    for number in range(1 + imports.ATTEMPTS):
        later = now + number * AFTER_LEASE
        assert imports.waiting_imports(session, later) == [import_id]
        with pytest.raises(ZeroDivisionError):
            imports.run(session, itertools.repeat(later).__next__, import_id, secret=SECRET)
    now += (1 + imports.ATTEMPTS) * AFTER_LEASE
    imports.run(session, lambda: now, import_id, secret=SECRET)
    session.expire_all()
    failed = session.get_one(Import, import_id)
    assert (failed.state, failed.added, failed.finished_at) == ("failed", 400, now)
    assert "could not go on after row 400: 5 tries ended in an error" in failed.error
    assert imports.waiting_imports(session, now + timedelta(days=1)) == []
    assert session.scalar(select(func.count()).select_from(ImportChunk)) == 0

    monkeypatch.undo()
    assert counts(upload(session, now, campaign, many(900))) == (0, 0, 0, 0)
    (again,) = imports.waiting_imports(session, now)
    imports.run(session, lambda: now, again, secret=SECRET)
    session.expire_all()
    assert counts(session.get_one(Import, again)) == (500, 0, 400, 0)


@pytest.mark.usefixtures("tenths")
def test_workers_that_die_count_only_until_it_gets_further(
    session: Session, now: datetime, bell: Bell, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = add_campaign(session)
    import_id = imports.upload(
        session, now, bell, campaign.id, "a.csv", [many(2_000)], False, secret=SECRET
    )
    for number in range(imports.ATTEMPTS + 3):
        later = now + number * AFTER_LEASE
        monkeypatch.setattr(imports, "_record", _cut_at(imports._record, call=2))
        with pytest.raises(PowerCut):
            imports.run(session, itertools.repeat(later).__next__, import_id, secret=SECRET)
        monkeypatch.undo()
    now += (imports.ATTEMPTS + 3) * AFTER_LEASE
    imports.run(session, lambda: now, import_id, secret=SECRET)
    session.expire_all()
    done = session.get_one(Import, import_id)
    assert (done.state, counts(done)) == ("done", (2_000, 0, 0, 0))


def test_a_file_that_nobody_confirms_is_let_go_after_a_week(
    session: Session, now: datetime, bell: Bell
) -> None:
    campaign = add_campaign(session)
    waiting = upload(session, now, campaign, "email\nann@people.example\n", review=True)
    week = timedelta(days=imports.REVIEW_DAYS)
    assert imports.forget_reviews(session, now + week) == 0
    assert imports.forget_reviews(session, now + week + timedelta(seconds=1)) == 1
    assert imports.forget_reviews(session, now + 2 * week) == 0
    session.expire_all()
    assert waiting.state == "failed"
    assert waiting.error.startswith("Nobody confirmed this file within 7 days")
    assert session.scalar(select(func.count()).select_from(ImportChunk)) == 0
    with pytest.raises(imports.NotInReview):
        imports.confirm(session, now, bell, waiting.id, ["email"], secret=SECRET)


@pytest.mark.usefixtures("tenths")
def test_two_workers_at_once_import_once(
    session: Session, sessions: sessionmaker[Session], now: datetime, bell: Bell
) -> None:
    campaign = add_campaign(session)
    import_id = imports.upload(
        session, now, bell, campaign.id, "a.csv", [many(900)], False, secret=SECRET
    )
    _at_once(sessions, now, [import_id, import_id, import_id])
    session.expire_all()
    assert counts(session.get_one(Import, import_id)) == (900, 0, 0, 0)
    imports.run(session, lambda: now, import_id, secret=SECRET)
    assert counts(session.get_one(Import, import_id)) == (900, 0, 0, 0)


@pytest.mark.usefixtures("tenths")
def test_two_uploads_of_the_same_people_at_once(
    session: Session, sessions: sessionmaker[Session], now: datetime, bell: Bell
) -> None:
    campaign = add_campaign(session)
    lines = many(900, city="Bonn").split(b"\n")
    turned = b"\n".join([lines[0], *reversed(lines[1:])])
    ids = [
        imports.upload(session, now, bell, campaign.id, "a.csv", [file], False, secret=SECRET)
        for file in (many(900), turned)
    ]
    _at_once(sessions, now, ids)
    session.expire_all()
    both = [session.get_one(Import, import_id) for import_id in ids]
    assert [done.state for done in both] == ["done", "done"]
    assert sum(done.added for done in both) == 900
    assert [sum(counts(done)) for done in both] == [900, 900]
    people = batch(session, campaign)
    assert len(people) == 900
    assert all(person.attributes == {"city": "Bonn"} for person in people)


def _at_once(sessions: sessionmaker[Session], now: datetime, ids: Sequence[int]) -> None:
    failures: list[BaseException] = []
    ready = threading.Barrier(len(ids))

    def work(import_id: int) -> None:
        try:
            with sessions() as own:
                ready.wait()
                imports.run(own, lambda: now, import_id, secret=SECRET)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, args=(import_id,)) for import_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_the_numbers_add_up_whatever_is_in_the_file(session: Session, now: datetime) -> None:
    campaign = add_campaign(session)
    add_contact(session, campaign, "Ann")
    file = "email,name\n" + "ann@people.example,Ann\nbob@people.example,\nx,y\n,Z\n" * 900
    done = upload(session, now, campaign, file)
    assert sum(counts(done)) == done.rows == done.rows_done == 3_600
    assert counts(done) == (1, 0, 1_799, 1_800)


def test_who_downloads_slowly_keeps_no_transaction_open(session: Session, now: datetime) -> None:
    """PostgreSQL would end it after some seconds, and the download with it."""
    campaign = add_campaign(session)
    done = upload(session, now, campaign, "email,name\nann@people.example,Ann\nnobody,No One\n")
    campaign_id, import_id = campaign.id, done.id
    for table in (
        contacts.export(session, campaign_id),
        imports.rejected_table(session, import_id),
    ):
        rows = []
        for row in table:
            assert not session.in_transaction()
            rows.append(row)
        assert len(rows) == 2
