"""Settling: what a person decides about deliveries that MCS cannot, or will not, decide itself."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, ScalarSelect, func, select, update
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import AuditEntry, Contact, Delivery, Emailer, Scenario, Slice
from mcs.services import audiences, audit, definitions, email_actions, emailers, unwanted
from mcs.services.emailers import NotPossible
from mcs.services.slices import lies_in
from mcs.services.transactions import NO_SYNC, writing

ANSWERS = ("sent", "failed", "again")
BY_PERSON = "settled by a person"


def settle(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    answer: str,
    delivery_id: int | None = None,
    *,
    user_id: int | None = None,
) -> int:
    """Settle one delivery in doubt, or all of an emailer; how many.

    ``answer``: it was ``sent``, it ``failed``, or send it ``again`` with the same Message-ID, so
    that a server or a person can see that the two are one. Who is suppressed meanwhile is skipped
    instead, and not counted. Raises NotPossible when there is none: somebody was faster.
    """
    _check(answer)
    only = () if delivery_id is None else (Delivery.id == delivery_id,)
    verb = f"settled as {answer}"
    with writing(session):
        number = _change(session, now, emailer_id, "in_doubt", only, answer, verb, user_id)
    emailers.ring(session, now, queue, emailer_id)
    return number


def retry_failed(
    session: Session,
    now: datetime,
    queue: JobQueue,
    emailer_id: int,
    *,
    user_id: int | None = None,
) -> int:
    """Try an emailer's failed deliveries once more; how many go again.

    Those to addresses that are suppressed (a mailbox that does not exist is) stay failed. Raises
    NotPossible when no other failed.
    """
    with writing(session):
        number = _change(session, now, emailer_id, "failed", (), "again", "retried", user_id)
    emailers.ring(session, now, queue, emailer_id)
    return number


def settle_of_sequence(
    session: Session,
    now: datetime,
    queue: JobQueue,
    campaign_id: int,
    answer: str,
    delivery_id: int | None = None,
    *,
    user_id: int | None = None,
) -> int:
    """``settle`` for the emails of a campaign's sequence: their actions move in the same commit.

    Who must not be written to any more, or was withdrawn meanwhile, is skipped instead of written
    to again. Raises Unknown, NotPossible.
    """
    _check(answer)
    with writing(session):
        plan = definitions.load(session, campaign_id)
        if answer == "again" and not (plan.running and now < plan.calendar.ends):
            raise NotPossible(
                "The campaign is switched off or over: nobody of it can be written to again."
            )
        # Before the slices, as who unsubscribes does: their numbers are written at the end.
        _hold_scenarios(session, campaign_id)
        moved: list[int] = []
        for piece in _in_doubt(session, campaign_id):
            moved += _settle_slice(session, now, campaign_id, piece, answer, delivery_id)
        email_actions.follow(session, now, [plan], moved)
        for sends in _scenarios_of(session, campaign_id):
            email_actions.record_served(session, sends)
        if not moved:
            raise NotPossible(_NOTHING["in_doubt"])
        verb, number = f"settled as {answer} emails of", len(moved)
        audit.note(session, now, user_id, verb, "campaign", campaign_id, deliveries=number)
    email_actions.ring(session, now, queue, campaign_id)
    return number


def _check(answer: str) -> None:
    if answer not in ANSWERS:
        raise ValueError(f"answer is one of {', '.join(ANSWERS)}, not {answer!r}")


# Of an emailer.


def retriable(session: Session, emailer_id: int) -> int:
    """How many of an emailer's failed deliveries ``retry_failed`` would try again."""
    emailer = session.get_one(Emailer, emailer_id)
    reason = _why_suppressed(emailer.scenario.campaign_id)
    these = (Delivery.emailer_id == emailer_id, Delivery.exception == "failed", reason.is_(None))
    return session.scalars(select(func.count(Delivery.id)).where(*these)).one()


def _change(
    session: Session,
    now: datetime,
    emailer_id: int,
    before: str,
    only: Sequence[ColumnElement[bool]],
    answer: str,
    verb: str,
    user_id: int | None,
) -> int:
    emailer = emailers.locked(session, emailer_id)
    if answer == "again" and emailer.state == "cancelled":
        raise NotPossible("This sending has been cancelled: nobody of it can be written to again.")
    slices = session.scalars(
        select(Slice)
        .where(Slice.emailer_id == emailer_id, getattr(Slice, before) > 0)
        .order_by(Slice.id)
        .with_for_update()
    ).all()
    moved = Counter[str]()
    for piece in slices:
        moved += _settle(session, now, emailer.scenario.campaign_id, piece, before, only, answer)
    if not moved:
        raise NotPossible(_NOTHING[before])
    number = moved[_STATES[answer]]
    _reopen(session, now, emailer)
    session.add(
        AuditEntry(
            at=now,
            user_id=user_id,
            verb=verb,
            noun="emailer",
            noun_id=emailer_id,
            detail={"deliveries": number},
        )
    )
    return number


