"""Exchanges: a worker hands in what has ended and takes what is due, in one commit."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from mcs.services import claims, endings
from mcs.services.claims import Claimed
from mcs.services.endings import Ended
from mcs.services.transactions import writing


def exchange(
    session: Session,
    now: datetime,
    ended: Sequence[Ended],
    *,
    lease: timedelta,
    room: int,
    die: float,
    callbacks: Collection[str],
    campaign_ids: Collection[int] | None = None,
) -> list[Claimed]:
    """Record what has ended and claim up to ``room`` more, the longest due first: in one commit.

    What is claimed has a callback among ``callbacks``, and is due: never early. What is due after
    its campaign's last day is cancelled. ``die`` is a draw from [0, 1) for the retries.
    """
    with writing(session):
        endings.record(session, now, ended, die)
        if room <= 0 or not callbacks:
            return []
        claimed, over = claims.claim(session, now, lease, room, callbacks, campaign_ids)
    endings.close_over(session, now, over)
    return claimed
