"""Users: passwords, one-time links, and limits that hold over processes."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from mcs.models import AuditEntry, SetupToken, SignInLimit, User
from mcs.services import attempts, users
from mcs.services.users import RefusedUser, TooManyAttempts

PASSWORD = "seven green kettles"
HERE = "192.0.2.7"


def olga(session: Session, now: datetime) -> User:
    return users.create_user(session, now, "olga@shop.example", PASSWORD, users.OWNER)


def test_passwords_are_kept_as_argon2id(session: Session, now: datetime) -> None:
    assert olga(session, now).password_hash.startswith("$argon2id$")


def test_an_address_signs_in_however_it_is_typed(session: Session, now: datetime) -> None:
    olga(session, now)
    assert users.sign_in(session, now, " OLGA@Shop.Example ", PASSWORD, HERE) is not None


def test_an_address_is_one_user(session: Session, now: datetime) -> None:
    olga(session, now)
    with pytest.raises(RefusedUser, match="already"):
        users.create_user(session, now, "Olga@SHOP.example", PASSWORD, users.MARKETER)


@pytest.mark.parametrize("email", ["", "nonsense", "a@b", "<olga@shop.example>"])
def test_what_is_no_address_is_refused_at_its_field(
    session: Session, now: datetime, email: str
) -> None:
    with pytest.raises(RefusedUser) as refusal:
        users.create_user(session, now, email, PASSWORD, users.OWNER)
    assert refusal.value.field == "email"


def test_only_the_hash_of_a_link_is_kept(session: Session, now: datetime) -> None:
    token = users.new_setup_token(session, now)
    kept = session.scalars(select(SetupToken)).one()
    assert token not in (kept.token_hash, kept.email)
    assert users.invitation(session, now, token) == users.Invitation("", users.OWNER)


def test_a_link_ends_after_three_days(session: Session, now: datetime) -> None:
    token = users.new_setup_token(session, now)
    almost = now + timedelta(hours=72) - timedelta(seconds=1)
    assert users.invitation(session, almost, token) is not None
    assert users.invitation(session, now + timedelta(hours=72), token) is None


def test_a_refused_password_does_not_use_up_the_link(session: Session, now: datetime) -> None:
    token = users.new_setup_token(session, now)
    with pytest.raises(RefusedUser):
        users.accept(session, now, token, "olga@shop.example", "short")
    assert users.accept(session, now, token, "olga@shop.example", PASSWORD).role == users.OWNER
    with pytest.raises(RefusedUser, match="used already"):
        users.accept(session, now, token, "eve@shop.example", PASSWORD)


def test_a_second_invitation_ends_the_first(session: Session, now: datetime) -> None:
    owner = olga(session, now)
    first = users.invite(session, now, "marie@shop.example", owner.id)
    second = users.invite(session, now, "marie@shop.example", owner.id)
    assert users.invitation(session, now, first) is None
    assert users.invitation(session, now, second) is not None


def test_attempts_are_counted_by_account_over_all_processes(
    sessions: sessionmaker[Session], now: datetime
) -> None:
    with sessions() as one:
        olga(one, now)
    for _ in range(users.ATTEMPTS_PER_ACCOUNT):
        with sessions() as another:
            assert users.sign_in(another, now, "olga@shop.example", "wrong", HERE) is None
    with sessions() as last:
        with pytest.raises(TooManyAttempts):
            users.sign_in(last, now, "olga@shop.example", PASSWORD, "198.51.100.1")
        later = now + attempts.WINDOW
        assert users.sign_in(last, later, "olga@shop.example", PASSWORD, HERE) is not None


def test_attempts_are_counted_by_network_address(session: Session, now: datetime) -> None:
    olga(session, now)
    for number in range(users.ATTEMPTS_PER_NETWORK_ADDRESS):
        users.sign_in(session, now, f"nobody{number}@shop.example", "wrong", HERE)
    with pytest.raises(TooManyAttempts):
        users.sign_in(session, now, "olga@shop.example", PASSWORD, HERE)
    assert users.sign_in(session, now, "olga@shop.example", PASSWORD, "198.51.100.1") is not None


def test_limits_keep_no_addresses_and_go_when_they_are_over(
    session: Session, now: datetime
) -> None:
    olga(session, now)
    users.sign_in(session, now, "nobody@shop.example", "wrong", HERE)
    keys = session.scalars(select(SignInLimit.key)).all()
    assert len(keys) == 2
    assert not any("nobody" in key or HERE in key for key in keys)
    users.sign_in(session, now + attempts.WINDOW, "olga@shop.example", PASSWORD, HERE)
    assert session.scalars(select(SignInLimit.since)).all() == [now + attempts.WINDOW]


def test_a_stolen_session_is_no_way_to_guess_the_password(session: Session, now: datetime) -> None:
    user_id = olga(session, now).id
    for _ in range(users.ATTEMPTS_PER_ACCOUNT):
        with pytest.raises(RefusedUser):
            users.change_password(session, now, user_id, "wrong", "eight red kettles")
    with pytest.raises(TooManyAttempts):
        users.change_password(session, now, user_id, PASSWORD, "eight red kettles")


def test_the_audit_log_names_who_was_removed_and_holds_no_secret(
    session: Session, now: datetime
) -> None:
    owner = olga(session, now)
    marie = users.create_user(session, now, "marie@shop.example", PASSWORD, users.MARKETER)
    key = marie.session_key
    users.remove(session, now, marie.id, owner.id)
    assert users.find(session, marie.id, key) is None
    entries = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [(entry.verb, entry.detail.get("email")) for entry in entries][-1] == (
        "removed",
        "marie@shop.example",
    )
    assert not any(PASSWORD in str(entry.detail) for entry in entries)
