"""The first run, signing in and out, and one's own account."""

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from flask import Flask

from mcs.extensions import db
from mcs.services import users
from mcs.web.security import safe_next
from tests.web.visitor import OWNER_EMAIL, PASSWORD, Visitor, make_owner, words


def setup_link(app: Flask, **given: str) -> str:
    with app.app_context():
        token = users.new_setup_token(db.session(), datetime.now(UTC), **given)
    return f"/setup?token={token}"


def test_until_there_is_an_owner_every_page_leads_to_setup(app: Flask) -> None:
    visitor = Visitor(app)
    for path in ("/", "/campaigns/", "/account", "/users/", "/login"):
        answer = visitor.get(path)
        assert (answer.status_code, answer.location) == (303, "/setup"), path
    assert "make run" in words(visitor.get("/setup"))


@pytest.mark.parametrize("path", ["/setup", "/setup?token=cut"])
@pytest.mark.parametrize(
    ("env", "program"), [("development", ".venv/bin/flask"), ("production", "flask")]
)
def test_the_command_that_setup_prints_makes_the_owner(
    app: Flask, path: str, env: str, program: str
) -> None:
    app.config["SETTINGS"] = replace(app.config["SETTINGS"], env=env)
    printed = re.search(r"<pre[^>]*><code>(.*?)</code></pre>", Visitor(app).get(path).text)
    assert printed is not None
    command = shlex.split(printed[1])
    assert command[:4] == [program, "--app", "wsgi", "mcs"]
    made = app.test_cli_runner().invoke(args=command[3:], input=f"{PASSWORD}\n{PASSWORD}\n")
    assert made.exit_code == 0, made.output
    assert made.output.endswith("you@example.com can sign in as owner.\n")


def test_the_one_time_link_makes_the_owner_and_signs_in(app: Flask) -> None:
    link = setup_link(app)
    visitor = Visitor(app)
    visitor.get(link)
    short = visitor.post(link, {"email": OWNER_EMAIL, "password": "short"})
    assert short.status_code == 422
    assert "10 characters or more" in words(short)
    assert OWNER_EMAIL in short.text
    done = visitor.post(link, {"email": OWNER_EMAIL, "password": PASSWORD})
    assert (done.status_code, done.location) == (303, "/")
    assert visitor.get("/account").status_code == 200


def test_the_link_works_once_and_no_other_first_run_link_works_after_it(app: Flask) -> None:
    first, second = setup_link(app), setup_link(app)
    olga = Visitor(app)
    olga.get(first)
    olga.post(first, {"email": OWNER_EMAIL, "password": PASSWORD})
    for link in (first, second, "/setup?token=wrong"):
        assert Visitor(app).get(link).status_code == 403
    assert Visitor(app).get("/setup").location == "/login"


def test_an_unknown_address_and_a_wrong_password_get_the_same_answer(stranger: Visitor) -> None:
    answers = []
    for email in (OWNER_EMAIL, "nobody@shop.example", "not an address"):
        stranger.get("/login")
        answer = stranger.post("/login", {"email": email, "password": "wrong password"})
        answers.append((answer.status_code, words(answer).replace(email, "")))
    assert len(set(answers)) == 1
    assert answers[0][0] == 422


def test_signing_in_leads_where_one_wanted_to_go(stranger: Visitor) -> None:
    asked = stranger.get("/users/?after=7")
    assert asked.location == "/login?next=/users/%3Fafter%3D7"
    stranger.get(asked.location)
    done = stranger.post(asked.location, {"email": OWNER_EMAIL, "password": PASSWORD})
    assert done.location == "/users/?after=7"


@pytest.mark.parametrize(
    "target",
    [
        "//evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        " //evil.example",
        "javascript:alert(1)",
        "evil.example",
        "",
        None,
    ],
)
def test_nobody_is_led_elsewhere(target: str | None) -> None:
    assert safe_next(target) == "/"


def test_after_ten_wrong_attempts_even_the_right_password_waits(stranger: Visitor) -> None:
    for _ in range(10):
        stranger.get("/login")
        stranger.post("/login", {"email": OWNER_EMAIL, "password": "wrong password"})
    locked = stranger.post("/login", {"email": OWNER_EMAIL, "password": PASSWORD})
    assert locked.status_code == 429
    for _ in range(11):
        stranger.get("/login")
        unknown = stranger.post("/login", {"email": "no@shop.example", "password": PASSWORD})
    assert unknown.status_code == 429
    assert words(unknown).replace("no@shop.example", "") == words(locked).replace(OWNER_EMAIL, "")


