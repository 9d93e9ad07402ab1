"""Messages: the scenarios that the email steps of sequences send. They have no date."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, String, and_, cast, exists, select
from sqlalchemy.orm import Session

from mcs.models import Action, ActionDefinition, Scenario, Schedule
from mcs.services.definitions import SEND_EMAIL, Step


@dataclass(frozen=True)
class Owed:
    """A message that a sequence still owes somebody, and when; None: once another step is done."""

    scenario: Scenario
    at: datetime | None
    schedule_id: int


def message_of(session: Session, campaign_id: int, step: Step) -> Scenario | None:
    """The scenario that an email step sends; None for other steps, or where it is gone."""
    return messages_of(session, {campaign_id: [step]}).get((campaign_id, step.key))


def messages_of(
    session: Session, steps: Mapping[int, Sequence[Step]]
) -> dict[tuple[int, str], Scenario]:
    """The scenarios that the email steps of some campaigns send, by the campaign's id and the
    step's, from one statement."""
    numbers = {
        (campaign_id, step.key): number
        for campaign_id, ones in steps.items()
        for step in ones
        if (number := _number(step)) is not None
    }
    if not numbers:
        return {}
    rows = session.scalars(select(Scenario).where(Scenario.id.in_(set(numbers.values()))))
    found = {(one.campaign_id, one.id): one for one in rows}
    return {
        (campaign_id, key): found[campaign_id, number]
        for (campaign_id, key), number in numbers.items()
        if (campaign_id, number) in found
    }


def owed_to(session: Session, contact_id: int, limit: int) -> list[Owed]:
    """The messages that sequences still owe a contact, the soonest first, so many at most."""
    rows = session.execute(
        select(Scenario, Action.due_at, Schedule.id)
        .select_from(Action)
        .join(Schedule, Schedule.id == Action.schedule_id)
        .join(
            ActionDefinition,
            and_(
                ActionDefinition.campaign_id == Schedule.campaign_id,
                ActionDefinition.key == Action.key,
            ),
        )
        .join(Scenario, _belongs())
        .where(Schedule.contact_id == contact_id, Action.state == "pending")
        .order_by(Action.due_at.is_(None), Action.due_at, Action.id)
        .limit(limit)
    )
    return [Owed(scenario, at, schedule_id) for scenario, at, schedule_id in rows]


def of_a_step() -> ColumnElement[bool]:
    """Whether a Scenario of the query around this is the message of a step."""
    return exists().where(_belongs())


def step_of(session: Session, scenario: Scenario) -> str | None:
    """The id of the step whose message a scenario is, if it is one's."""
    return session.scalar(
        select(ActionDefinition.key)
        .join(Scenario, _belongs())
        .where(Scenario.id == scenario.id)
        .limit(1)
    )


def _number(step: Step) -> int | None:
    """The id of the scenario that an email step names."""
    number = step.config.get("scenario")
    return number if step.callback == SEND_EMAIL and isinstance(number, int) else None


def _belongs() -> ColumnElement[bool]:
    # Compared as texts: another's config may hold anything under that name.
    number = cast(ActionDefinition.config["scenario"].as_string(), String)
    return and_(
        ActionDefinition.campaign_id == Scenario.campaign_id,
        ActionDefinition.callback == SEND_EMAIL,
        number == cast(Scenario.id, String),
    )
