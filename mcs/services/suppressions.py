"""Suppressions: keep an address from being written to, at once and for good.

A suppression is committed together with the skipping of the address's pending deliveries. Locks
are taken in the order campaigns, scenarios, emailers, batches, slices, deliveries, which every
other writer keeps too:

- the live emailers, shared: an emailer that is just being started either has its deliveries
  committed, so that they are seen here, or is going to read this suppression;
- the campaigns and scenarios whose sequences send, shared, for the same reason;
- the batches that the address is in, shared: who starts an emailer that was planned meanwhile waits
  for the commit;
- the slices of the address's open deliveries: the lane starts a message, and takes one back after
  a temporary refusal, under its slice's lock, so neither can slip between skipping and commit.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    cast,
    delete,
    null,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.orm import Session, aliased

from mcs.core.states import EMAILER_LIVE
from mcs.core.tokens import Recipient
from mcs.models import (
    ActionDefinition,
    AuditEntry,
    Batch,
    BatchContact,
    Campaign,
    Contact,
    Delivery,
    Emailer,
    Scenario,
    Slice,
    Suppression,
)
from mcs.models.sql import insert_into
from mcs.services import action_deliveries, email_actions
from mcs.services.definitions import SEND_EMAIL, Plan
from mcs.services.slices import lies_in
from mcs.services.transactions import NO_SYNC, met_again, writing

# What failed or is in doubt may be sent again by a person's wish, which takes the slice's lock too.
_NOT_OVER = ("pending", "sending", "failed", "in_doubt")

UNSUBSCRIBED = "unsubscribed"
EVERYWHERE = "everywhere"
ONLY_CAMPAIGN = "campaign"
BOUNCED = "bounced"


def unsubscribe(
    session: Session, now: datetime, recipient: Recipient, *, everywhere: bool = True
) -> bool:
    """Honour an unsubscribe link. True when the contact is known; saying it twice is the same."""

    def add_it() -> bool:
        contact, campaign = _known(session, recipient)
        if contact is None or campaign is None:
            return False
        scope = None if everywhere else campaign.id
        if add(session, now, contact.email_key, UNSUBSCRIBED, scope):
            session.add(_audit(now, "unsubscribed", contact, campaign, everywhere))
        return True

    # Should the database break a deadlock at its expense, nobody would say it a second time.
    return met_again(session, add_it)


def unsubscribed(session: Session, recipient: Recipient) -> str:
    """How far the recipient of a link has unsubscribed: EVERYWHERE, ONLY_CAMPAIGN, or ""."""
    contact, campaign = _known(session, recipient)
    if contact is None or campaign is None:
        return ""
    scopes = set(
        session.scalars(
            select(Suppression.campaign_id).where(*_own(contact.email_key, campaign.id))
        )
    )
    if None in scopes:
        return EVERYWHERE
    return ONLY_CAMPAIGN if scopes else ""


def resubscribe(session: Session, now: datetime, recipient: Recipient) -> bool:
    """Take back what the recipient's own unsubscribe did; other suppressions stay."""
    with writing(session):
        contact, campaign = _known(session, recipient)
        if contact is None or campaign is None:
            return False
        removed = session.execute(
            delete(Suppression)
            .where(*_own(contact.email_key, campaign.id))
            .returning(Suppression.id)
        ).all()
        if removed:
            session.add(_audit(now, "resubscribed", contact, campaign, everywhere=True))
    return True


def _own(email_key: str | None, campaign_id: int) -> tuple[ColumnElement[bool], ...]:
    """What the recipient of this campaign's link did with it, and may take back."""
    return (
        Suppression.email_key == email_key,
        Suppression.reason == UNSUBSCRIBED,
        Suppression.campaign_id.is_(None) | (Suppression.campaign_id == campaign_id),
    )


def suppress(
    session: Session, now: datetime, email_key: str, reason: str, campaign_id: int | None = None
) -> bool:
    """Suppress an address, everywhere or for one campaign; False when it already was."""
    with writing(session):
        return add(session, now, email_key, reason, campaign_id)


