"""Feeds: what a lane goes on with after each commit."""

from collections import deque
from datetime import datetime, timedelta
from typing import cast

import pytest

from mcs.services.deliveries import Standing
from mcs.services.feeds import Feed, Issue
from mcs.services.slice_claims import Claim, Due, Parent

LATER = timedelta(seconds=45)


@pytest.mark.parametrize(
    ("standing", "lost", "left"),
    [
        (Standing(set(), 9), False, [1, 5, 9]),
        (Standing({1}, 5), False, [1, 5]),
        (Standing(set(), 0), False, []),
        (None, True, [1, 5, 9]),
    ],
)
def test_a_feed_heeds_how_its_slice_stands(
    now: datetime, standing: Standing | None, lost: bool, left: list[int]
) -> None:
    claim = Claim(1, Parent(1), low_id=1, high_id=9, token="ours")
    waiting = deque(Due(id, 0, "", "", "", "", {}, "") for id in (1, 5, 9))
    feed = Feed(claim, cast(Issue, None), waiting, now)
    feed.stand(standing, now + LATER)
    assert (feed.lost, [due.id for due in feed.waiting]) == (lost, left)
    assert feed.lease_until == now + LATER
    if standing is not None:
        assert feed.claim.high_id == standing.high_id
