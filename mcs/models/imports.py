"""Imports: an uploaded CSV, its bytes, and the rows that could not be taken."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mcs.core.states import IMPORT_STATES
from mcs.models.base import Base, UtcDateTime
from mcs.models.campaigns import Campaign
from mcs.models.checks import one_of


class Import(Base):
    """One upload to one campaign. Its counts are of rows, its outcome is kept for ever.

    ``mapping`` holds the layout that was detected or chosen (mcs.core.tables). ``rows_done`` lets a
    job that was stopped half-way go on where it committed last; ``attempts`` counts the jobs that
    began since then.
    """

    __tablename__ = "imports"
    __table_args__ = (CheckConstraint(one_of("state", IMPORT_STATES), name="state"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), index=True)
    filename: Mapped[str] = mapped_column(String(255))
    size: Mapped[int]
    state: Mapped[str] = mapped_column(String(10), default="waiting")
    mapping: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    error: Mapped[str] = mapped_column(String(500), default="")
    rows: Mapped[int | None]
    rows_done: Mapped[int] = mapped_column(default=0)
    added: Mapped[int] = mapped_column(default=0)
    updated: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    rejected: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    claim_token: Mapped[str | None] = mapped_column(String(22))
    lease_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    campaign: Mapped[Campaign] = relationship()


class ImportChunk(Base):
    """A piece of the uploaded bytes: web and workers share no disk, so they meet in SQL."""

    __tablename__ = "import_chunks"

    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    bytes: Mapped[bytes] = mapped_column(LargeBinary)


class RejectedRow(Base):
    """A row that could not be taken: its line in the file, the field, why, and its cells."""

    __tablename__ = "rejected_rows"

    id: Mapped[int] = mapped_column(primary_key=True)
    import_id: Mapped[int] = mapped_column(ForeignKey("imports.id"), index=True)
    line: Mapped[int]
    field: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(String(300))
    cells: Mapped[list[str]] = mapped_column(JSON)