def follow(session: Session, before: str | None, after: str) -> None:
    """Inside the caller's transaction: suppressions name the address, and go with it when a
    contact's key changes. What holds for the new key in the same scope already is kept."""
    there = aliased(Suppression)
    held = select(there.id).where(
        there.email_key == after,
        there.campaign_id.is_not_distinct_from(Suppression.campaign_id),
    )
    unsynced = {"synchronize_session": False}
    session.execute(
        delete(Suppression).where(Suppression.email_key == before, held.exists()),
        execution_options=unsynced,
    )
    session.execute(
        update(Suppression).where(Suppression.email_key == before).values(email_key=after),
        execution_options=unsynced,
    )


def is_suppressed(session: Session, email_key: str, campaign_id: int) -> bool:
    """Whether this campaign must not write to the address."""
    query = select(Suppression.id).where(
        Suppression.email_key == email_key,
        Suppression.campaign_id.is_(None) | (Suppression.campaign_id == campaign_id),
    )
    return session.scalars(query.limit(1)).first() is not None


def skip_pending(
    session: Session,
    now: datetime,
    email_key: str,
    reason: str,
    campaign_id: int | None = None,
) -> int:
    """Skip the address's pending deliveries, inside the caller's transaction; how many.

    See the module for the locks that make it safe against a lane that is sending.
    """
    plans = _hold(session, email_key, campaign_id)
    open_ones = _open_deliveries(email_key, campaign_id).subquery()
    skipped = session.execute(
        update(Delivery)
        .where(Delivery.id.in_(select(open_ones.c.id)), Delivery.state == "pending")
        .values(state="skipped", reason=reason)
        .returning(Delivery.id, Delivery.emailer_id, Delivery.slice_id)
        .execution_options(**NO_SYNC)
    ).all()
    for row in skipped:
        session.execute(
            update(Slice)
            .where(lies_in(Slice, row) if row.slice_id is None else Slice.id == row.slice_id)
            .values(pending=Slice.pending - 1, skipped=Slice.skipped + 1)
            .execution_options(**NO_SYNC)
        )
    of_actions = [row.id for row in skipped if row.slice_id is not None]
    email_actions.follow(session, now, plans, of_actions)
    return len(skipped)


def add(
    session: Session, now: datetime, email_key: str, reason: str, campaign_id: int | None
) -> bool:
    """``suppress``, inside the caller's transaction."""
    # The database decides who is first: a worker that hears of a dead mailbox locks no contact.
    added = session.scalars(
        insert_into(session, Suppression)
        .values(email_key=email_key, campaign_id=campaign_id, reason=reason, created_at=now)
        .on_conflict_do_nothing()
        .returning(Suppression.id)
    ).first()
    if added is None:
        return False
    skip_pending(session, now, email_key, reason, campaign_id)
    return True


def _known(session: Session, recipient: Recipient) -> tuple[Contact | None, Campaign | None]:
    """The contact, locked so that two clicks at once become one suppression; the campaign."""
    # Not FOR UPDATE: who adds the contact to a batch, or enrols it, refers to this row, and would
    # wait for us, and we for it.
    contact = session.scalars(
        select(Contact).where(Contact.uid == recipient.contact_uid).with_for_update(key_share=True)
    ).first()
    campaign = session.scalars(
        select(Campaign).where(Campaign.uid == recipient.campaign_uid)
    ).first()
    return contact, campaign


def _hold(session: Session, email_key: str, campaign_id: int | None) -> list[Plan]:
    """Hold all by which the address may be written to; the sequences among it."""
    sequences = _hold_sequences(session, campaign_id)
    _hold_live_emailers(session, campaign_id)
    _hold_batches(session, email_key)
    while True:
        slices = session.execute(_open_slices(email_key, campaign_id)).all()
        plans = email_actions.plans(session, {row.campaign_id for row in slices} - {None})
        action_deliveries.hold_slices(session, [row.id for row in slices])
        # While we waited for a slice, which a worker that froze may hold for long, a first email
        # step may have been defined, and started.
        held, sequences = sequences, _hold_sequences(session, campaign_id)
        if sequences == held:
            return plans


def _hold_batches(session: Session, email_key: str) -> None:
    """An emailer that is planned and started from now on reads its batch after our commit."""
    session.execute(
        select(Batch.id)
        .join(BatchContact, BatchContact.batch_id == Batch.id)
        .join(Contact, Contact.id == BatchContact.contact_id)
        .where(Contact.email_key == email_key)
        .order_by(Batch.id)
        .with_for_update(read=True, of=Batch)
    )


def _live_emailers(campaign_id: int | None) -> Select[int]:
    # A missed one, too, may be started in this very moment, by a person.
    states = (*EMAILER_LIVE, "missed")
    query = select(Emailer.id).where(Emailer.state.in_(states)).order_by(Emailer.id)
    if campaign_id is None:
        return query
    return query.where(
        Emailer.scenario_id.in_(select(Scenario.id).where(Scenario.campaign_id == campaign_id))
    )


def _hold_live_emailers(session: Session, campaign_id: int | None) -> None:
    """Again until there is no other one: while we wait for one lock, an emailer may be planned."""
    held: set[int] = set()
    query = _live_emailers(campaign_id).with_for_update(read=True)
    while (found := set(session.scalars(query))) - held:
        held |= found


def _hold_sequences(session: Session, campaign_id: int | None) -> set[int]:
    """The campaigns whose sequences send email, and then what they send: again until there is no
    other one, since a step may be defined while we wait."""
    held: set[int] = set()
    query = select(Campaign.id).where(
        Campaign.id.in_(
            select(ActionDefinition.campaign_id).where(ActionDefinition.callback == SEND_EMAIL)
        )
    )
    if campaign_id is not None:
        query = query.where(Campaign.id == campaign_id)
    query = query.order_by(Campaign.id).with_for_update(read=True)
    while (found := set(session.scalars(query))) - held:
        action_deliveries.share_births(session, found)
        held |= found
    return held


def _open_deliveries(email_key: str, campaign_id: int | None) -> Select[Any]:
    columns: list[Any] = [Delivery.id, Delivery.emailer_id, Delivery.slice_id]
    query = (
        select(*columns)
        .join(Contact, Contact.id == Delivery.contact_id)
        .where(Contact.email_key == email_key, Delivery.state.in_(_NOT_OVER))
    )
    if campaign_id is None:
        return query
    scenarios = select(Scenario.id).where(Scenario.campaign_id == campaign_id)
    return query.where(
        or_(
            Delivery.emailer_id.in_(select(Emailer.id).where(Emailer.scenario_id.in_(scenarios))),
            Delivery.slice_id.in_(select(Slice.id).where(Slice.scenario_id.in_(scenarios))),
        )
    )


def _open_slices(email_key: str, campaign_id: int | None) -> Any:
    """Their ids; and the campaigns of those that belong to a sequence."""
    ranged = _open_deliveries(email_key, campaign_id).subquery()
    named = _open_deliveries(email_key, campaign_id).subquery()
    return union(
        select(Slice.id, cast(null(), Integer).label("campaign_id")).join(
            ranged, lies_in(Slice, ranged.c)
        ),
        select(Slice.id, Scenario.campaign_id)
        .join(named, Slice.id == named.c.slice_id)
        .join(Scenario, Scenario.id == Slice.scenario_id),
    )


def _audit(
    now: datetime, verb: str, contact: Contact, campaign: Campaign, everywhere: bool
) -> AuditEntry:
    return AuditEntry(
        at=now,
        verb=verb,
        noun="contact",
        noun_id=contact.id,
        detail={"campaign": campaign.id, "everywhere": everywhere},
    )


@dataclass(frozen=True)
class Sender:
    """Who wrote to a recipient, in the words the recipient knows; empty when nobody knows."""

    name: str
    campaign: str


def sender(session: Session, recipient: Recipient) -> Sender:
    """The sender and the campaign of an unsubscribe link."""
    campaign = session.scalars(
        select(Campaign).where(Campaign.uid == recipient.campaign_uid)
    ).first()
    return Sender(campaign.from_name, campaign.name) if campaign else Sender("", "")
