"""API tokens: made and shown once, recognised by their hash, revoked."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from mcs.models import ApiToken, User
from mcs.models.api_tokens import SCOPES
from mcs.services import attempts, audit
from mcs.services.transactions import writing
from mcs.services.unknown import Unknown

PREFIX = "mcs_"
LONGEST_NAME = 100
WRONG_PER_NETWORK_ADDRESS = 50
# To note each use would make each request that reads one that writes.
USE_NOTED_EVERY = timedelta(minutes=1)
_ENDING = 4


class RefusedToken(Exception):
    """A token that cannot be made; ``field`` is the form's, ``reason`` a sentence."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field, self.reason = field, reason


class WrongToken(Exception):
    """Not a token of ours, or one that was revoked: which, is not said."""


class TooManyWrong(Exception):
    """So many wrong tokens came from this network address that another is not looked at."""


@dataclass(frozen=True)
class Admitted:
    """A token that is good, and what it may do."""

    id: int
    name: str
    scope: str

    def may(self, scope: str) -> bool:
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


@dataclass(frozen=True)
class Listed:
    """A token, and the address of who made it (empty: the command line)."""

    token: ApiToken
    made_by: str


def make(session: Session, now: datetime, name: str, scope: str, by: int | None) -> str:
    """A new token, which nobody can read again. Raises RefusedToken."""
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME:
        raise RefusedToken("name", f"Say what uses it, in {LONGEST_NAME} characters at most.")
    if scope not in SCOPES:
        raise RefusedToken("scope", f"Choose one of: {', '.join(SCOPES)}.")
    token = PREFIX + secrets.token_urlsafe(32)
    with writing(session):
        row = ApiToken(
            name=name,
            scope=scope,
            token_hash=_hash(token),
            ending=token[-_ENDING:],
            created_at=now,
            created_by=by,
        )
        session.add(row)
        session.flush()
        audit.note(session, now, by, "made", "api token", row.id, name=name, scope=scope)
    return token


def revoke(session: Session, now: datetime, token_id: int, by: int | None) -> None:
    """End a token at once; one that has ended stays as it is. Raises Unknown."""
    with writing(session):
        token = session.get(ApiToken, token_id)
        if token is None:
            raise Unknown(f"api token {token_id}")
        _end(session, now, token, by)


def revoke_those_of(session: Session, now: datetime, user_id: int, by: int | None) -> None:
    """End the tokens that somebody made, in the caller's transaction."""
    for token in session.scalars(select(ApiToken).where(ApiToken.created_by == user_id)):
        _end(session, now, token, by)


def find(session: Session, token_id: int) -> ApiToken:
    """The token of that id, while it is good. Raises Unknown."""
    token = session.get(ApiToken, token_id)
    if token is None or token.revoked_at is not None:
        raise Unknown(f"api token {token_id}")
    return token


def everyone(session: Session) -> Sequence[Listed]:
    """The tokens that are good, the oldest first."""
    rows = session.execute(
        select(ApiToken, User.email)
        .outerjoin(User, User.id == ApiToken.created_by)
        .where(ApiToken.revoked_at.is_(None))
        .order_by(ApiToken.id)
    )
    return [Listed(token, email or "") for token, email in rows]


def admit(session: Session, now: datetime, token: str, network_address: str) -> Admitted:
    """Recognise a token, and note that it was used. Raises WrongToken, TooManyWrong.

    A good token is admitted however many wrong ones came from the same network address: others may
    share it. Wrong ones are counted there, and from the 51st in 15 minutes on not even that.
    """
    row = session.connection().execute(_GOOD, {"hash": _hash(token)}).first()
    if row is None:
        _count_wrong(session, now, attempts.key("token", network_address))
        raise WrongToken
    admitted = Admitted(row.id, row.name, row.scope)
    if row.last_used_at is None or now - row.last_used_at >= USE_NOTED_EVERY:
        with writing(session):
            session.get_one(ApiToken, row.id).last_used_at = now
    return admitted


# Ready, since each request begins with it: built anew, it took as long as the enrolment's own SQL.
_GOOD: Any = select(ApiToken.id, ApiToken.name, ApiToken.scope, ApiToken.last_used_at).where(
    ApiToken.token_hash == bindparam("hash"), ApiToken.revoked_at.is_(None)
)


def _count_wrong(session: Session, now: datetime, key: str) -> None:
    if attempts.so_far(session, now, key) >= WRONG_PER_NETWORK_ADDRESS:
        raise TooManyWrong
    with writing(session):
        attempts.one_more(session, now, key)


def _end(session: Session, now: datetime, token: ApiToken, by: int | None) -> None:
    if token.revoked_at is None:
        token.revoked_at = now
        audit.note(session, now, by, "revoked", "api token", token.id, name=token.name)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()
