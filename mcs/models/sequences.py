"""Action definitions: the steps of a campaign's sequence, as they were written."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from mcs.core.sequences import ON_FAILURE
from mcs.models.base import BINARY_ON_MYSQL, Base, UtcDateTime
from mcs.models.checks import one_of


class ActionDefinition(Base):
    """A step: when (as text, read by mcs.core.sequences), and which callback with which config.

    ``place`` is its place in the list that people see. ``max_attempts`` is how often a callback is
    tried in all before its action has failed.
    """

    __tablename__ = "action_definitions"
    __table_args__ = (
        UniqueConstraint("campaign_id", "key"),
        CheckConstraint(one_of("on_failure", ON_FAILURE), name="on_failure"),
        CheckConstraint("max_attempts > 0", name="max_attempts"),
        BINARY_ON_MYSQL,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"))
    key: Mapped[str] = mapped_column(String(100))
    place: Mapped[int]
    callback: Mapped[str] = mapped_column(String(100))
    config: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    offset: Mapped[str] = mapped_column(String(200))
    time: Mapped[str] = mapped_column(String(100), default="")
    days: Mapped[str] = mapped_column(String(200), default="")
    excluded: Mapped[str] = mapped_column(Text, default="")
    repeat: Mapped[str] = mapped_column(String(200), default="")
    after: Mapped[str] = mapped_column(String(110), default="")
    on_failure: Mapped[str] = mapped_column(String(10), default="wait")
    max_attempts: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
