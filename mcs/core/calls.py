"""Calls: what a callback is told of the action it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt at an action.

    ``idempotency_key`` is the same on every attempt of this action, and no other's: a callback runs
    at least once. ``contact`` has ``id``, ``email``, ``name`` and ``attributes``, where the subject
    has one. ``config`` is the definition's.
    """

    campaign_id: str
    subject: str
    subject_id: str
    run: int
    action_id: str
    key: str
    occurrence: int
    expected_at: datetime
    attempt: int
    idempotency_key: str
    contact: Mapping[str, Any] | None
    config: Mapping[str, Any]
