"""Audiences: whom a sending would reach, and who is left out and why."""

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, Subquery, func, or_, select
from sqlalchemy.orm import Session, aliased

from mcs.models import Batch, BatchContact, Contact, Delivery, Emailer, Scenario, Suppression


@dataclass(frozen=True)
class Audience:
    """The subtraction that pages show: contacts, minus each reason, makes ``reached``."""

    contacts: int
    left_out: dict[str, int]

    @property
    def reached(self) -> int:
        return self.contacts - sum(self.left_out.values())


def count(session: Session, campaign_id: int, excludes_id: int | None = None) -> Audience:
    """Count the campaign's batch as it is now, by the reason that keeps a contact out."""
    members = _members(campaign_id, excludes_id).subquery()
    rows = session.execute(select(members.c.reason, func.count()).group_by(members.c.reason))
    by_reason: dict[str, int] = dict(rows.all())
    return Audience(
        contacts=sum(by_reason.values()),
        left_out={reason: number for reason, number in sorted(by_reason.items()) if reason},
    )


def members(campaign_id: int, excludes_id: int | None) -> Select[int, str]:
    """Each contact of the batch, by id, with the reason to leave it out, or an empty one."""
    return _members(campaign_id, excludes_id).order_by(BatchContact.contact_id)


def size(session: Session, campaign_id: int, excludes_id: int | None) -> int:
    """How many contacts ``members`` has, counted on the batch alone.

    It joins nothing that ``members`` joins, so that the two can prove each other.
    """
    batch = select(Batch.id).where(Batch.campaign_id == campaign_id).scalar_subquery()
    query = select(func.count()).where(BatchContact.batch_id == batch)
    if excludes_id is not None:
        query = query.where(not_served_by(excludes_id))
    return session.scalars(query).one()


def not_served_by(scenario_id: int) -> ColumnElement[bool]:
    """Contacts with no delivery of that scenario, nor of one that it left out itself, and so on:
    those added since."""
    return ~served_by(scenario_id).where(Delivery.contact_id == BatchContact.contact_id).exists()


def served_by(scenario_id: int) -> Select[int]:
    """The deliveries of that scenario, of the one that it left out, and so on."""
    return (
        select(Delivery.id)
        .join(Emailer, Emailer.id == Delivery.emailer_id)
        .where(Emailer.scenario_id.in_(_lineage(scenario_id)))
    )


def _lineage(scenario_id: int) -> Select[int]:
    """The scenario, the one whose recipients it leaves out, the one that left out, and so on."""
    line = (
        select(Scenario.id, Scenario.excludes_id)
        .where(Scenario.id == scenario_id)
        .cte("lineage", recursive=True)
    )
    before = aliased(Scenario)
    return select(
        line.union(
            select(before.id, before.excludes_id).where(before.id == line.c.excludes_id)
        ).c.id
    )


def _members(campaign_id: int, excludes_id: int | None) -> Select[int, str]:
    suppressed = suppressed_addresses(campaign_id)
    query = (
        select(
            BatchContact.contact_id,
            func.coalesce(suppressed.c.reason, "").label("reason"),
        )
        .join(Batch, Batch.id == BatchContact.batch_id)
        .join(Contact, Contact.id == BatchContact.contact_id)
        .outerjoin(suppressed, suppressed.c.email_key == Contact.email_key)
        .where(Batch.campaign_id == campaign_id)
    )
    return query if excludes_id is None else query.where(not_served_by(excludes_id))


def suppressed_in(campaign_id: int) -> Select[int]:
    """For the contact of the query around it: what keeps this campaign from writing to it."""
    return (
        select(Suppression.id)
        .where(
            Suppression.email_key == Contact.email_key,
            or_(Suppression.campaign_id.is_(None), Suppression.campaign_id == campaign_id),
        )
        .correlate(Contact)
    )


def suppressed_addresses(campaign_id: int) -> Subquery:
    """The addresses that this campaign must not write to, each once, with a reason."""
    return (
        select(Suppression.email_key, func.min(Suppression.reason).label("reason"))
        .where(or_(Suppression.campaign_id.is_(None), Suppression.campaign_id == campaign_id))
        .group_by(Suppression.email_key)
        .subquery("suppressed")
    )
