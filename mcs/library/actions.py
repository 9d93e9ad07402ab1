"""Actions: what is to be, and what became of it."""

from collections.abc import Sequence
from datetime import datetime

from mcs.library import arguments
from mcs.library.arguments import BadArgument
from mcs.library.ground import Ground
from mcs.library.infos import ActionInfo, PlannedAction
from mcs.models import Action, Campaign
from mcs.services import actions, failures, sequences
from mcs.services.actions import Found
from mcs.services.schedules import Refused, Subject
from mcs.services.unknown import Unknown


class Actions(Ground):
    """The verbs of actions."""

    def get_actions(
        self,
        *,
        state: str | Sequence[str] | None = None,
        campaign_id: str | Sequence[str] | None = None,
        subject: str | Sequence[str] | None = None,
        subject_id: str | int | Sequence[str | int] | None = None,
        action_id: str | Sequence[str] | None = None,
        expected_at: datetime | tuple[datetime | None, datetime | None] | None = None,
        completed_at: datetime | tuple[datetime | None, datetime | None] | None = None,
        active: bool | None = None,
        limit: int | None = None,
        order: str = "expected_at",
    ) -> list[ActionInfo]:
        """Actions, filtered. Each filter is one value or a list; a moment is one or a pair.

        A pair of moments is a range with both ends included; None leaves an end open. ``active``
        is whether the subject is enrolled still. ``order`` is expected_at, completed_at or id, with
        a minus in front for the latest first.
        """
        conditions = [
            Campaign.key.is_not(None),
            *arguments.of_whom(campaign_id, subject, subject_id, active),
            *arguments.between("expected_at", Action.expected_at, expected_at),
            *arguments.between("completed_at", Action.completed_at, completed_at),
        ]
        if state is not None:
            conditions.append(Action.state.in_(arguments.states(state)))
        if action_id is not None:
            conditions.append(actions.named(arguments.action_ids(action_id)))
        with self._session() as session:
            rows = actions.find(
                session, conditions, order=arguments.order(order), limit=arguments.limit(limit)
            )
            return [_action(row) for row in rows]

    def get_campaign_schedule(
        self, campaign_id: str, subject: str, subject_id: str | int
    ) -> list[PlannedAction]:
        """What would be due when for a subject that is enrolled now, without saving anything.

        For one that is enrolled already, from its original start. Of what will not happen, the
        ``reason`` says why: the campaign is switched off, or over by then.
        """
        with self._session() as session:
            number = self._find(session, campaign_id)
            try:
                shown = sequences.outlook(
                    session, self._now(), number, Subject(subject, arguments.id_as_text(subject_id))
                )
            except Refused as error:
                raise BadArgument(error.argument, error.reason) from None
        return [
            PlannedAction(shown.name(one), one.expected_at, one.reason) for one in shown.planned
        ]

    def retry(self, action: int) -> bool:
        """Try a failed action again, at once; whether it was failed. ``action`` is its ``id``."""
        with self._session() as session:
            try:
                return failures.retry_one(session, self._now(), action)
            except Unknown:
                raise BadArgument("action", f"there is no action {action!r}") from None


def _action(row: Found) -> ActionInfo:
    action = row.action
    return ActionInfo(
        action.id,
        row.campaign.key or "",
        row.schedule.subject,
        row.schedule.subject_id,
        row.schedule.run,
        row.action_id,
        action.state,
        action.reason,
        action.expected_at,
        action.started_at,
        action.completed_at,
        action.attempts,
        action.error,
        action.result,
        row.schedule.active,
    )
