"""A campaign's timeline: where today stands in it, by the campaign's own calendar."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

CAMPAIGN_STATES = ("upcoming", "running", "over", "inactive", "archived")


def today(now: datetime, zone: str) -> date:
    """The day that the calendars of a zone show at an instant."""
    return now.astimezone(ZoneInfo(zone)).date()


def state(start: date, end: date, today: date, active: bool, archived: bool) -> str:
    """One of CAMPAIGN_STATES; the first and the last day are both included."""
    if archived:
        return "archived"
    if not active:
        return "inactive"
    if today < start:
        return "upcoming"
    return "running" if today <= end else "over"
