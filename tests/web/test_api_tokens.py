"""Tokens for programs: Olga, who owns the installation, makes and revokes them."""

import re
from datetime import datetime, timedelta

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import ApiToken, AuditEntry, SignInLimit, User
from mcs.services import api_tokens, attempts, users
from mcs.services.api_tokens import TooManyWrong, WrongToken
from tests.web.visitor import OWNER_EMAIL, Visitor, words

HERE = "192.0.2.7"


def admitted(session: Session, now: datetime, token: str) -> str:
    return api_tokens.admit(session, now, token, HERE).scope


def test_a_token_is_shown_once_and_kept_as_a_hash(olga: Visitor, session: Session) -> None:
    olga.get("/api-tokens/")
    answer = olga.post("/api-tokens/", {"name": "Web shop", "scope": "enrol"})
    assert (answer.status_code, answer.location) == (303, "/api-tokens/made")
    shown = olga.get("/api-tokens/made")
    (token,) = re.findall(r'value="(mcs_[^"]+)"', shown.text)
    assert "The token of Web shop" in words(shown)
    assert shown.headers["Cache-Control"] == "no-store"
    assert olga.get("/api-tokens/made").location == "/api-tokens/", "reloaded"
    page = olga.get("/api-tokens/")
    assert token not in page.text
    assert f"Web shop …{token[-4:]} enrol" in words(page) and "never" in words(page)
    row = session.scalars(select(ApiToken)).one()
    assert token not in (row.token_hash, row.name) and row.created_by is not None
    said = [(entry.verb, entry.noun) for entry in session.scalars(select(AuditEntry))]
    assert ("made", "api token") in said
    assert "made api token" in words(olga.get("/activity/"))


def test_a_revoked_token_is_refused_at_once(olga: Visitor, session: Session, now: datetime) -> None:
    token = api_tokens.make(session, now, "Web shop", "enrol", None)
    assert admitted(session, now, token) == "enrol"
    token_id = session.scalars(select(ApiToken.id)).one()
    path = f"/api-tokens/{token_id}/revoke"
    assert "cannot be brought back" in words(olga.get(path))
    assert olga.post(path).status_code == 303
    assert "Web shop" in words(olga.get("/api-tokens/")), "the sentence that says so"
    assert "Web shop" not in words(olga.get("/api-tokens/"))
    assert olga.get(path).status_code == 404
    session.rollback()
    with pytest.raises(WrongToken):
        admitted(session, now, token)


def test_only_the_owner_makes_tokens(marie: Visitor) -> None:
    assert marie.get("/api-tokens/").status_code == 403
    assert marie.post("/api-tokens/", {"name": "mine", "scope": "manage"}).status_code == 403


@pytest.mark.parametrize(
    "fields", [{}, {"name": "  "}, {"name": "x" * 101}, {"name": "shop", "scope": "owner"}]
)
def test_what_cannot_be_is_said_at_the_form(
    olga: Visitor, session: Session, fields: dict[str, object]
) -> None:
    olga.get("/api-tokens/")
    answer = olga.post("/api-tokens/", fields)
    assert answer.status_code == 422
    assert "Please check" in words(answer)
    assert session.scalars(select(ApiToken)).all() == []


def test_who_is_removed_takes_their_tokens_along(
    olga: Visitor, session: Session, now: datetime
) -> None:
    owner = session.scalars(select(User).where(User.email == OWNER_EMAIL)).one().id
    other = users.create_user(session, now, "otto@shop.example", "seven red kettles", "owner").id
    token = api_tokens.make(session, now, "Otto's script", "read", other)
    users.remove(session, now, other, owner)
    with pytest.raises(WrongToken):
        admitted(session, now, token)


def test_the_last_use_is_noted_to_the_minute(session: Session, now: datetime) -> None:
    token = api_tokens.make(session, now, "Web shop", "read", None)
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (100, 60)):
        admitted(session, now + timedelta(seconds=seconds), token)
        used = session.scalars(select(ApiToken.last_used_at)).one()
        assert used == now + timedelta(seconds=noted)


def test_wrong_tokens_are_counted_and_good_ones_are_not_kept_out(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    with sessions() as session:
        token = api_tokens.make(session, now, "Web shop", "read", None)
        for _ in range(api_tokens.WRONG_PER_NETWORK_ADDRESS):
            with pytest.raises(WrongToken):
                admitted(session, now, "mcs_wrong")
        with pytest.raises(TooManyWrong):
            admitted(session, now, "mcs_wrong")
        assert admitted(session, now, token) == "read"
        with pytest.raises(WrongToken):
            admitted(session, now + attempts.WINDOW, "mcs_wrong")
        assert HERE not in session.scalars(select(SignInLimit.key)).one()


def test_tokens_on_the_command_line(app: Flask, session: Session, now: datetime) -> None:
    runner = app.test_cli_runner()

    def mcs(*given: str) -> Result:
        return runner.invoke(args=["mcs", *given])

    token = mcs("create-token", "Web shop").output.strip()
    assert admitted(session, now, token) == "enrol"
    token_id = session.scalars(select(ApiToken.id)).one()
    session.rollback()
    assert f"{token_id}  enrol   …{token[-4:]}  Web shop, last used" in mcs("list-tokens").output
    assert mcs("revoke-token", str(token_id)).exit_code == 0
    assert mcs("list-tokens").output.startswith("There is no token yet")
    session.rollback()
    with pytest.raises(WrongToken):
        admitted(session, now, token)
    refused = mcs("revoke-token", "99")
    assert (refused.exit_code, "There is no token 99." in refused.output) == (1, True)
    assert mcs("create-token", " ").exit_code == 1
