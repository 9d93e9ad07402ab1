"""What the lane asks of what its slices are of: an emailer, or the sequence of a campaign."""

import contextlib
from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Campaign, Emailer, Scenario
from mcs.services import email_actions, emailers
from mcs.services.slice_claims import Parent
from mcs.services.transactions import writing


def pause(session: Session, now: datetime, parent: Parent, notice: str) -> None:
    """Start no more of its messages until a person resumes it. ``notice`` says why."""
    if parent.campaign_id is not None:
        email_actions.hold(session, now, parent.campaign_id, notice)
    elif parent.emailer_id is not None:
        with contextlib.suppress(emailers.NotPossible):
            emailers.pause(session, now, parent.emailer_id, notice=notice)


def goes_on(session: Session, parent: Parent) -> bool:
    """Whether its messages may start."""
    if parent.campaign_id is not None:
        return email_actions.sending(session, parent.campaign_id)
    return session.get_one(Emailer, parent.emailer_id).state == "sending"


def note(session: Session, parent: Parent, notice: str) -> None:
    """Say to people what holds it up for now; empty when all is well again."""
    if parent.campaign_id is not None:
        email_actions.note(session, parent.campaign_id, notice)
    elif parent.emailer_id is not None:
        emailers.note(session, parent.emailer_id, notice)


def note_cuts(session: Session, parent: Parent, cuts: int) -> None:
    """Remember, for whichever worker goes on, how often in a row the server broke off."""
    if parent.campaign_id is not None:
        email_actions.note_cuts(session, parent.campaign_id, cuts)
    elif parent.emailer_id is not None:
        emailers.note_cuts(session, parent.emailer_id, cuts)


class Seen(NamedTuple):
    """What a lane looks at again and again, of a parent whose messages may start: the notice that
    people read, and its campaign's rate, which they may change."""

    notice: str
    campaign_id: int
    send_rate: float | None


def look(session: Session, parents: Collection[Parent]) -> dict[Parent, Seen]:
    """How those of the parents stand whose messages may start."""
    seen = Campaign.id, Campaign.send_rate
    emailer_ids = {parent.emailer_id for parent in parents} - {None}
    campaign_ids = {parent.campaign_id for parent in parents} - {None}
    of_emailers: dict[int | None, Seen] = {}
    of_sequences: dict[int | None, Seen] = {}
    if emailer_ids:
        rows = session.execute(
            select(Emailer.id, Emailer.notice, *seen)
            .join(Scenario, Scenario.id == Emailer.scenario_id)
            .join(Campaign, Campaign.id == Scenario.campaign_id)
            .where(Emailer.id.in_(emailer_ids), Emailer.state == "sending")
        )
        of_emailers = {row[0]: Seen(*row[1:]) for row in rows}
    if campaign_ids:
        rows = session.execute(
            select(Campaign.id, Campaign.notice, *seen).where(
                Campaign.id.in_(campaign_ids), email_actions.may_go()
            )
        )
        of_sequences = {row[0]: Seen(*row[1:]) for row in rows}
    session.commit()
    return {
        parent: of[key]
        for parent in parents
        for of, key in ((of_emailers, parent.emailer_id), (of_sequences, parent.campaign_id))
        if key in of
    }


def finish(session: Session, now: datetime, parent: Parent) -> None:
    """Write down how many it has served; close it if nothing is left to do."""
    if parent.emailer_id is not None:
        emailers.finish(session, now, parent.emailer_id)
    elif parent.scenario_id is not None:
        with writing(session):
            email_actions.record_served(session, parent.scenario_id)


def ring(session: Session, now: datetime, queue: JobQueue, parent: Parent) -> None:
    """Call workers to its slices that are due."""
    if parent.emailer_id is not None:
        emailers.ring(session, now, queue, parent.emailer_id)
    else:
        email_actions.ring(session, now, queue, parent.campaign_id)
