"""A lane's slots of several limits at once."""

from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from mcs.services.pacer import Limit, Pacer


def test_a_slow_campaign_takes_no_more_of_the_installation_than_it_uses(
    session: Session, now: datetime
) -> None:
    campaign, installation = Limit("campaign-1", 0.5), Limit("installation", 10)
    slow, others = (campaign, installation), (installation,)
    moment = now
    pacer = Pacer(lambda: moment)
    went = 0
    for _ in range(200):
        for reserve in pacer.reservations({slow}):
            reserve(session)
        if pacer.may_go(slow):
            pacer.use(slow)
            went += 1
        moment += timedelta(milliseconds=100)
    assert 9 <= went <= 11
    # Twenty seconds' worth of the installation was there for others, and none of it was kept.
    other = Pacer(lambda: moment)
    (reserve,) = other.reservations({others})
    reserve(session)
    slot = other.next_slot({others})
    assert slot is not None
    assert slot <= moment + timedelta(seconds=1)
    burst = 0
    while pacer.may_go(others):
        pacer.use(others)
        burst += 1
    assert burst <= 10
