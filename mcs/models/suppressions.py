"""Suppressions: addresses that are not to be written to."""

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from mcs.models.base import Base, UtcDateTime


class Suppression(Base):
    """An address not to be written to: everywhere, or by one campaign when ``campaign_id`` is set.

    It names the address, not the contact, so it outlives deletion and upload.
    """

    __tablename__ = "suppressions"
    __table_args__ = (
        # Two indexes, since NULLs are distinct in a unique one.
        Index(
            "uq_suppressions_everywhere",
            "email_key",
            unique=True,
            sqlite_where=text("campaign_id IS NULL"),
            postgresql_where=text("campaign_id IS NULL"),
        ),
        Index("uq_suppressions_campaign", "email_key", "campaign_id", unique=True),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    email_key: Mapped[str] = mapped_column(String(320))
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    reason: Mapped[str] = mapped_column(String(20))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
