"""Who may come in: a bearer token (RFC 6750), and what it may do."""

from datetime import datetime

from flask import request
from sqlalchemy.orm import Session

from mcs.api.problems import Problem
from mcs.services import api_tokens, audit
from mcs.services.api_tokens import Admitted

READ, ENROL, MANAGE = "read", "enrol", "manage"
_REALM = 'Bearer realm="MCS"'


def admit(session: Session, now: datetime, scope: str) -> Admitted:
    """The token of this request, which may do what ``scope`` asks for. Raises Problem."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not token.strip():
        raise Problem(
            "unauthorized",
            "Send the header Authorization: Bearer and a token; the owner makes one on the page"
            " API tokens.",
            headers={"WWW-Authenticate": _REALM},
        )
    try:
        admitted = api_tokens.admit(session, now, token.strip(), request.remote_addr or "")
    except api_tokens.WrongToken:
        raise Problem(
            "unauthorized",
            "This token is not good: it is misspelt, or was revoked.",
            headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
        ) from None
    except api_tokens.TooManyWrong:
        raise Problem(
            "too-many-wrong-tokens",
            "Wait a quarter of an hour before you try another.",
            headers={"Retry-After": "900"},
        ) from None
    if not admitted.may(scope):
        raise Problem(
            "forbidden",
            f"It may {admitted.scope}; this needs a token that may {scope}.",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
        )
    audit.come_through(session, token=admitted.name)
    return admitted
