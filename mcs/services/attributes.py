"""Attributes: the merge fields a batch really has, found without reading all of it."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mcs.core.content import BUILT_IN_FIELDS
from mcs.models import Batch, BatchContact, Contact

# The oldest and the newest of a batch: uploads with other columns differ most between the two.
_SAMPLE = 1000


def listed(session: Session, campaign_id: int) -> list[str]:
    """The attributes of the batch's first and last thousand contacts, in alphabetical order."""
    return sorted(_sampled(session, campaign_id), key=str.casefold)


def known_among(
    session: Session, campaign_id: int, names: Collection[str]
) -> tuple[set[str], set[str]]:
    """Which of ``names`` a contact of the batch has, and which nobody can tell of.

    An attribute outside the sample is looked for in the whole batch before it is called unknown.
    Nobody can tell while the batch is empty.
    """
    known = set(names) & set(BUILT_IN_FIELDS)
    asked = set(names) - known
    if not asked:
        return known, set()
    if _is_empty(session, campaign_id):
        return known, asked
    sampled = _sampled(session, campaign_id)
    rare = {name for name in asked - sampled if _someone_has(session, campaign_id, name)}
    # Every attribute that is known, used or not, so that a near miss can be named.
    return known | set(BUILT_IN_FIELDS) | sampled | rare, set()


def _is_empty(session: Session, campaign_id: int) -> bool:
    return session.scalar(_places(campaign_id).limit(1)) is None


def _places(campaign_id: int) -> Select[Any]:
    return (
        select(BatchContact.contact_id)
        .join(Batch, Batch.id == BatchContact.batch_id)
        .where(Batch.campaign_id == campaign_id)
    )


def _sampled(session: Session, campaign_id: int) -> set[str]:
    found: set[str] = set()
    for order in (BatchContact.contact_id.asc(), BatchContact.contact_id.desc()):
        sample = _places(campaign_id).order_by(order).limit(_SAMPLE).subquery()
        query = select(Contact.attributes).join(sample, sample.c.contact_id == Contact.id)
        for attributes in session.scalars(query):
            found.update(attributes)
    return found


def _someone_has(session: Session, campaign_id: int, name: str) -> bool:
    query = (
        _places(campaign_id)
        .join(Contact, Contact.id == BatchContact.contact_id)
        .where(Contact.attributes[name].as_string().is_not(None))
    )
    return session.scalar(query.limit(1)) is not None
