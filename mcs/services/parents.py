"""What the lane asks of what its slices are of: an emailer, or the sequence of a campaign."""

import contextlib
from datetime import datetime

from sqlalchemy.orm import Session

from mcs.gateways.jobqueue import JobQueue
from mcs.models import Emailer
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
