"""Scenarios: messages with the date and time at which they go out."""

import datetime as dt

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mcs.core.states import CONTENT_FORMATS, SCENARIO_STATES
from mcs.models.base import Base, UtcDateTime
from mcs.models.campaigns import Campaign
from mcs.models.checks import one_of


class Scenario(Base):
    """A message of a campaign. ``date`` and ``time`` are wall time in the campaign's zone.

    ``excludes_id`` names a scenario whose recipients are left out: "send to the 37 added since".
    """

    __tablename__ = "scenarios"
    __table_args__ = (
        CheckConstraint(one_of("state", SCENARIO_STATES), name="state"),
        CheckConstraint(one_of("format", CONTENT_FORMATS), name="format"),
        CheckConstraint(
            "state = 'draft' OR (date IS NOT NULL AND time IS NOT NULL)", name="scheduled_has_time"
        ),
        Index("ix_scenarios_campaign_id_date", "campaign_id", "date"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    name: Mapped[str] = mapped_column(String(200))
    subject: Mapped[str] = mapped_column(String(500), default="")
    content: Mapped[str] = mapped_column(Text, default="")
    format: Mapped[str] = mapped_column(String(10), default="text")
    date: Mapped[dt.date | None]
    time: Mapped[dt.time | None]
    state: Mapped[str] = mapped_column(String(10), default="draft")
    excludes_id: Mapped[int | None] = mapped_column(ForeignKey("scenarios.id"))
    contacts_served: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)

    campaign: Mapped[Campaign] = relationship()
