"""Throttles: how far the slots of a rate limit are given away."""

from datetime import datetime, timedelta

from sqlalchemy import Interval, String
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import Base, UtcDateTime


class Throttle(Base):
    """A rate limit, the installation's or a campaign's. Slots before ``next_at`` are given away;
    ``behind`` is what of them was not used and is still made up for."""

    __tablename__ = "throttles"

    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)
    behind: Mapped[timedelta] = mapped_column(Interval(), default=timedelta())
