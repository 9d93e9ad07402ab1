"""When a message that was refused for now is tried again."""

from datetime import datetime, timedelta

# Greylisting wants the same sender and a second try after 5 to 15 minutes.
MINUTES = (1, 5, 15, 30, 60, 120, 240)
JITTER = 0.2
GIVE_UP_AFTER = timedelta(hours=24)


def next_attempt(now: datetime, attempts: int, die: float) -> datetime:
    """The moment of the next try after ``attempts`` tries; ``die`` is a draw from [0, 1)."""
    minutes = MINUTES[min(max(attempts, 1), len(MINUTES)) - 1]
    return now + timedelta(minutes=minutes * (1 - JITTER + 2 * JITTER * die))


def give_up_at(begun: datetime, last_moment: datetime) -> datetime:
    """When trying ends: a day after it began, never past the campaign's last day.

    What a person begins after that day has a day all the same.
    """
    if begun >= last_moment:
        return begun + GIVE_UP_AFTER
    return min(begun + GIVE_UP_AFTER, last_moment)