def _settle(
    session: Session,
    now: datetime,
    campaign_id: int,
    piece: Slice,
    before: str,
    only: Sequence[ColumnElement[bool]],
    answer: str,
) -> Counter[str]:
    """Settle what is ``before`` of an emailer's slice; how many are what now."""
    these = (
        lies_in(piece),
        Delivery.exception == before,
        *only,
    )
    moved = Counter[str]()
    if answer == "again":
        reason = _why_suppressed(campaign_id)
        # What failed has been settled, and stays what it is.
        if before == "in_doubt":
            unwanted = (*these, reason.is_not(None))
            moved["skipped"] = _move(session, piece, before, unwanted, "skipped", reason=reason)
        these = (*these, reason.is_(None))
    state = _STATES[answer]
    moved[state] = _move(session, piece, before, these, state, **_settled(now, answer))
    return moved


def _why_suppressed(campaign_id: int) -> ScalarSelect[str]:
    """For the delivery of the query around it: why its address must not be written to, or NULL."""
    addresses = audiences.suppressed_addresses(campaign_id)
    return (
        select(addresses.c.reason)
        .join(Contact, Contact.email_key == addresses.c.email_key)
        .where(Contact.id == Delivery.contact_id)
        .scalar_subquery()
    )


def _reopen(session: Session, now: datetime, emailer: Emailer) -> None:
    session.flush()
    pending, sent = session.execute(
        select(func.sum(Slice.pending), func.sum(Slice.sent)).where(Slice.emailer_id == emailer.id)
    ).one()
    if emailer.state == "sent" and pending:
        emailer.state, emailer.finished_at = "sending", None
        emailer.paced_from, emailer.paced_sent = now, int(sent)
    session.flush()
    emailers.record_served(session, emailer.id)


# Of a sequence.


def _hold_scenarios(session: Session, campaign_id: int) -> None:
    session.execute(
        select(Scenario.id)
        .where(Scenario.campaign_id == campaign_id)
        .order_by(Scenario.id)
        .with_for_update(key_share=True)
    )


def _in_doubt(session: Session, campaign_id: int) -> Sequence[Slice]:
    return session.scalars(
        select(Slice)
        .join(Scenario, Scenario.id == Slice.scenario_id)
        .where(Scenario.campaign_id == campaign_id, Slice.in_doubt > 0)
        .order_by(Slice.id)
        .with_for_update(of=Slice)
    ).all()


def _settle_slice(
    session: Session,
    now: datetime,
    campaign_id: int,
    piece: Slice,
    answer: str,
    delivery_id: int | None,
) -> list[int]:
    wanted = [Delivery.slice_id == piece.id, Delivery.exception == "in_doubt"]
    if delivery_id is not None:
        wanted.append(Delivery.id == delivery_id)
    ids = list(session.scalars(select(Delivery.id).where(*wanted)))
    reasons = {}
    if answer == "again" and ids:
        reasons = unwanted.of_sequence(session, now, campaign_id, ids)
        piece.begun_at = now
    for why in sorted(set(reasons.values())):
        these = Delivery.id.in_([id for id, reason in reasons.items() if reason == why])
        _move(session, piece, "in_doubt", (these,), "skipped", reason=why)
    _move(session, piece, "in_doubt", wanted, _STATES[answer], **_settled(now, answer))
    return ids


def _scenarios_of(session: Session, campaign_id: int) -> Sequence[int]:
    return session.scalars(
        select(Scenario.id)
        .join(Slice, Slice.scenario_id == Scenario.id)
        .where(Scenario.campaign_id == campaign_id)
        .distinct()
        .order_by(Scenario.id)
    ).all()


# Of either.

_NOTHING = {
    "in_doubt": "Nothing of it is in doubt, or it has been settled already.",
    "failed": "Nothing can be tried again: no message failed, or only those to addresses that are"
    " suppressed.",
}
_STATES = {"sent": "sent", "failed": "failed", "again": "pending"}


def _settled(now: datetime, answer: str) -> dict[str, Any]:
    if answer == "again":
        return {"reason": "", "due_at": now}
    if answer == "sent":
        return {"reason": BY_PERSON, "sent_at": func.coalesce(Delivery.started_at, now)}
    return {"reason": BY_PERSON}


def _move(
    session: Session,
    piece: Slice,
    before: str,
    these: Sequence[ColumnElement[bool]],
    state: str,
    **values: Any,
) -> int:
    """Move deliveries of a slice to a state, and its counts with them; how many.

    A slice at a time, since an emailer may have a million that failed.
    """
    moved = session.execute(
        update(Delivery).where(*these).values(state=state, **values).execution_options(**NO_SYNC)
    )
    assert isinstance(moved, CursorResult)
    if moved.rowcount:
        setattr(piece, before, getattr(piece, before) - moved.rowcount)
        setattr(piece, state, getattr(piece, state) + moved.rowcount)
        if state == "pending":
            piece.due_at = min(piece.due_at, values["due_at"])
        session.flush()
    return moved.rowcount
