"""The pages of campaigns, as Olga uses them."""

import re
from datetime import UTC, date, datetime, time, timedelta

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from mcs.extensions import db
from mcs.models import Campaign, Emailer, Suppression
from tests.people import add_campaign, add_contact, add_scenario
from tests.web.visitor import Visitor, words

TODAY = datetime.now(UTC).date()
CONTRACT: dict[str, object] = {
    "name": "Advent",
    "description": "24 doors",
    "start_date": TODAY.isoformat(),
    "end_date": (TODAY + timedelta(days=7)).isoformat(),
    "timezone": "Europe/Berlin",
    "from_name": "Ada's Shop",
    "from_email": "ada@shop.example",
    "reply_to": "",
    "postal_address": "1 Main Street\r\n10115 Berlin",
}


def running(**given: object) -> Campaign:
    """A campaign around today, since the pages ask the real clock."""
    dates: dict[str, object] = {
        "start_date": TODAY - timedelta(days=1),
        "end_date": TODAY + timedelta(days=5),
    }
    return add_campaign(db.session(), **(dates | given))


def test_the_contracts_fields_make_a_campaign(olga: Visitor) -> None:
    olga.get("/campaigns/new")
    answer = olga.post("/campaigns/new", CONTRACT)
    assert answer.status_code == 303
    assert answer.location == "/campaigns/1"
    page = words(olga.get("/campaigns/1"))
    assert "Advent" in page and "Running" in page and "Nobody yet" in page


def test_a_city_is_enough_to_name_the_zone(olga: Visitor, session: Session) -> None:
    olga.get("/campaigns/new")
    assert olga.post("/campaigns/new", CONTRACT | {"timezone": "new york"}).status_code == 303
    assert session.scalars(select(Campaign.timezone)).one() == "America/New_York"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": " "}, "Give the campaign a name."),
        ({"name": "x" * 201}, "Use at most 200 characters."),
        ({"start_date": ""}, "Enter the first day."),
        ({"start_date": "24.11.2026"}, "Write the date as year-month-day"),
        ({"end_date": "2020-01-01"}, "The last day is before the first."),
        ({"start_date": "0001-01-01"}, "Check the year."),
        ({"timezone": "Mars/Olympus"}, "Choose a time zone"),
        ({"timezone": ""}, "Choose a time zone"),
        ({"timezone": "../../etc/passwd"}, "Choose a time zone"),
        ({"from_email": "nonsense"}, "This is not an email address: there is no @."),
        ({"reply_to": "a@b"}, "This is not an email address"),
        ({"postal_address": "x" * 501}, "Use at most 500 characters."),
        ({"send_rate": "fast"}, "Write a number, such as 50 or 0.5."),
        ({"send_rate": "0"}, "Use a number from 0.01 to 100,000, or leave it empty."),
        ({"send_rate": "nan"}, "Use a number from 0.01 to 100,000, or leave it empty."),
    ],
)
def test_what_cannot_be_is_said_at_its_field_and_nothing_typed_is_lost(
    olga: Visitor, changes: dict[str, object], complaint: str
) -> None:
    olga.get("/campaigns/new")
    answer = olga.post("/campaigns/new", CONTRACT | {"description": "my long text"} | changes)
    assert answer.status_code == 422
    page = words(answer)
    assert page.count(complaint) == 2, page
    assert "my long text" in answer.text
    assert 'aria-invalid="true"' in answer.text
    field = next(iter(changes))
    assert f'href="#{field}"' in answer.text


def test_the_summary_names_the_field_where_the_sentence_does_not(olga: Visitor) -> None:
    olga.get("/campaigns/new")
    wrong = {
        "name": "",
        "start_date": "24.11.2026",
        "end_date": "30.11.2026",
        "from_email": "ada",
        "reply_to": "bob",
    }
    page = olga.post("/campaigns/new", CONTRACT | wrong).text
    summary = re.findall(r'<li><a href="#[^"]*">(.*?)</a>', page)
    assert summary == [
        "Give the campaign a name.",
        "First day: Write the date as year-month-day, such as 2026-11-24.",
        "Last day: Write the date as year-month-day, such as 2026-11-24.",
        "From address: This is not an email address: there is no @.",
        "Reply-to address: This is not an email address: there is no @.",
    ]


def test_several_mistakes_are_told_at_once(olga: Visitor) -> None:
    olga.get("/campaigns/new")
    page = words(olga.post("/campaigns/new", {"name": "", "start_date": "x", "from_email": "x"}))
    assert "Please check these 4 things" in page


def test_a_sender_cannot_carry_a_header(app: Flask, olga: Visitor) -> None:
    olga.get("/campaigns/new")
    olga.post("/campaigns/new", CONTRACT | {"from_name": "Ada\r\nBcc: eve@evil.example\u2028x"})
    with app.app_context():
        assert db.session.get_one(Campaign, 1).from_name == "Ada Bcc: eve@evil.example x"


def test_a_name_cannot_script_a_page(olga: Visitor) -> None:
    olga.get("/campaigns/new")
    olga.post("/campaigns/new", CONTRACT | {"name": "<script>alert(1)</script>"})
    for path in ("/campaigns/", "/campaigns/1", "/campaigns/1/edit", "/campaigns/1/archive"):
        assert "<script>alert" not in olga.get(path).text


def test_fields_nobody_offers_change_nothing(app: Flask, olga: Visitor) -> None:
    olga.get("/campaigns/new")
    olga.post("/campaigns/new", CONTRACT | {"active": "", "id": "77", "uid": "x", "key": "y"})
    with app.app_context():
        campaign = db.session.get_one(Campaign, 1)
        assert campaign.active and campaign.key is None and campaign.uid != "x"


