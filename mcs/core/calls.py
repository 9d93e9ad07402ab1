"""Calls: what a callback is told of the action it runs, and what is wrong with its config."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

# The callback that is in no table: it goes through the ledger.
SEND_EMAIL = "send_email"


class Call(NamedTuple):
    """One attempt at an action. A tuple, as thousands are made a second.

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


class BadConfig(ValueError):
    """A config that a callback cannot be called with. ``name`` is the part of it that is wrong;
    the reason says what would be right."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason
