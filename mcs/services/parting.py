"""Parting: a worker that has little left takes half of what another one holds.

Once all slices of an emailer are claimed, a worker that is done would stand by while the last ones
are sent: with 25 connections and a server 50 ms away, 4.6 s each. So it parts the fullest. Whoever
held it hears of that with its next commit, which starts nothing any more that was taken.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import Row, func, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mcs.core.states import DELIVERY_STATES
from mcs.models import Campaign, Delivery, Emailer, Scenario, Slice
from mcs.services.slice_claims import PARTABLE, Claim, Parent, is_due, new_token
from mcs.services.slices import lies_in
from mcs.services.transactions import writing

# What the fullest has left may be put off until later, as a server that greylists has it.
LOOKED_AT = 3

_Held = Row[int, int | None, int, int, str | None]


def take_share(
    session: Session,
    now: datetime,
    lease: timedelta,
    mine: Collection[int],
    have: int,
    least: int,
) -> Claim | None:
    """Take the end of a slice that another worker is sending, claimed: so much that both have as
    much left, ``have`` being what is left to the caller, which holds the slices ``mine``.

    None where none has so much more than the caller that ``least`` could be taken, or the database
    is busy.
    """
    found = _with_a_share(session, now, mine, have, least)
    session.commit()
    if found is None:
        return None
    try:
        with writing(session):
            held = _hold(session, found)
            from_id = None if held is None else _from(session, now, held, have, least)
            if held is None or from_id is None:
                return None
            return _parted(session, now, lease, held, from_id)
    except OperationalError:
        return None


def _hold(session: Session, found: _Held) -> Slice | None:
    """The slice, locked, if its emailer still goes on. Raises OperationalError when that takes too
    long."""
    if session.get_bind().dialect.name == "postgresql":
        # Its holder commits all the time, which takes milliseconds. But one that froze in the
        # middle of it keeps the lock, and who wants to pause the emailer must not wait for us.
        session.execute(text("SET LOCAL lock_timeout = '200ms'"))
        # And if we freeze, its holder, the clock and persons wait for us.
        session.execute(text("SET LOCAL idle_in_transaction_session_timeout = '2s'"))
    # Held by all who count in an emailer's slices by their ranges before they hold the slices: a
    # cancel, a settlement, an unsubscription.
    sending = session.scalars(
        select(Emailer.id)
        .where(Emailer.id == found.emailer_id, Emailer.state == "sending")
        .with_for_update(key_share=True)
    ).first()
    held = session.scalars(
        select(Slice)
        .where(Slice.id == found.id, Slice.claim_token == found.claim_token)
        .with_for_update(key_share=True)
    ).first()
    return held if sending is not None else None


def _with_a_share(
    session: Session, now: datetime, mine: Collection[int], have: int, least: int
) -> _Held | None:
    """Of the fullest slices that other workers hold the first that has a share for us. Not where a
    campaign has a rate of its own, which more workers do not raise."""
    fullest = session.execute(
        select(Slice.id, Slice.emailer_id, Slice.low_id, Slice.high_id, Slice.claim_token)
        .join(Emailer, Emailer.id == Slice.emailer_id)
        .join(Scenario, Scenario.id == Emailer.scenario_id)
        .join(Campaign, Campaign.id == Scenario.campaign_id)
        .where(
            Slice.claim_token.is_not(None),
            Slice.claim_token.startswith(PARTABLE),
            Slice.lease_until > now,
            Slice.pending >= have + 2 * least,
            Slice.id.not_in(mine),
            Emailer.state == "sending",
            Campaign.send_rate.is_(None),
        )
        .order_by(Slice.pending.desc())
        .limit(LOOKED_AT)
    ).all()
    shares = (one for one in fullest if _from(session, now, one, have, least) is not None)
    return next(shares, None)


def _from(
    session: Session, now: datetime, held: _Held | Slice, have: int, least: int
) -> int | None:
    """The delivery from which on to take; None where too few are due, or one that comes after it is
    in flight: who sent it will record its answer with the slice that is parted."""
    due = session.scalars(
        select(Delivery.id)
        .where(lies_in(held), Delivery.state == "pending", is_due(now))
        .order_by(Delivery.id)
    ).all()
    number = (len(due) - have) // 2
    if number < least:
        return None
    in_flight = session.scalar(
        select(func.max(Delivery.id)).where(lies_in(held), Delivery.state == "sending")
    )
    return due[-number] if (in_flight or 0) < due[-number] else None


def _parted(session: Session, now: datetime, lease: timedelta, held: Slice, from_id: int) -> Claim:
    counts = session.execute(
        select(Delivery.state, func.count())
        .where(lies_in(held), Delivery.id >= from_id)
        .group_by(Delivery.state)
    ).all()
    token = new_token()
    taken = Slice(
        emailer_id=held.emailer_id,
        low_id=from_id,
        high_id=held.high_id,
        due_at=now,
        claim_token=token,
        lease_until=now + lease,
        **dict.fromkeys(DELIVERY_STATES, 0),
    )
    for state, number in counts:
        setattr(taken, state, number)
        setattr(held, state, getattr(held, state) - number)
    held.high_id = from_id - 1
    session.add(taken)
    session.flush()
    return Claim(taken.id, Parent(taken.emailer_id), taken.low_id, taken.high_id, token)