def test_editing_keeps_what_was_there_and_saves_what_is_new(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        campaign_id = running().id
    form = olga.get(f"/campaigns/{campaign_id}/edit")
    assert "ada@shop.example" in form.text
    answer = olga.post(f"/campaigns/{campaign_id}/edit", CONTRACT | {"name": "Winter"})
    assert answer.status_code == 303
    page = words(olga.get(answer.location))
    assert "The campaign is saved." in page and "Winter" in page


def test_the_page_shows_the_subtraction(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        campaign = running()
        for name in ("Ann", "Bob", "Charlie"):
            contact = add_contact(db.session(), campaign, name)
        db.session.add(
            Suppression(
                email_key=contact.email_key, reason="unsubscribed", created_at=datetime.now(UTC)
            )
        )
        db.session.commit()
        campaign_id = campaign.id
    page = words(olga.get(f"/campaigns/{campaign_id}"))
    assert "3 contacts minus 1 unsubscribed, makes 2 to write to" in page


def test_a_sender_with_gaps_is_named(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        campaign_id = running(from_email="", postal_address=" ").id
    page = words(olga.get(f"/campaigns/{campaign_id}"))
    assert "Still missing: a From address and a postal address. Nothing is sent before." in page


def test_deactivating_says_first_what_it_withdraws(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        campaign = running()
        for name in ("Ann", "Bob"):
            add_contact(db.session(), campaign, name)
        for days in (1, 2):
            add_scenario(
                db.session(), campaign, date=TODAY + timedelta(days=days), time=time(10, 0)
            )
        campaign_id = campaign.id
    asked = words(olga.get(f"/campaigns/{campaign_id}/deactivate"))
    assert "2 planned emails to 4 recipients will not go out." in asked
    assert "btn-danger" in olga.get(f"/campaigns/{campaign_id}/deactivate").text
    olga.post(f"/campaigns/{campaign_id}/deactivate")
    page = words(olga.get(f"/campaigns/{campaign_id}"))
    assert "Inactive" in page
    assert "The campaign is inactive: nothing more is started by itself." in page
    assert "under way" not in page
    assert (
        '<button class="btn btn-primary">Activate'
        in olga.get(f"/campaigns/{campaign_id}/activate").text
    )
    olga.post(f"/campaigns/{campaign_id}/activate")
    assert "Running" in words(olga.get(f"/campaigns/{campaign_id}"))


@pytest.mark.parametrize(
    ("states", "sentence"),
    [
        (
            ["sending"],
            "1 sending is under way or paused, and not stopped by this:"
            " cancel it on its own page .",
        ),
        (
            ["sending", "paused", "sent"],
            "2 sendings are under way or paused, and not stopped by this:"
            " cancel each on its own page .",
        ),
    ],
)
def test_deactivating_says_what_it_does_not_stop(
    app: Flask, olga: Visitor, states: list[str], sentence: str
) -> None:
    now = datetime.now(UTC)
    with app.app_context():
        campaign_id = running().id
        for state in states:
            scenario = add_scenario(db.session(), db.session.get_one(Campaign, campaign_id))
            emailer = Emailer(
                scenario_id=scenario.id, state=state, scheduled_at=now, recipients=1, created_at=now
            )
            db.session.add(emailer)
        db.session.commit()
    path = f"/campaigns/{campaign_id}"
    assert sentence in words(olga.get(f"{path}/deactivate"))
    olga.post(f"{path}/deactivate")
    page = olga.get(path)
    assert f"nothing more is started by itself. {sentence}" in words(page)
    assert f'<a href="/emailers/?campaign={campaign_id}">' in page.text


def test_an_archived_campaign_leaves_the_list_and_can_come_back(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        campaign_id = running(name="Autumn push").id
    assert "No email is planned" in words(olga.get(f"/campaigns/{campaign_id}/archive"))
    olga.post(f"/campaigns/{campaign_id}/archive")
    olga.get("/account")
    assert "Autumn push" not in words(olga.get("/campaigns/"))
    assert "Autumn push" in words(olga.get("/campaigns/?state=archived"))
    olga.get(f"/campaigns/{campaign_id}")
    olga.post(f"/campaigns/{campaign_id}/unarchive")
    assert "Inactive" in words(olga.get(f"/campaigns/{campaign_id}"))


def test_the_list_searches_filters_and_sorts(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        running(name="Advent")
        running(name="Boxes", start_date=TODAY + timedelta(days=3))
        running(name="Catalogue", active=False)
        old = date(2020, 1, 1)
        running(name="Discount 100%", start_date=old, end_date=old)

    def names(query: str) -> list[str]:
        page = words(olga.get(f"/campaigns/?{query}"))
        found = ("Advent", "Boxes", "Catalogue", "Discount 100%")
        return sorted((name for name in found if name in page), key=page.index)

    assert names("sort=name") == ["Advent", "Boxes", "Catalogue", "Discount 100%"]
    assert names("sort=-name") == ["Discount 100%", "Catalogue", "Boxes", "Advent"]
    assert names("state=upcoming") == ["Boxes"]
    assert names("state=running") == ["Advent"]
    assert names("state=over") == ["Discount 100%"]
    assert names("state=inactive") == ["Catalogue"]
    assert names("q=box") == ["Boxes"]
    assert names("q=100%25") == ["Discount 100%"]
    assert names("q=%25") == ["Discount 100%"]
    assert names("q='%20OR%201=1--") == []
    assert len(names("sort=;drop%20table&state=nonsense&after=zzz&before=x_y")) == 4


def test_the_list_turns_its_pages_in_both_directions(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        for number in range(60):
            # SQLite leaves a capital that is not ASCII as it is, Python does not.
            running(name=f"Ä Push {number:02d} ☃")
    for sort in ("name", "-start"):
        seen: list[str] = []
        path = f"/campaigns/?sort={sort}"
        for _ in range(3):
            page = olga.get(path)
            seen += [name for name in _names_on(page.text) if name not in seen]
            links = _links(page.text)
            path = links.get("next", "")
        assert len(seen) == 60
        assert "next" not in links
        assert _names_on(olga.get(links["prev"]).text)[0] == seen[25]


def _names_on(text: str) -> list[str]:
    return [part.split(" ☃")[0] for part in text.split("Push ")[1:]]


def _links(text: str) -> dict[str, str]:
    found = {}
    for part in text.split('rel="')[1:]:
        if part.startswith(("next", "prev")):
            found[part[:4]] = part.split('href="')[1].split('"')[0].replace("&amp;", "&")
    return found


def test_what_people_do_is_written_down(app: Flask, olga: Visitor) -> None:
    olga.get("/campaigns/new")
    olga.post("/campaigns/new", CONTRACT)
    olga.get("/campaigns/1/archive")
    olga.post("/campaigns/1/archive")
    page = words(olga.get("/activity/"))
    assert page.index("archived campaign") < page.index("created campaign")
    assert "olga@shop.example" in page


def test_a_campaign_that_is_over_says_what_follows(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        past = running(end_date=TODAY - timedelta(days=2), start_date=TODAY - timedelta(days=9)).id
        now = running().id
    said = "The campaign’s last day has passed, so nothing more can be scheduled in it."
    assert said in words(olga.get(f"/campaigns/{past}"))
    assert said not in words(olga.get(f"/campaigns/{now}"))
