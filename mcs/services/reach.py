"""Reach: how many of its recipients a sending has got to, told in the same words everywhere."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mcs.core import words
from mcs.models import Emailer, Slice


@dataclass(frozen=True)
class Reach:
    """Of the ``recipients`` of a sending that has begun: the rest is still to go."""

    cancelled: bool
    recipients: int
    sent: int
    skipped: int
    failed: int
    in_doubt: int

    @property
    def wanted(self) -> int:
        """How many there are to write to."""
        return self.recipients - self.skipped

    @property
    def words(self) -> str:
        """``3,133 of 3,196 sent, 33 skipped``: the numbers of the emailer's page. Who a cancel has
        kept from it was not skipped for a reason of their own, so then it says either."""
        skipped = "cancelled or skipped" if self.cancelled else "skipped"
        others = {skipped: self.skipped, "failed": self.failed, "in doubt": self.in_doubt}
        return ", ".join(
            [
                f"{words.number(self.sent)} of {words.number(self.recipients)} sent",
                *(f"{words.number(count)} {became}" for became, count in others.items() if count),
            ]
        )


NOBODY_YET = Reach(False, 0, 0, 0, 0, 0)


def of_emailers(session: Session, emailer_ids: Collection[int]) -> dict[int, Reach]:
    """The reach of those that have begun, from the counts that their slices carry."""
    counts = (Slice.sent, Slice.skipped, Slice.failed, Slice.in_doubt)
    rows = session.execute(
        select(
            Emailer.id,
            Emailer.state,
            Emailer.recipients,
            *(func.coalesce(func.sum(count), 0) for count in counts),
        )
        .outerjoin(Slice, Slice.emailer_id == Emailer.id)
        .where(Emailer.id.in_(emailer_ids), Emailer.recipients.is_not(None))
        .group_by(Emailer.id)
    )
    return {
        emailer_id: Reach(state == "cancelled", *map(int, numbers))
        for emailer_id, state, *numbers in rows
    }
