"""Olga uploads a CSV with a browser, sees what was understood, and mends what was not taken."""

import csv
import io
from datetime import timedelta

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from mcs.models import BatchContact, Campaign, Contact, Import
from mcs.services import imports
from tests.people import add_campaign, add_contact
from tests.web.visitor import Visitor, words

FILE = "E-Mail;Name;Firma\nann@people.example;Änn;Bloom\nbob;Bob;=1+1\n"


@pytest.fixture
def autumn(session: Session) -> Campaign:
    return add_campaign(session, name="Autumn")


def send(
    visitor: Visitor,
    campaign: Campaign,
    content: str | bytes,
    name: str = "people.csv",
    **fields: str,
) -> TestResponse:
    visitor.get(f"/campaigns/{campaign.id}/contacts/upload")
    file = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return visitor.post(
        f"/campaigns/{campaign.id}/contacts/upload", {"file": (file, name), **fields}
    )


def people_in(session: Session, campaign: Campaign) -> int:
    session.rollback()
    query = select(func.count()).where(BatchContact.batch_id == campaign.batch.id)
    return session.scalar(query) or 0


def test_the_file_alone_is_imported_at_once(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    answer = send(olga, autumn, FILE)
    assert answer.status_code == 303
    page = olga.get(answer.location)
    said = words(page)
    assert "1 row could not be taken" in said
    assert "Added 1 Updated 0 Unchanged 0 Rejected 1" in said
    assert "3 There is no @bob" in said.replace("@ bob", "@bob")
    assert people_in(session, autumn) == 1


def test_the_page_asks_first(olga: Visitor, session: Session, autumn: Campaign) -> None:
    answer = send(olga, autumn, FILE, review="1")
    page = olga.get(answer.location)
    said = words(page)
    assert "2 rows, 3 columns separated by semicolons, UTF-8" in said
    assert "Import 2 rows" in said
    assert "a value that is not empty wins" in said
    assert "Änn" in said
    assert people_in(session, autumn) == 0

    bad = olga.post(f"{answer.location}/confirm", {"use": ["name", "name", "ignore"]})
    assert bad.status_code == 422
    assert "exactly one column" in words(bad)

    done = olga.post(f"{answer.location}/confirm", {"use": ["email", "name", "ignore"]})
    assert (done.status_code, done.location) == (303, answer.location)
    assert people_in(session, autumn) == 1
    assert session.scalars(select(Contact)).one().attributes == {}

    again = olga.post(f"{answer.location}/confirm", {"use": ["email", "name", "ignore"]})
    assert again.status_code == 303
    assert "confirmed before" in words(olga.get(again.location))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "The file is empty"),
        (b"PK\x03\x04rest", "This is an Excel workbook"),
        (b"name,city\nAnn,Bonn\n", "No column with email addresses"),
        (b"email\n", "There are column names but no rows"),
    ],
)
def test_a_bad_file_comes_back_with_words(
    olga: Visitor, session: Session, autumn: Campaign, content: bytes, complaint: str
) -> None:
    answer = send(olga, autumn, content, "c.csv", review="1")
    assert answer.status_code == 422
    assert complaint in words(answer)
    assert session.scalar(select(func.count()).select_from(Import)) == 0


def test_no_file_at_all(olga: Visitor, autumn: Campaign) -> None:
    olga.get(f"/campaigns/{autumn.id}/contacts/upload")
    answer = olga.post(f"/campaigns/{autumn.id}/contacts/upload", {})
    assert answer.status_code == 422
    assert "Choose a CSV file." in words(answer)


