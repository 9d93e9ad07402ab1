"""Tables, constraints and engines. Importing this package knows every table."""

from mcs.models.actions import Action
from mcs.models.api_tokens import ApiToken, KeptAnswer
from mcs.models.audit import AuditEntry
from mcs.models.base import Base, UtcDateTime, configure_engine, ping_when_rested, stored
from mcs.models.campaigns import Batch, BatchContact, Campaign
from mcs.models.contacts import Contact
from mcs.models.deliveries import Delivery
from mcs.models.emailers import Emailer, Slice
from mcs.models.imports import Import, ImportChunk, RejectedRow
from mcs.models.scenarios import Scenario
from mcs.models.schedules import Schedule
from mcs.models.sequences import ActionDefinition
from mcs.models.suppressions import Suppression
from mcs.models.throttles import Throttle
from mcs.models.users import SetupToken, SignInLimit, User

__all__ = [
    "Action",
    "ActionDefinition",
    "ApiToken",
    "AuditEntry",
    "Base",
    "Batch",
    "BatchContact",
    "Campaign",
    "Contact",
    "Delivery",
    "Emailer",
    "Import",
    "ImportChunk",
    "KeptAnswer",
    "RejectedRow",
    "Scenario",
    "Schedule",
    "SetupToken",
    "SignInLimit",
    "Slice",
    "Suppression",
    "Throttle",
    "User",
    "UtcDateTime",
    "configure_engine",
    "ping_when_rested",
    "stored",
]
