"""Campaigns switched, edited and looked at; time is passed in."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs import config
from mcs.gateways.jobqueue import JobQueue
from mcs.models import Emailer
from mcs.services import campaigns, outlook, planning, users
from mcs.services.campaigns import Fields, RefusedCampaign
from mcs.services.unknown import Unknown, find_campaign
from tests.people import add_campaign, add_contact, add_scenario

TUESDAY = date(2026, 11, 24)


@pytest.fixture
def queue(settings: config.Settings) -> JobQueue:
    return JobQueue(settings.redis_url)


@pytest.fixture
def olga(session: Session, now: datetime) -> int:
    made = users.create_user(session, now, "olga@shop.example", "seven green kettles", users.OWNER)
    return made.id


def planned(session: Session) -> list[datetime]:
    return list(session.scalars(select(Emailer.scheduled_at).where(Emailer.state == "planned")))


def test_a_new_campaign_has_an_empty_batch(session: Session, now: datetime, olga: int) -> None:
    fields = Fields("Advent", "", TUESDAY, TUESDAY, "Europe/Berlin")
    campaign = find_campaign(session, campaigns.create(session, now, fields, olga))
    assert campaign.batch.campaign_id == campaign.id
    assert len(campaign.uid) == 22
    assert campaigns.sender_gaps(campaign) == ["a From address", "a postal address"]


def test_another_zone_moves_what_is_planned(
    session: Session, now: datetime, queue: JobQueue, olga: int
) -> None:
    campaign = add_campaign(session)
    add_scenario(session, campaign, time=time(18, 0))
    planning.plan_campaign(session, now, queue, campaign.id)
    assert planned(session) == [datetime(2026, 11, 23, 17, 0, tzinfo=UTC)]
    moved = campaigns.fields_of(campaign)
    moved = Fields(**(vars(moved) | {"timezone": "Europe/London"}))
    campaigns.edit(session, now, queue, campaign.id, moved, olga)
    assert planned(session) == [datetime(2026, 11, 23, 18, 0, tzinfo=UTC)]


def test_other_dates_withdraw_what_falls_outside(
    session: Session, now: datetime, queue: JobQueue, olga: int
) -> None:
    campaign = add_campaign(session)
    add_scenario(session, campaign, time=time(18, 0))
    planning.plan_campaign(session, now, queue, campaign.id)
    later = Fields(**(vars(campaigns.fields_of(campaign)) | {"start_date": TUESDAY}))
    campaigns.edit(session, now, queue, campaign.id, later, olga)
    assert planned(session) == []


def test_switching_off_withdraws_and_switching_on_plans_again(
    session: Session, now: datetime, queue: JobQueue, olga: int
) -> None:
    campaign = add_campaign(session)
    for name in ("Ann", "Bob"):
        add_contact(session, campaign, name)
    add_scenario(session, campaign, time=time(18, 0))
    add_scenario(session, campaign, date=TUESDAY)
    planning.plan_campaign(session, now, queue, campaign.id)
    taken = campaigns.withdrawal(session, now, campaign.id)
    assert (taken.sends, taken.recipients, taken.sending) == (2, 4, 0)
    before = planned(session)
    campaigns.deactivate(session, now, queue, campaign.id, olga)
    assert planned(session) == []
    assert outlook.upcoming(session, now) == []
    campaigns.activate(session, now, queue, campaign.id, olga)
    assert planned(session) == before


def test_what_is_being_sent_keeps_its_campaign_from_the_archive(
    session: Session, now: datetime, queue: JobQueue, olga: int
) -> None:
    campaign = add_campaign(session)
    scenario = add_scenario(session, campaign)
    emailer = Emailer(
        scenario_id=scenario.id, state="sending", scheduled_at=now, recipients=0, created_at=now
    )
    session.add(emailer)
    session.commit()
    with pytest.raises(RefusedCampaign, match="being sent"):
        campaigns.archive(session, now, queue, campaign.id, olga)
    emailer.state = "sent"
    session.commit()
    campaigns.archive(session, now, queue, campaign.id, olga)
    assert campaigns.state_of(campaign, now) == "archived"
    campaigns.unarchive(session, now, queue, campaign.id, olga)
    assert campaigns.state_of(campaign, now) == "inactive"


def test_an_unknown_campaign_is_unknown(session: Session, now: datetime) -> None:
    with pytest.raises(Unknown):
        campaigns.overview(session, now, 999)


def test_the_list_says_when_each_sends_next(session: Session, now: datetime) -> None:
    berlin = add_campaign(session, name="Berlin")
    tokyo = add_campaign(session, name="Tokyo", timezone="Asia/Tokyo")
    silent = add_campaign(session, name="Silent")
    add_scenario(session, berlin, date=TUESDAY)
    add_scenario(session, berlin, date=TUESDAY + timedelta(days=1))
    add_scenario(session, tokyo, date=TUESDAY)
    add_scenario(session, silent, state="draft")
    page = campaigns.listing(session, now, sort="name")
    assert [(row.campaign.name, row.next_at) for row in page.rows] == [
        ("Berlin", datetime(2026, 11, 24, 9, 0, tzinfo=UTC)),
        ("Silent", None),
        ("Tokyo", datetime(2026, 11, 24, 1, 0, tzinfo=UTC)),
    ]


def test_states_go_by_each_campaigns_own_calendar(session: Session) -> None:
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)
    add_campaign(session, name="Berlin")
    add_campaign(session, name="New York", timezone="America/New_York")
    running = campaigns.listing(session, late, state="running")
    upcoming = campaigns.listing(session, late, state="upcoming")
    assert [row.campaign.name for row in running.rows] == ["Berlin"]
    assert [row.campaign.name for row in upcoming.rows] == ["New York"]
