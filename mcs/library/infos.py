"""What the library answers with."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from mcs.services.actions import Status
from mcs.services.runners import Runner


@dataclass(frozen=True)
class CampaignInfo:
    """A campaign; ``action_defs`` in the shape that ``upsert_campaign`` takes."""

    id: str
    active: bool
    timezone: str
    start_date: date
    end_date: date
    action_defs: list[dict[str, Any]]


@dataclass(frozen=True)
class ScheduleInfo:
    """A subject's enrolment. ``contact_id`` is whom to write to."""

    id: int
    campaign_id: str
    subject: str
    subject_id: str
    run: int
    active: bool
    started_at: datetime
    contact_id: int | None


@dataclass(frozen=True)
class ActionInfo:
    """An action as it stands: pending, processing, completed, failed or cancelled (``reason``).

    ``expected_at`` is None while it waits for the action it comes after. ``active`` says whether
    its subject is enrolled still.
    """

    id: int
    campaign_id: str
    subject: str
    subject_id: str
    run: int
    action_id: str
    state: str
    reason: str
    expected_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    attempts: int
    error: str | None
    result: Any
    active: bool


@dataclass(frozen=True)
class PlannedAction:
    """An action that would be; ``reason`` says why not, where it would not."""

    action_id: str
    expected_at: datetime | None
    reason: str


@dataclass(frozen=True)
class SchedulerStatus(Status):
    """Counts of actions by state, and how well they keep time.

    ``waiting`` are pending ones that wait for another; ``overdue`` are due and not claimed yet.
    Drift is by how many seconds the latest 10,000 started after ``expected_at``.
    """

    workers: int
    running: int


@dataclass(frozen=True)
class Worker:
    """A worker of this process: a thread that claims, and up to ``concurrency`` that run."""

    id: int
    concurrency: int
    poll_ms: int
    campaign_ids: tuple[str, ...] | None
    _runner: Runner

    @property
    def running(self) -> bool:
        """Whether it is claiming actions."""
        return self._runner.running

    @property
    def busy(self) -> int:
        """How many callbacks are running."""
        return self._runner.busy
