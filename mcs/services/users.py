"""Users: who may sign in, their passwords, and the one-time links that let them choose one."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from mcs.core.addresses import Address, BadAddress, parse_address
from mcs.core.passwords import weakness
from mcs.models import SetupToken, SignInLimit, User
from mcs.services import api_tokens, attempts, audit
from mcs.services.transactions import writing

OWNER, MARKETER = "owner", "marketer"
LINK_LIVES = timedelta(hours=72)

ATTEMPTS_PER_ACCOUNT = 10
ATTEMPTS_PER_NETWORK_ADDRESS = 50

# OWASP's parameters for argon2id: 19 MiB, two passes, about 30 ms.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class RefusedUser(Exception):
    """Something about a user that cannot be; ``field`` is the form's, ``reason`` a sentence."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


class TooManyAttempts(Exception):
    """Signing in is closed for a while, to this account or from this network address."""


@dataclass(frozen=True)
class Invitation:
    """What a valid one-time link allows: ``email`` is empty when the person may choose it."""

    email: str
    role: str


def new_setup_token(session: Session, now: datetime, email: str = "", role: str = OWNER) -> str:
    """A fresh one-time token for ``/setup?token=``, good for 72 hours. Only its hash is kept."""
    with writing(session):
        return _add_token(session, now, email, role)


def invite(session: Session, now: datetime, email: str, by: int) -> str:
    """The token of a link with which the owner of this address becomes a marketer.

    An earlier invitation of the address ends. Raises RefusedUser.
    """
    address = _address(email)
    with writing(session):
        _refuse_known(session, address)
        session.execute(delete(SetupToken).where(SetupToken.email == address.email))
        audit.note(session, now, by, "invited", "user", None, email=address.email)
        return _add_token(session, now, address.email, MARKETER)


def invitation(session: Session, now: datetime, token: str) -> Invitation | None:
    """What the token allows, or None when it is wrong, used, too old, or no longer needed."""
    found = _find_token(session, now, token)
    return Invitation(found.email, found.role) if found else None


def accept(session: Session, now: datetime, token: str, email: str, password: str) -> User:
    """Use a one-time link: its person becomes a user. Raises RefusedUser."""
    with writing(session):
        found = _find_token(session, now, token)
        if found is None:
            raise RefusedUser("", "This link was used already, or is too old. Ask for a new one.")
        found.used_at = now
        return _add_user(session, now, found.email or email, password, found.role)


def create_user(session: Session, now: datetime, email: str, password: str, role: str) -> User:
    """Make a user, as the command line does. Raises RefusedUser."""
    with writing(session):
        return _add_user(session, now, email, password, role)


def sign_in(
    session: Session, now: datetime, email: str, password: str, network_address: str
) -> User | None:
    """The user whose address and password these are, or None: which was wrong is not said.

    Takes about as long for an unknown address as for a known one. Raises TooManyAttempts after
    10 attempts for one account, or 50 from one network address, in 15 minutes; the attempt is
    counted before the password is looked at, so that many at once gain nothing.
    """
    account = attempts.key("account", _email_key(email))
    _count_attempt(session, now, account, attempts.key("network", network_address))
    user = session.scalar(
        select(User).where(User.email_key == _email_key(email), User.removed_at.is_(None))
    )
    if not _matches(user.password_hash if user else _nobodys_hash(), password) or user is None:
        return None
    user_id = user.id
    with writing(session):
        session.execute(delete(SignInLimit).where(SignInLimit.key == account))
        session.execute(delete(SignInLimit).where(SignInLimit.since <= now - attempts.WINDOW))
        user = session.get_one(User, user_id)
        if _hasher.check_needs_rehash(user.password_hash):
            user.password_hash = _hasher.hash(password)
        audit.note(session, now, user.id, "signed in", "user", user.id)
    return user


def find(session: Session, user_id: int, session_key: str) -> User | None:
    """The user of a session, unless it was ended since."""
    user = session.get(User, user_id)
    if user is None or user.removed_at is not None:
        return None
    return user if secrets.compare_digest(user.session_key, session_key) else None


def change_password(
    session: Session, now: datetime, user_id: int, current: str, password: str
) -> User:
    """Set a new password and end every session of the user.

    Raises RefusedUser, and TooManyAttempts as ``sign_in`` does: a stolen session must not be a way
    to guess the password.
    """
    _count_attempt(session, now, attempts.key("password", str(user_id)))
    with writing(session):
        user = session.get_one(User, user_id)
        if not _matches(user.password_hash, current):
            raise RefusedUser("current", "This is not your current password.")
        _refuse_weak(password, user.email)
        user.password_hash = _hasher.hash(password)
        user.session_key = secrets.token_hex()
        audit.note(session, now, user_id, "changed the password of", "user", user_id)
    return user