def test_a_new_password_ends_the_other_sessions_and_keeps_this_one(
    app: Flask, olga: Visitor
) -> None:
    elsewhere = Visitor(app)
    elsewhere.sign_in()
    fields = {"current": PASSWORD, "password": "eight red kettles", "again": "eight red kettles"}
    assert olga.post("/account", fields).status_code == 303
    assert olga.get("/account").status_code == 200
    assert elsewhere.get("/account").location == "/login?next=/account"
    assert Visitor(app).sign_in(password="eight red kettles").status_code == 303


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"current": "wrong", "password": "eight red kettles"}, "not your current password"),
        ({"current": PASSWORD, "password": "short"}, "10 characters"),
        ({"current": PASSWORD, "password": "olga@shop.example"}, "first thing that others"),
        ({"current": PASSWORD, "password": "password123"}, "common passwords"),
        ({"current": PASSWORD, "password": "eight red kettles", "again": "x"}, "The two differ"),
    ],
)
def test_a_password_that_cannot_be_is_refused(
    olga: Visitor, fields: dict[str, object], complaint: str
) -> None:
    answer = olga.post("/account", {"again": fields["password"], **fields})
    assert answer.status_code == 422
    assert complaint in words(answer)


def test_signing_out_ends_the_session(olga: Visitor) -> None:
    assert olga.post("/logout").location == "/login"
    assert olga.get("/account").status_code == 303


def test_a_page_left_open_leads_to_sign_in_whole(olga: Visitor) -> None:
    """Olga signs out in one window; in another her home page goes on asking how sendings stand."""
    by_htmx = {"HX-Request": "true"}
    part = olga.get("/sending", headers=by_htmx)
    assert part.status_code == 200 and "HX-Refresh" not in part.headers
    olga.post("/logout")
    answer = olga.get("/sending", headers=by_htmx)
    assert answer.headers["HX-Refresh"] == "true"
    assert answer.status_code == 401 and answer.text == ""
    assert olga.get("/sending").location == "/login?next=/sending"


def test_signing_out_everywhere_ends_all_sessions(app: Flask, olga: Visitor) -> None:
    elsewhere = Visitor(app)
    elsewhere.sign_in()
    assert olga.post("/account/sign-out-everywhere").status_code == 303
    for visitor in (olga, elsewhere):
        assert visitor.get("/account").status_code == 303


def test_the_owner_lets_marie_in_with_a_one_time_link(app: Flask, olga: Visitor) -> None:
    page = olga.post("/users/", {"email": "marie@shop.example"})
    link = page.text.split("http://mcs.example")[1].split('"')[0]
    marie = Visitor(app)
    assert "marie@shop.example" in marie.get(link).text
    marie.post(link, {"email": "somebody@else.example", "password": PASSWORD})
    assert "marie@shop.example" in marie.get("/account").text
    assert marie.get("/users/").status_code == 403
    assert marie.post("/users/", {"email": "x@shop.example"}).status_code == 403
    assert "marie@shop.example" in words(olga.get("/users/"))


def test_a_removed_person_is_out_at_once_and_may_be_invited_again(
    olga: Visitor, marie: Visitor, app: Flask
) -> None:
    with app.app_context():
        found = [one.id for one in users.everyone(db.session()) if one.role == users.MARKETER]
    assert "Remove marie@shop.example?" in words(olga.get(f"/users/{found[0]}/remove"))
    assert olga.post(f"/users/{found[0]}/remove").status_code == 303
    assert marie.get("/account").status_code == 303
    assert Visitor(app).sign_in("marie@shop.example").status_code == 422
    assert olga.post("/users/", {"email": "marie@shop.example"}).status_code == 200


def test_the_only_owner_cannot_be_removed(app: Flask, olga: Visitor) -> None:
    with app.app_context():
        owner = users.everyone(db.session())[0].id
    olga.post(f"/users/{owner}/remove")
    assert "cannot be removed" in words(olga.get("/users/"))


def test_the_theme_is_remembered(app: Flask, olga: Visitor) -> None:
    answer = olga.post("/theme", {"theme": "dark", "next": "/account?"})
    assert answer.location == "/account"
    assert 'data-theme="dark"' in olga.get("/account").text
    assert olga.post("/theme", {"theme": "pink"}).status_code == 400


def test_a_session_of_a_user_who_is_gone_is_none(app: Flask) -> None:
    make_owner(app)
    visitor = Visitor(app)
    with visitor.client.session_transaction() as session:
        session["_user_id"] = "999:abc"
    assert visitor.get("/account").status_code == 303
