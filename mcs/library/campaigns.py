"""Campaigns, made and changed."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mcs.core.calls import SEND_EMAIL
from mcs.core.sequences import BadDefinition
from mcs.library import arguments
from mcs.library.arguments import FIRST_DAY, LAST_DAY, BadArgument
from mcs.library.ground import Ground
from mcs.library.infos import CampaignInfo
from mcs.models import Action, ActionDefinition, Campaign, Schedule
from mcs.services import definitions, sequences, written_steps
from mcs.services.callbacks import check_config
from mcs.services.definitions import Step
from mcs.services.transactions import NO_SYNC, writing
from mcs.services.written_steps import BadActionDef


class Campaigns(Ground):
    """The verbs of campaigns."""

    def upsert_campaign(
        self,
        id: str,
        active: bool | None = None,
        action_defs: Sequence[Mapping[str, Any]] | None = None,
        *,
        timezone: str | None = None,
        start_date: date | None = None,
        end_date: date | None = None,
        past: str = "skip",
    ) -> CampaignInfo:
        """Make a campaign, or change what is given of it; what is left out stays as it is.

        Switching it off withdraws its pending actions; switching it on brings back those that were
        never run, counted from each subject's original start. Editing ``action_defs`` touches only
        pending actions of the steps that changed; ``past`` says whether a step whose moment has
        passed for a subject is skipped (``skip``) or run at once (``run``).

        An action definition is a mapping of ``id``, ``callback`` and ``interval`` (an offset such
        as ``2days``, or a mapping of ``offset``, ``time``, ``days``, ``excluded``), and if wished
        ``repeat``, ``after``, ``on_failure`` (wait, skip, go_on), ``config`` (for the callback)
        and ``attempts`` (how often it is tried in all; once, unless told otherwise).
        """
        arguments.text("id", id, 255)
        if active is not None and not isinstance(active, bool):
            raise BadArgument("active", f"{active!r}: use True, False, or leave it out")
        if past not in ("skip", "run"):
            raise BadArgument("past", f"{past!r}: use skip or run")
        steps = None if action_defs is None else self._steps(action_defs)
        given = {
            "active": active,
            "timezone": None if timezone is None else arguments.zone(timezone),
            "start_date": arguments.day("start_date", start_date),
            "end_date": arguments.day("end_date", end_date),
        }
        with self._session() as session, writing(session):
            self._upsert(session, id, given, steps, past)
        self._wake()
        return self.get_campaigns(id)[0]

    def get_campaigns(self, id: str | Sequence[str] | None = None) -> list[CampaignInfo]:
        """All campaigns made with the library, or those of these ids, in the order of their ids."""
        query = select(Campaign).where(Campaign.key.is_not(None)).order_by(Campaign.key)
        if id is not None:
            query = query.where(Campaign.key.in_(arguments.listed("id", id)))
        with self._session() as session:
            return [
                CampaignInfo(
                    row.key or "",
                    row.active,
                    row.timezone,
                    row.start_date,
                    row.end_date,
                    [written_steps.written(step) for step in definitions.steps_of(session, row.id)],
                )
                for row in session.scalars(query)
            ]

    def destroy_campaign(self, id: str, confirm: str) -> None:
        """Delete a campaign with its definitions, schedules and actions, history too.

        ``confirm`` is the campaign's id again. Raises BadArgument where email was sent: such a
        campaign is archived in MCS, never dropped.
        """
        if confirm != id:
            raise BadArgument("confirm", f"to destroy it with its history, give its id: {id!r}")
        with self._session() as session, writing(session):
            campaign_id = self._find(session, id)
            definitions.load(session, campaign_id, to_edit=True)
            self._refuse_to_drop_a_ledger(session, campaign_id)
            mine = select(Schedule.id).where(Schedule.campaign_id == campaign_id)
            for statement in (
                delete(Action).where(Action.schedule_id.in_(mine)),
                delete(Schedule).where(Schedule.campaign_id == campaign_id),
                delete(ActionDefinition).where(ActionDefinition.campaign_id == campaign_id),
                delete(Campaign).where(Campaign.id == campaign_id),
            ):
                session.execute(statement.execution_options(**NO_SYNC))

    def _steps(self, action_defs: Sequence[Mapping[str, Any]]) -> list[Step]:
        try:
            steps = written_steps.read(action_defs)
        except BadActionDef as error:
            raise BadArgument(arguments.at("action_defs", error.path), error.reason) from None
        for place, step in enumerate(steps):
            if step.callback not in self._callbacks:
                raise BadArgument(
                    f"action_defs[{place}].callback",
                    arguments.unknown_callback(step, self._callbacks),
                )
        try:
            for step in steps:
                check_config(step, self._callbacks)
        except BadDefinition as error:
            found = written_steps.located(action_defs, error)
            raise BadArgument(arguments.at("action_defs", found.path), found.reason) from None
        return steps

    def _upsert(
        self,
        session: Session,
        id: str,
        given: Mapping[str, Any],
        steps: Sequence[Step] | None,
        past: str,
    ) -> None:
        now = self._now()
        campaign = session.scalar(select(Campaign).where(Campaign.key == id).with_for_update())
        if campaign is None:
            campaign = Campaign(
                key=id,
                uid=secrets.token_urlsafe(16),
                name=id[:200],
                start_date=FIRST_DAY,
                end_date=LAST_DAY,
                timezone=self._timezone,
                active=True,
                created_at=now,
            )
            session.add(campaign)
        changed = {name: value for name, value in given.items() if value is not None}
        for name, value in changed.items():
            setattr(campaign, name, value)
        if campaign.start_date > campaign.end_date:
            raise BadArgument("end_date", "it is before start_date")
        campaign.updated_at = now
        session.flush()
        if steps is not None:
            sequences.define_within(session, now, campaign.id, steps, past)
        if changed:
            sequences.realign_within(session, now, campaign.id)

    def _refuse_to_drop_a_ledger(self, session: Session, campaign_id: int) -> None:
        mine = definitions.steps_of(session, campaign_id)
        if any(step.callback == SEND_EMAIL for step in mine):
            raise BadArgument("id", "its actions sent email: archive it in MCS instead")