def sign_out_everywhere(session: Session, now: datetime, user_id: int) -> User:
    """End every session of the user."""
    with writing(session):
        user = session.get_one(User, user_id)
        user.session_key = secrets.token_hex()
        audit.note(session, now, user_id, "signed out everywhere", "user", user_id)
    return user


def remove(session: Session, now: datetime, user_id: int, by: int) -> None:
    """Take a user's access away at once, and that of the API tokens they made.

    The last owner stays: raises RefusedUser.
    """
    with writing(session):
        user = session.get(User, user_id)
        if user is None or user.removed_at is not None:
            return
        if user.role == OWNER and len([one for one in everyone(session) if one.role == OWNER]) == 1:
            raise RefusedUser("", "The only owner cannot be removed.")
        user.removed_at = now
        user.email_key = f"#{user.id}"
        user.password_hash = "!"
        user.session_key = secrets.token_hex()
        api_tokens.revoke_those_of(session, now, user.id, by)
        audit.note(session, now, by, "removed", "user", user.id, email=user.email)


def everyone(session: Session) -> Sequence[User]:
    """All who may sign in, in the order in which they came."""
    return session.scalars(select(User).where(User.removed_at.is_(None)).order_by(User.id)).all()


def waiting_invitations(session: Session, now: datetime) -> Sequence[SetupToken]:
    """Invitations that can still be accepted."""
    open_ones = select(SetupToken).where(
        SetupToken.email != "", SetupToken.used_at.is_(None), SetupToken.expires_at > now
    )
    return session.scalars(open_ones.order_by(SetupToken.id)).all()


def withdraw_invitation(session: Session, now: datetime, token_id: int, by: int) -> None:
    """End an invitation before it is accepted."""
    with writing(session):
        token = session.get(SetupToken, token_id)
        if token is not None and token.used_at is None:
            verb = "withdrew the invitation of"
            audit.note(session, now, by, verb, "user", None, email=token.email)
            session.delete(token)


def has_owner(session: Session) -> bool:
    """Whether the installation is set up."""
    owner = select(User.id).where(User.role == OWNER, User.removed_at.is_(None)).limit(1)
    return session.scalar(owner) is not None


def _add_token(session: Session, now: datetime, email: str, role: str) -> str:
    token = secrets.token_urlsafe(32)
    expires_at = now + LINK_LIVES
    session.add(
        SetupToken(token_hash=_token_hash(token), email=email, role=role, expires_at=expires_at)
    )
    return token


def _find_token(session: Session, now: datetime, token: str) -> SetupToken | None:
    found = session.scalar(select(SetupToken).where(SetupToken.token_hash == _token_hash(token)))
    if found is None or found.used_at is not None or found.expires_at <= now:
        return None
    # A link of the first run is worth nothing once somebody has used another one.
    if not found.email and has_owner(session):
        return None
    return found


def _token_hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _add_user(session: Session, now: datetime, email: str, password: str, role: str) -> User:
    address = _address(email)
    _refuse_known(session, address)
    _refuse_weak(password, address.email)
    user = User(
        email=address.email,
        email_key=address.key,
        password_hash=_hasher.hash(password),
        session_key=secrets.token_hex(),
        role=role,
        created_at=now,
    )
    session.add(user)
    session.flush()
    audit.note(session, now, user.id, "created", "user", user.id, email=user.email, role=role)
    return user


def _address(email: str) -> Address:
    try:
        return parse_address(email)
    except BadAddress as error:
        raise RefusedUser("email", f"This is not an email address: {error.reason}.") from None


def _refuse_known(session: Session, address: Address) -> None:
    if session.scalar(select(User.id).where(User.email_key == address.key)) is not None:
        raise RefusedUser("email", "Somebody with this address can sign in already.")


def _refuse_weak(password: str, email: str) -> None:
    reason = weakness(password, email)
    if reason:
        raise RefusedUser("password", reason)


def _matches(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobodys_hash() -> str:
    """What an unknown address's password is compared with, so that it takes as long."""
    return _hasher.hash(secrets.token_hex())


def _email_key(email: str) -> str:
    try:
        return parse_address(email).key
    except BadAddress:
        return email.strip().lower()


def _count_attempt(session: Session, now: datetime, account: str, network: str = "") -> None:
    with writing(session):
        of_account = attempts.one_more(session, now, account)
        of_network = attempts.one_more(session, now, network) if network else 0
    if of_account > ATTEMPTS_PER_ACCOUNT or of_network > ATTEMPTS_PER_NETWORK_ADDRESS:
        raise TooManyAttempts