def test_rejected_rows_are_downloaded_corrected_and_uploaded(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    location = send(olga, autumn, FILE).location
    download = olga.get(f"{location}/rejected.csv")
    assert download.mimetype == "text/csv"
    text = download.data.decode("utf-8-sig")
    assert list(csv.reader(io.StringIO(text), delimiter=";")) == [
        ["MCS line", "MCS reason", "E-Mail", "Name", "Firma"],
        ["3", "E-Mail: there is no @", "bob", "Bob", "'=1+1"],
    ]
    corrected = text.replace(";bob;", ";bob@people.example;")
    page = olga.get(send(olga, autumn, corrected).location)
    assert "Added 1 Updated 0 Unchanged 0 Rejected 0" in words(page)
    session.rollback()
    bob = session.scalars(select(Contact).where(Contact.name == "Bob")).one()
    assert bob.attributes == {"firma": "=1+1"}


def test_a_hundred_rejected_rows_to_a_page(olga: Visitor, autumn: Campaign) -> None:
    file = "email\n" + "".join(f"bad{number}\n" for number in range(150))
    location = send(olga, autumn, file).location
    first = olga.get(location)
    assert "bad99" in first.text
    assert "bad100" not in first.text
    link = first.text.split('rel="next" href="')[1].split('"')[0]
    second = olga.get(link.replace("&amp;", "&"))
    assert "bad100" in second.text
    assert "bad149" in second.text


def test_a_large_file_shows_its_progress(
    olga: Visitor, app: Flask, session: Session, autumn: Campaign
) -> None:
    lines = "".join(f"person{number}@people.example,Person\n" for number in range(9_000))
    location = send(olga, autumn, "email,name\n" + lines).location
    page = olga.get(location)
    assert "Waiting for a worker" in words(page)
    # Neither state nor number stands where it would not be renewed.
    header = words(page).partition("Waiting for a worker")[0]
    assert "people.csv Uploaded to Autumn. Go to" in header
    assert 'http-equiv="refresh"' in page.text
    assert "HX-Refresh" not in olga.get(f"{location}/progress").headers
    import_id = int(location.rpartition("/")[2])
    session.rollback()
    uploaded = session.get_one(Import, import_id).created_at
    imports.run(session, lambda: uploaded + timedelta(seconds=1), import_id, secret="s")
    assert olga.get(f"{location}/progress").headers["HX-Refresh"] == "true"
    done = words(olga.get(location))
    assert "people.csv Done Uploaded to Autumn: 9,000 rows read." in done
    assert "Added 9,000" in done


def test_what_a_file_says_cannot_script_the_page(olga: Visitor, autumn: Campaign) -> None:
    evil = "<script>alert(1)</script>"
    file = f'email,"{evil}",{{{{7*7}}}}\n{evil},{evil},{evil}\n'
    for fields in ({}, {"review": "1"}):
        answer = send(olga, autumn, file, f"{evil}.csv", **fields)
        page = olga.get(answer.location)
        assert page.status_code == 200
        assert "<script>alert" not in page.text


def test_a_known_person_is_updated_not_added(
    olga: Visitor, session: Session, autumn: Campaign
) -> None:
    add_contact(session, autumn, "Ann")
    page = olga.get(send(olga, autumn, "email,city\nann@people.example,Bonn\n").location)
    assert "Added 0 Updated 1 Unchanged 0 Rejected 0" in words(page)


def test_strangers_see_nothing(stranger: Visitor, autumn: Campaign) -> None:
    for path in (
        f"/campaigns/{autumn.id}/contacts/upload",
        "/imports/1",
        "/imports/1/rejected.csv",
    ):
        assert stranger.get(path).location.startswith("/login")


@pytest.mark.parametrize(
    "path",
    [
        "/imports/999",
        "/imports/999/progress",
        "/imports/999/rejected.csv",
        "/campaigns/999/contacts/upload",
    ],
)
def test_what_is_not_there(olga: Visitor, path: str) -> None:
    assert olga.get(path).status_code == 404


def test_more_than_200_megabytes_is_said_clearly(olga: Visitor, autumn: Campaign) -> None:
    olga.get(f"/campaigns/{autumn.id}/contacts/upload")
    answer = olga.client.post(
        f"/campaigns/{autumn.id}/contacts/upload",
        content_type="multipart/form-data; boundary=x",
        environ_overrides={"CONTENT_LENGTH": str(300 * 1024 * 1024)},
    )
    assert answer.status_code == 413
    assert "200 MB" in words(answer)


def test_the_example_can_be_downloaded_and_uploaded(olga: Visitor, autumn: Campaign) -> None:
    example = olga.get("/examples/contacts.csv")
    page = olga.get(send(olga, autumn, example.data, "contacts.csv").location)
    assert "Added 196 Updated 0 Unchanged 1 Rejected 3" in words(page)
